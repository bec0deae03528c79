"""Pictures and labels from disk: decoding, sources, data set layouts, splits, preprocessing, augmentation.

What belongs here reads or prepares data and knows no model. Losses, metrics and loops do not belong here.
"""
