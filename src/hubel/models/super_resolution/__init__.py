"""Super-resolution: networks that give back more pixels than they got."""
