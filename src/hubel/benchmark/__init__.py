"""``hubel bench``: speed of models on this machine, by engine, precision and batch, each in its own process."""
