"""The region proposal network: whether there is an object at each anchor, and how far off its box is.

Ren et al. 2015, "Faster R-CNN", arXiv 1506.01497, section 3.1; on all levels of a pyramid Lin et al. 2017, arXiv
1612.03144, section 4.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.boxes import encode
from hubel.layers.init import initialize
from hubel.models.base import ObjectTargets
from hubel.models.detection.anchors import by_anchor
from hubel.models.detection.two_stage.matching import BACKGROUND, Sampler, match
from hubel.models.partly_labelled import may_be_unlabelled

POSITIVE, NEGATIVE = 0.7, 0.3
"""IoU from which an anchor stands for an object, and below which it is background (section 3.1.2)."""

SAMPLER = Sampler(256, 0.5)
"""Anchors of an image in the loss (section 3.1.3)."""

BETA = 1 / 9
"""Where smooth L1 turns from a square into a line: σ = 3 of the authors' code; Fast R-CNN's equation 3 has 1."""


class RegionProposalNetwork(nn.Module):
    """3×3 convolutions with ReLU, and two 1×1 convolutions: the same for all levels.

    Weights begin normally distributed with a deviation of 0.01, biases at 0.
    """

    def __init__(self, channels: int, anchors: int, convolutions: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(convolutions))
        self.objectness = nn.Conv2d(channels, anchors, 1)
        self.offsets = nn.Conv2d(channels, 4 * anchors, 1)
        initialize(self, partial(nn.init.normal_, std=0.01))

    def forward(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Raw scores (N, A) and offsets (N, A, 4) of the anchors of each level (N, channels, H, W)."""
        objectness, offsets = [], []
        for signal in levels:
            for conv in self.convs:
                signal = functional.relu(conv(signal))
            objectness.append(by_anchor(self.objectness(signal), 1).squeeze(2))
            offsets.append(by_anchor(self.offsets(signal), 4))
        return objectness, offsets


def proposal_loss(
    objectness: Tensor, offsets: Tensor, anchors: Tensor, targets: Sequence[ObjectTargets], random: bool
) -> dict[str, Tensor]:
    """The two terms of equation 1, each a sum over the sampled anchors of the batch divided by their number.

    In the paper the second is divided by the number of positions, about 2,400, and has a weight of 10: nearly the same.

    Args:
        objectness: raw (N, A).
        offsets: (N, A, 4).
        anchors: (A, 4).
        random: draw the anchors; otherwise each counts as much as it is likely to be drawn.

    Returns:
        ``"objectness"``: binary cross-entropy, without background that may be an object of a class that its image does
        not label (:mod:`hubel.models.partly_labelled`); ``"proposal_box"``: smooth L1 of the offsets of anchors with an
        object.
    """
    classes, box, total = [], [0 * offsets.sum()], []
    for scores, moved, target in zip(objectness, offsets, targets, strict=True):
        matched = match(anchors, target.boxes, POSITIVE, NEGATIVE, best_too=True)
        positive = matched >= 0
        negative = (matched == BACKGROUND) & ~target.ignores(anchors) & ~may_be_unlabelled(scores, target)
        weights = SAMPLER.weights(positive, negative, random)
        cross_entropy = functional.binary_cross_entropy_with_logits(scores, positive.float(), reduction="none")
        classes.append((weights * cross_entropy).sum())
        total.append(weights.sum())
        own = positive & (weights > 0)
        wanted = encode(target.boxes[matched[own]], anchors[own])
        distance = functional.smooth_l1_loss(moved[own], wanted, reduction="none", beta=BETA)
        box.append((weights[own, None] * distance).sum())
    count = torch.stack(total).sum().clamp(min=1)
    return {"objectness": torch.stack(classes).sum() / count, "proposal_box": torch.stack(box).sum() / count}
