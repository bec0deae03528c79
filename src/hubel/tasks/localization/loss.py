"""Localization: the loss of a class and one box, and boxes from raw outputs.

The centre is the sigmoid of its raw numbers, so it lies in the picture; height and width are not bounded: the raw
numbers are the sizes, or their square roots, which make an error count more for a small box than for a large one
(Redmon et al. 2016, arXiv 1506.02640, section 2.2). All in fractions of the network's input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from hubel.boxes import convert

TERMS = ("class", "giou", "smooth_l1", "mse")
"""Terms that a loss may have: cross-entropy of the class; 1 - GIoU of the box (Rezatofighi et al. 2019, arXiv
1902.09630); smooth L1 (Girshick 2015, arXiv 1504.08083, equation 3, turning at 1/9 as in Faster R-CNN's code) and
squared error of centre, height and width, or its square roots."""

NOTHING = -1
"""The label of an image that does not count."""

_TURN = 1 / 9


class LocalizationTarget(NamedTuple):
    """What is to be said of images.

    Attributes:
        labels: int64 (N,), classes from 0, or :data:`NOTHING`.
        boxes: float32 (N, 4), x1, y1, x2, y2 in fractions of the network's input.
    """

    labels: Tensor
    boxes: Tensor

    def to(self, device: torch.device) -> Self:
        """The same on a device."""
        return self._replace(labels=self.labels.to(device), boxes=self.boxes.to(device))


def split(output: Tensor) -> tuple[Tensor, Tensor]:
    """Raw class scores (N, classes) and raw box (N, 4) of a raw output (N, classes + 4)."""
    return output[:, :-4], output[:, -4:]


def decoded(raw: Tensor, roots: bool) -> Tensor:
    """Boxes (N, 4) in fractions of the input, which they may leave.

    Args:
        raw: (N, 4): x, y, height, width.
        roots: height and width are square roots.
    """
    centre, sizes = raw[:, :2].sigmoid(), raw[:, 2:]
    sizes = sizes.square() if roots else sizes.clamp(min=0)
    return convert(torch.cat((centre, sizes.flip(1)), 1), "cxcywh", "xyxy")


def localization_terms(
    output: Tensor, located: LocalizationTarget, roots: bool, weights: Mapping[str, float]
) -> dict[str, Tensor]:
    """Means over the batch of the terms whose weight is not 0, times their weights; their sum is to be minimized.

    Args:
        output: raw (N, classes + 4).
        located: the truth.
        roots: height and width are square roots.
        weights: by names of :data:`TERMS`.
    """
    counted = located.labels != NOTHING
    count = counted.sum().clamp(min=1)
    labels, boxes = located.labels[counted], located.boxes[counted]
    scores, raw = split(output[counted].float())
    centre, width_and_height = convert(boxes, "xyxy", "cxcywh").split(2, 1)
    sizes = width_and_height.flip(1)
    target = torch.cat((centre, sizes.sqrt() if roots else sizes), 1)
    said = torch.cat((raw[:, :2].sigmoid(), raw[:, 2:]), 1)
    sums = {
        "class": lambda: F.cross_entropy(scores, labels, reduction="sum"),
        "giou": lambda: generalized_box_iou_loss(decoded(raw, roots), boxes, reduction="sum"),
        "smooth_l1": lambda: F.smooth_l1_loss(said, target, reduction="sum", beta=_TURN) / 4,
        "mse": lambda: F.mse_loss(said, target, reduction="sum") / 4,
    }
    return {name: weights[name] * sums[name]() / count for name in TERMS if weights.get(name)}
