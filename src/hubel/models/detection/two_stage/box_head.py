"""The second stage: the class of each region, and for each class how far off its box is.

Girshick 2015, "Fast R-CNN", arXiv 1504.08083, section 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.boxes import encode
from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.init import he_fan_out, initialize
from hubel.models.base import ObjectTargets
from hubel.models.detection.two_stage.matching import Sampler, match
from hubel.models.detection.two_stage.proposals import valid
from hubel.models.partly_labelled import without_unknown

POSITIVE = 0.5
"""IoU from which a proposal stands for an object; all others are background."""

VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""Scale of the offsets: the deviations by which the authors' code divides them."""

BETA = 1 / 9
"""As that of the first stage: equation 3 has 1; it is what torchvision's weights were trained with."""


class BoxHead(nn.Module):
    """Convolutions with normalization, dense layers with ReLU, and two dense layers for scores and offsets.

    The last two begin normally distributed with deviations of 0.01 and 0.001 (section 2.3), the others, for which the
    paper has pretrained weights, as in the authors' later code: uniform, with a variance of 1 / fan-in.

    Args:
        channels: of the squares.
        side: of the squares.
        convolutions: 3×3, before the dense layers.
        dense: number of dense layers.
        features: outputs of each.
    """

    def __init__(
        self, channels: int, side: int, convolutions: int, dense: int, features: int, num_classes: int
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.convs = nn.Sequential(*(ConvNormActivation(channels, channels, 3) for _ in range(convolutions)))
        widths = [channels * side**2, *dense * [features]]
        self.dense = nn.ModuleList(nn.Linear(before, features) for before in widths[:-1])
        self.classifier = nn.Linear(features, 1 + num_classes)
        self.regressor = nn.Linear(features, 4 * num_classes)
        initialize(self, he_fan_out, partial(nn.init.kaiming_uniform_, a=1))
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.normal_(self.regressor.weight, std=0.001)

    def forward(self, squares: Tensor) -> tuple[Tensor, Tensor]:
        """Raw scores (R, 1 + classes), background first, and offsets (R, classes, 4) of squares (R, C, side, side)."""
        signal = self.convs(squares).flatten(1)
        for layer in self.dense:
            signal = functional.relu(layer(signal))
        return self.classifier(signal), self.regressor(signal).unflatten(1, (self.num_classes, 4))


def box_loss(
    proposals: Tensor, scores: Tensor, offsets: Tensor, targets: Sequence[ObjectTargets], sampler: Sampler | None
) -> dict[str, Tensor]:
    """The two terms of equation 1, each a sum over the regions of the batch divided by their number.

    Args:
        proposals: (N, P, 4); those without an area do not count, nor do those of no object in ignored regions.
        scores: raw (N, P, 1 + classes), background first.
        offsets: (N, P, classes, 4).
        sampler: each proposal counts as much as it is likely to be drawn; ``None``: they are drawn already, and all
            count.

    Returns:
        ``"class"``: cross-entropy, over background and the classes that an image labels; ``"box"``: smooth L1 of the
        offsets of the own class of regions with an object.
    """
    classes, box, total = [], [0 * offsets.sum()], []
    for regions, raw, moved, target in zip(proposals, scores, offsets, targets, strict=True):
        matched = match(regions, target.boxes, POSITIVE, POSITIVE)
        positive = matched >= 0
        negative = valid(regions) & ~positive & ~target.ignores(regions)
        counted = valid(regions) & (positive | negative)
        weights = counted.float() if sampler is None else sampler.weights(positive, negative, random=False)
        labels = torch.zeros_like(matched)
        labels[positive] = target.labels[matched[positive]] + 1
        known = without_unknown(raw, labels - 1, target)
        classes.append((weights * functional.cross_entropy(known, labels, reduction="none")).sum())
        total.append(weights.sum())
        wanted = encode(target.boxes[matched[positive]], regions[positive], VARIANCES)
        found = moved[positive, labels[positive] - 1]
        distance = functional.smooth_l1_loss(found, wanted, reduction="none", beta=BETA)
        box.append((weights[positive, None] * distance).sum())
    count = torch.stack(total).sum().clamp(min=1)
    return {"class": torch.stack(classes).sum() / count, "box": torch.stack(box).sum() / count}
