"""Scores computed from targets and predictions, as arrays. No model, no file, no drawing."""
