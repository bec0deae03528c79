"""Losses of class maps beside the mean cross-entropy.

All take raw scores (N, classes, H, W) and class maps int64 (N, H, W), in which ``ignore_index`` marks pixels that do
not count, and give a scalar.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_HARD = 0.7  # probability of the true class below which a pixel is hard
_LEAST = 16  # at least one pixel in so many counts


def hardest_cross_entropy(
    scores: Tensor, class_maps: Tensor, ignore_index: int, weights: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the pixels whose true class has a probability below 0.7, or of the hardest sixteenth, if more.

    Online hard example mining (Shrivastava et al. 2016, arXiv 1604.03540) as it is used for pixels: Wu et al. 2016,
    "High-performance Semantic Segmentation Using Very Deep Fully Convolutional Networks", arXiv 1604.04339, section
    2.2. ``weights`` (classes,) are those of the classes' pixels.
    """
    each = functional.cross_entropy(scores, class_maps, ignore_index=ignore_index, reduction="none")
    counted = class_maps != ignore_index
    each = each[counted]
    if not len(each):
        return scores.sum() * 0
    least = max(1, len(each) // _LEAST)
    threshold = torch.topk(each.detach(), least).values[-1].clamp(max=-torch.log(each.new_tensor(_HARD)))
    hard = each.detach() >= threshold
    if weights is None:
        return each[hard].mean()
    of_pixels = weights[class_maps[counted]][hard]
    return (each[hard] * of_pixels).sum() / of_pixels.sum().clamp(min=1e-6)


def dice(scores: Tensor, class_maps: Tensor, ignore_index: int) -> Tensor:
    """1 - the mean over the classes that occur of 2 Σ p t / (Σ p² + Σ t²), over the pixels of the batch.

    Milletari et al. 2016, "V-Net", arXiv 1606.04797, section 3: p is the probability of the class, t 1 where it is the
    true one and 0 elsewhere.
    """
    counted = (class_maps != ignore_index)[:, None]
    probabilities = scores.softmax(1) * counted
    classes = scores.shape[1]
    truth = functional.one_hot(class_maps.where(counted[:, 0], 0), classes).permute(0, 3, 1, 2) * counted
    axes = (0, 2, 3)
    both = (probabilities * truth).sum(axes)
    sizes = probabilities.square().sum(axes) + truth.sum(axes)
    present = truth.sum(axes) > 0
    if not present.any():
        return scores.sum() * 0
    return 1 - (2 * both / sizes.clamp(min=1e-6))[present].mean()


def lovasz_softmax(scores: Tensor, class_maps: Tensor, ignore_index: int) -> Tensor:
    """Mean over the classes that occur of the Lovász extension of 1 - IoU, over the pixels of the batch.

    Berman et al. 2018, "The Lovász-Softmax loss", arXiv 1705.08790, equations 8, 9, 11, 12 and algorithm 1.
    """
    counted = class_maps != ignore_index
    probabilities = scores.softmax(1).permute(0, 2, 3, 1)[counted]
    labels = class_maps[counted]
    losses = []
    for index in torch.unique(labels).tolist():
        truth = (labels == index).float()
        errors = (truth - probabilities[:, index]).abs()
        errors, order = errors.sort(descending=True)
        losses.append((errors * _jaccard_steps(truth[order])).sum())
    return torch.stack(losses).mean() if losses else scores.sum() * 0


def _jaccard_steps(truth: Tensor) -> Tensor:
    """By how much 1 - IoU grows with each further wrong pixel (P,), in the order of algorithm 1."""
    total = truth.sum()
    intersection = total - truth.cumsum(0)
    union = total + (1 - truth).cumsum(0)
    jaccard = 1 - intersection / union
    return torch.cat((jaccard[:1], jaccard[1:] - jaccard[:-1]))
