"""Metrics of predictions and targets as arrays, without models, files or drawing."""
