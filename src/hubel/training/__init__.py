"""The one training loop, what it decides by measuring, its run folders, and evaluation of what it made.

Architectures, losses and file formats do not belong here.
"""
