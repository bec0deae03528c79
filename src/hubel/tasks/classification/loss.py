"""Image classification: the loss, the choice for skewed classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


def classification_loss(
    scores: Tensor, targets: Tensor, label_smoothing: float = 0.0, class_weights: Tensor | None = None
) -> Tensor:
    """Mean cross-entropy.

    Args:
        scores: raw class scores (N, classes).
        targets: class indices (N,), or rows of class probabilities (N, classes) after MixUp or CutMix.
        label_smoothing: share of the target's probability spread evenly over all classes
            (Szegedy et al. 2016, arXiv 1512.00567, section 7).
        class_weights: how much an image of each class counts in the mean (classes,).
    """
    if class_weights is None:
        return F.cross_entropy(scores, targets, label_smoothing=label_smoothing)
    # Given to torch's function, the weights would also apply to the smoothed share of every other class, and pull
    # all answers towards rare classes.
    each = F.cross_entropy(scores, targets, label_smoothing=label_smoothing, reduction="none")
    counts = _image_weights(targets, class_weights)
    return (counts * each).sum() / counts.sum()


def batch_weight(targets: Tensor, class_weights: Tensor | None = None) -> float:
    """How much a batch counts beside others, if the mean is to be one over all of them; arguments as above."""
    return float(len(targets) if class_weights is None else _image_weights(targets, class_weights).sum())


def _image_weights(targets: Tensor, class_weights: Tensor) -> Tensor:
    return class_weights[targets] if targets.ndim == 1 else targets @ class_weights


def inverse_frequency(labels: Sequence[int], num_classes: int) -> Tensor:
    """Weight of each class, proportional to 1 / its images, with a mean of 1 over the images (classes,)."""
    counts = torch.bincount(torch.as_tensor(labels), minlength=num_classes).float()
    weights = 1.0 / counts.clamp(min=1.0)
    return weights * (counts.sum() / (weights * counts).sum())


def imbalance_ratio(labels: Sequence[int], num_classes: int) -> float:
    """Images of the largest class over images of the smallest."""
    counts = np.bincount(np.asarray(labels), minlength=num_classes)
    return float(counts.max() / max(1, counts.min()))
