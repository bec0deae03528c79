"""How each task reads targets, computes its loss, decodes outputs and scores itself."""
