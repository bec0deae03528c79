"""Windows that are asked for an object: what is to be said of them, and the loss.

A window fits an object that is near its centre and of its size: they overlap as much as with the square of the object's
area round its centre, so that long objects count as others do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hubel.boxes import SSD_VARIANCES, convert, encode, iou
from hubel.tasks.detection.loss import Targets

POSITIVE_IOU = 0.5
"""Least IoU of a window with the square of the object that it is to find. With windows a quarter of their side apart
and two sizes to an octave, some window overlaps the square by about as much, wherever the object is."""

NEGATIVE_IOU = 0.4
"""A window that overlaps all squares by less shows nothing. Between the two it does not count."""

IGNORE_INDEX = -1
"""The label of a window between."""


class WindowTargets(NamedTuple):
    """What windows show.

    Attributes:
        labels: int64 (A,): 0 for nothing, class + 1, or :data:`IGNORE_INDEX`.
        offsets: float32 (A, 4) of the object's box from the window; 0 where there is none.
    """

    labels: Tensor
    offsets: Tensor


def assign_windows(windows: Tensor, targets: Targets) -> WindowTargets:
    """What the windows (A, 4) of one picture show; objects may lie outside it."""
    if not len(targets.boxes):
        return WindowTargets(windows.new_zeros(len(windows), dtype=torch.int64), torch.zeros_like(windows))
    centre, sides = convert(targets.boxes, "xyxy", "cxcywh").split(2, 1)
    half = sides.prod(1, keepdim=True).sqrt() / 2
    overlap, objects = iou(torch.cat((centre - half, centre + half), 1), windows).max(0)
    fits = overlap >= POSITIVE_IOU
    otherwise = torch.where(overlap < NEGATIVE_IOU, 0, IGNORE_INDEX)
    offsets = encode(targets.boxes[objects], windows, SSD_VARIANCES)
    return WindowTargets(torch.where(fits, targets.labels[objects] + 1, otherwise), offsets * fits[:, None])


def window_terms(
    scores: Tensor, offsets: Tensor, windows: Tensor, targets: Sequence[Targets]
) -> tuple[dict[str, Tensor], Tensor]:
    """The two terms of the loss, whose sum is to be minimized, and how many windows are rightly told apart.

    Args:
        scores: raw (N, A, 1 + classes), "nothing" first.
        offsets: (N, A, 4).
        windows: (A, 4).
        targets: of each image.

    Returns:
        ``"class"``: mean cross-entropy of the windows that count; ``"box"``: smooth L1 of the offsets, summed over the
        four, mean over the windows that show an object. And the share of the windows that count of which the best
        class, or nothing, is right.
    """
    shown = [assign_windows(windows, each) for each in targets]
    labels = torch.cat([each.labels for each in shown])
    flat, taken = scores.flatten(0, 1).float(), labels > 0
    counted = (labels != IGNORE_INDEX).sum().clamp(min=1)
    of_class = F.cross_entropy(flat, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    true = torch.cat([each.offsets for each in shown])
    of_box = F.smooth_l1_loss(offsets.flatten(0, 1).float()[taken], true[taken], reduction="sum")
    right = (flat.argmax(1) == labels).sum() / counted
    return {"class": of_class / counted, "box": of_box / taken.sum().clamp(min=1)}, right
