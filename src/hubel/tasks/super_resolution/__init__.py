"""Super-resolution: more pixels than there were."""
