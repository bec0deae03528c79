"""Images and labels from disk: decoding, sources, data set layouts, splits, preprocessing, augmentation.

Everything here reads or prepares data, independently of models. Losses, metrics and loops are elsewhere.
"""
