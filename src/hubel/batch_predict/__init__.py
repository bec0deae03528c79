"""Predicting collections that take hours: in blocks, by Ray, each block written once and never computed again."""
