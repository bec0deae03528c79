"""The mask head: for each region and class, which pixels belong to the object.

He, Gkioxari, Dollár and Girshick 2017, "Mask R-CNN", arXiv 1703.06870, section 3 and figure 4 (right).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.init import he_fan_out, initialize
from hubel.models.base import ObjectTargets
from hubel.models.detection.two_stage.box_head import POSITIVE
from hubel.models.detection.two_stage.matching import match
from hubel.models.detection.two_stage.proposals import valid

SIDE = 14
"""Of the squares that the head reads. Masks have twice as many values on a side."""

_AT_ONCE = 32  # masks of the input's size, in float32


class MaskHead(nn.Module):
    """Four 3×3 convolutions, a transposed convolution of 2×2 with stride 2, each with ReLU, and a 1×1 convolution.

    The last begins normally distributed with a deviation of 0.001, as in the authors' later code.

    Args:
        channels: of the squares.
        features: channels of all layers but the last.
        norm: builds a normalization of the 3×3 convolutions; ``None``, as in the paper: biases instead.
    """

    def __init__(
        self, channels: int, features: int, num_classes: int, norm: Callable[[int], nn.Module] | None = None
    ) -> None:
        super().__init__()
        widths = [channels, *4 * [features]]
        pairs = pairwise(widths)
        self.convs = nn.Sequential(*(ConvNormActivation(before, after, 3, norm=norm) for before, after in pairs))
        self.upsampling = nn.ConvTranspose2d(features, features, 2, 2)
        self.classifier = nn.Conv2d(features, num_classes, 1)
        initialize(self, he_fan_out)
        he_fan_out(self.upsampling.weight)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, squares: Tensor, labels: Tensor) -> Tensor:
        """Raw masks (R, 28, 28) of squares (R, channels, 14, 14), each of the class that ``labels`` (R,) says."""
        signal = functional.relu(self.upsampling(self.convs(squares)))
        masks: Tensor = self.classifier(signal)
        if masks.is_meta:  # gathering would make PyTorch import its compiler
            return masks[:, 0]
        own = labels.view(-1, 1, 1, 1).expand(-1, 1, masks.shape[2], masks.shape[3])
        return masks.gather(1, own)[:, 0]


def project(masks: Tensor, boxes: Tensor, side: int, aligned: bool) -> Tensor:
    """Each mask (R, H, W) within its box (R, 4): float32 (R, side, side), 0..1, by RoIAlign."""
    import torchvision  # noqa: F401 – registers its operators

    regions = torch.cat((torch.arange(len(boxes), device=boxes.device)[:, None], boxes), 1)
    # As many values of each bin as it has pixels (-1): none is left out.
    squares = torch.ops.torchvision.roi_align(masks[:, None].float(), regions, 1.0, side, side, -1, aligned)
    found: Tensor = squares[:, 0]
    return found


def mask_loss(
    regions: Tensor, labels: Tensor, masks: Tensor, targets: Sequence[ObjectTargets], aligned: bool
) -> Tensor:
    """Mean binary cross-entropy of the pixels of all regions that stand for an object of their class.

    Args:
        regions: (N, P, 4); those without an area do not count.
        labels: (N, P), the class of each.
        masks: raw (N, P, side, side), of that class.
        targets: with masks, or all without: then there is no loss.
        aligned: see :class:`~.roi_align.PyramidRoIAlign`.
    """
    every, total = [0 * masks.sum()], 0
    for boxes, own, raw, target in zip(regions, labels, masks, targets, strict=True):
        if target.masks is None or not len(target.boxes):
            continue
        matched = match(boxes, target.boxes, POSITIVE, POSITIVE)
        counts = (matched >= 0) & valid(boxes) & (target.labels[matched.clamp(min=0)] == own)
        rows = counts.nonzero()[:, 0]
        for some in rows.split(_AT_ONCE):
            wanted = project(target.masks[matched[some]], boxes[some], raw.shape[-1], aligned)
            every.append(functional.binary_cross_entropy_with_logits(raw[some], wanted, reduction="sum"))
        total += rows.numel() * raw.shape[1:].numel()
    return torch.stack(every).sum() / max(total, 1)
