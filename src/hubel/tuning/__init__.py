"""Search for the settings of a training by cross-validation."""
