"""Focal loss (Lin et al. 2017, "Focal Loss for Dense Object Detection", arXiv 1708.02002, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def focal_loss(scores: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """Sum of ``-α_t (1 - p_t)^γ log p_t`` over all anchors and classes (equation 5), each class a question of its own.

    Args:
        scores: raw (..., classes).
        labels: int64 (...): the class of an anchor's object; -1 for background, -2 for neither, which has
            no loss.
        alpha: weight of the anchors' own classes; all others have ``1 - alpha``.
        gamma: at 0 it is cross-entropy; the greater, the less do easy anchors count.
    """
    if (neither := labels < -1).any():
        scores, labels = scores[~neither], labels[~neither]
    own = labels >= 0
    answers = scores[own].gather(1, labels[own].unsqueeze(1))
    # The answer "no" everywhere, without a tensor of targets as large as the scores; then right it where it is "yes".
    background = _of_no(scores, gamma).sum() - _of_no(answers, gamma).sum()
    return alpha * _of_no(-answers, gamma).sum() + (1 - alpha) * background


def _of_no(scores: Tensor, gamma: float) -> Tensor:
    """``-p^γ log(1 - p)`` for p, the sigmoid of raw scores: finite, as are its gradients, for scores of any size."""
    surprise = functional.softplus(scores)
    return torch.exp(gamma * (scores - surprise)) * surprise
