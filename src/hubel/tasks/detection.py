"""Detection: which anchor answers for which object, the loss, and boxes from raw outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from hubel import boxes as geometry
from hubel.data.objects.targets import Targets

NEGATIVES = 3
"""Anchors without an object that count for each with one (SSD, section 2.2, "Hard negative mining")."""


class Assignment(NamedTuple):
    """What each anchor is to say.

    Attributes:
        labels: int64 (A,): 0 for nothing, else class + 1.
        objects: int64 (A,): index of its object; 0 where there is none.
    """

    labels: Tensor
    objects: Tensor


def assign(anchors: Tensor, targets: Targets, iou: float = 0.5) -> Assignment:
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
    assigned = [assign(anchors, each) for each in targets]
    labels = torch.stack([each.labels for each in assigned])
    taken = labels > 0
    each_class = F.cross_entropy(scores.flatten(0, 1).float(), labels.flatten(), reduction="none").view_as(labels)
    hardness = each_class.detach().masked_fill(taken, -torch.inf)
    rank = hardness.argsort(1, descending=True).argsort(1)
    counted = taken | (rank < NEGATIVES * taken.sum(1, keepdim=True))
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


@dataclass(frozen=True)
class Suppression:
    """How raw outputs become a list of objects.

    Attributes:
        conf: boxes of a lower score are dropped, 0..1.
        iou: of two boxes of a class that overlap by more, the worse is dropped.
        most: objects of an image at most.
        candidates: boxes of a class that are looked at.
    """

    conf: float = 0.25
    iou: float = 0.6
    most: int = 300
    candidates: int = 1000


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


def decode(scores: Tensor, offsets: Tensor, anchors: Tensor, size: tuple[int, int], rule: Suppression) -> list[Found]:
    """Objects from raw outputs.

    Args:
        scores: (N, A, 1 + classes), "nothing" first.
        offsets: (N, A, 4).
        anchors: (A, 4).
        size: height and width of the network's input in pixels; boxes are cut off there.
        rule: thresholds.
    """
    probabilities = torch.softmax(scores.float(), -1)[..., 1:]
    boxes = geometry.decode(offsets.float(), anchors, geometry.SSD_VARIANCES)
    height, width = size
    found = []
    for each, own in zip(probabilities, boxes, strict=True):
        anchor, label = torch.nonzero(each >= rule.conf, as_tuple=True)
        score = each[anchor, label]
        if len(score) > rule.candidates:
            best = _best_of_each_class(score, label, rule.candidates)
            anchor, label, score = anchor[best], label[best], score[best]
        cut = geometry.clip(own[anchor], width, height)
        kept = geometry.nms(cut, score, label, iou=rule.iou)[: rule.most]
        found.append(Found(cut[kept], score[kept], label[kept]))
    return found


def _best_of_each_class(scores: Tensor, labels: Tensor, most: int) -> Tensor:
    """Indices of the ``most`` best of each class, best first."""
    order = scores.argsort(descending=True, stable=True)
    order = order[labels[order].argsort(stable=True)]
    starts = torch.searchsorted(labels[order], labels[order])
    kept = order[torch.arange(len(order), device=order.device) - starts < most]
    return kept[scores[kept].argsort(descending=True, stable=True)]
