"""The architectures, the registry that lists them, and saved models.

A model maps a batch of images to raw tensors, the same type in training and evaluation. Losses, thresholds and
decoding belong to the tasks.
"""
