"""The one training loop, what it decides by measuring, its run folders, and evaluation of what it made.

Architectures, losses and file formats do not belong here.
"""

from __future__ import annotations

from hubel.training.evaluate import evaluate as evaluate
from hubel.training.train import train as train

__all__ = ["evaluate", "train"]
