"""Detection: which anchor answers for which object, the loss, and boxes from raw outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hubel import boxes as geometry
from hubel.tasks.detection.decode import NMSConfig, decode_detections

NEG_POS_RATIO = 3
"""Anchors without an object that count for each with one (SSD, section 2.2, "Hard negative mining")."""


class Targets(NamedTuple):
    """The labelled objects of one image, in pixels of the network's input.

    Attributes:
        boxes: float32 (M, 4), x1, y1, x2, y2, of positive width and height.
        labels: int64 (M,), classes from 0.
    """

    boxes: Tensor
    labels: Tensor


class Assignment(NamedTuple):
    """What each anchor is to say.

    Attributes:
        labels: int64 (A,): 0 for nothing, else class + 1.
        objects: int64 (A,): index of its object; 0 where there is none.
    """

    labels: Tensor
    objects: Tensor


def match_anchors(anchors: Tensor, targets: Targets, iou: float = 0.5) -> Assignment:
    """Each anchor gets the object that it overlaps most, by at least ``iou``; each object the anchor that fits it best.

    Liu et al. 2016, arXiv 1512.02325, section 2.2, "Matching strategy".

    Args:
        anchors: (A, 4).
        targets: of the image.
        iou: the smallest overlap.
    """
    if not len(targets.boxes):
        nothing = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
        return Assignment(nothing, nothing)
    overlap = geometry.iou(targets.boxes, anchors)
    best, objects = overlap.max(0)
    best_anchor = overlap.argmax(1)
    # Of two objects with the same best anchor the later one has it.
    for index, anchor in enumerate(best_anchor.tolist()):
        best[anchor], objects[anchor] = 1.0, index
    return Assignment(torch.where(best >= iou, targets.labels[objects] + 1, 0), objects)


def multibox_loss(scores: Tensor, offsets: Tensor, anchors: Tensor, targets: Sequence[Targets]) -> dict[str, Tensor]:
    """SSD's loss (section 2.2, equations 1 to 3), its two terms apart; their sum is to be minimized.

    Args:
        scores: (N, A, 1 + classes), "nothing" first.
        offsets: (N, A, 4).
        anchors: (A, 4).
        targets: of each image.

    Returns:
        ``"class"``: cross-entropy of the anchors with an object and of the hardest three times as many without;
        ``"box"``: smooth L1 of the offsets of those with. Each a sum over the batch, over the number of anchors with an
        object.
    """
    assigned = [match_anchors(anchors, each) for each in targets]
    labels = torch.stack([each.labels for each in assigned])
    taken = labels > 0
    each_class = F.cross_entropy(scores.flatten(0, 1).float(), labels.flatten(), reduction="none").view_as(labels)
    hardness = each_class.detach().masked_fill(taken, -torch.inf)
    rank = hardness.argsort(1, descending=True).argsort(1)
    counted = taken | (rank < NEG_POS_RATIO * taken.sum(1, keepdim=True))
    box = [
        F.smooth_l1_loss(
            given[mine].float(),
            geometry.encode(target.boxes[assignment.objects[mine]], anchors[mine], geometry.SSD_VARIANCES),
            reduction="sum",
        )
        for given, target, assignment, mine in zip(offsets, targets, assigned, taken, strict=True)
        if mine.any()
    ]
    objects = taken.sum().clamp(min=1)
    # Without an object anywhere the offsets are still part of the graph.
    total = torch.stack(box).sum() if box else 0 * offsets.sum()
    return {"class": (each_class * counted).sum() / objects, "box": total / objects}


class Found(NamedTuple):
    """Objects of one image, best first.

    Attributes:
        boxes: (K, 4), in pixels of the network's input.
        scores: (K,), 0..1.
        labels: int64 (K,), classes from 0.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def decode(scores: Tensor, offsets: Tensor, anchors: Tensor, size: tuple[int, int], rule: NMSConfig) -> list[Found]:
    """Objects from raw outputs, as :func:`~hubel.tasks.detection.decode.decode_detections` finds them for all engines.

    Args:
        scores: (N, A, 1 + classes), "nothing" first.
        offsets: (N, A, 4).
        anchors: (A, 4).
        size: height and width of the network's input in pixels; boxes are cut off there.
        rule: thresholds.
    """
    raw_scores, raw_offsets, places = (each.detach().float().cpu().numpy() for each in (scores, offsets, anchors))
    found = [decode_detections(*both, places, size, rule) for both in zip(raw_scores, raw_offsets, strict=True)]
    return [Found(*(torch.from_numpy(array).to(scores.device) for array in each)) for each in found]
