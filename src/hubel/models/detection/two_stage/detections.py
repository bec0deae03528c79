"""Objects from what the second stage says of every proposal: the best pairs of a proposal and a class.

Girshick 2015, "Fast R-CNN", arXiv 1504.08083, section 2.3: non-maximum suppression for each class.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hubel.boxes import clip, decode
from hubel.layers.padding import plain_size
from hubel.models.detection.two_stage.box_head import VARIANCES
from hubel.models.detection.two_stage.padded_images import clip_to
from hubel.models.detection.two_stage.proposals import of_boxes, unsuppressed, valid

PAIRS = 1000
"""Pairs of a proposal and a class that are looked at of an image, at most."""

_SMALLEST = 1e-2  # pixels of a box's side


class Detected(NamedTuple):
    """Pairs of a proposal and a class, best first.

    Attributes:
        boxes: float32 (N, K, 4), x1, y1, x2, y2 in pixels, which may leave the input.
        scores: float32 (N, K); 0 of what is not an object.
        labels: int64 (N, K), classes from 0.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor


def best_pairs(
    proposals: Tensor, scores: Tensor, offsets: Tensor, size: tuple[int, int], areas: Tensor | None = None
) -> Detected:
    """At most :data:`PAIRS` of each image.

    Args:
        proposals: (N, P, 4), zeros where an image has fewer.
        scores: raw (N, P, 1 + classes), background first.
        offsets: (N, P, classes, 4).
        size: height and width of the images.
        areas: the part of each that boxes are clipped to (N, 4), if it is not the whole.

    On the meta device nothing is computed.
    """
    if proposals.is_meta:  # what follows would make PyTorch import its compiler
        return _empty(proposals, min(PAIRS, scores.shape[1] * (scores.shape[2] - 1)))
    proposals = proposals.float()
    probabilities = torch.softmax(scores.float(), -1)[..., 1:] * valid(proposals)[..., None]
    rows, classes = plain_size(probabilities)
    best = probabilities.flatten(1).topk(min(PAIRS, rows * classes), 1)
    own = offsets.float().flatten(1, 2).gather(1, of_boxes(best.indices))
    boxes = decode(own, proposals.gather(1, of_boxes(best.indices // classes)), VARIANCES)
    if areas is not None:
        boxes = clip_to(boxes, areas)
    # What is left of a box within the image may be nothing.
    score = best.values * valid(clip(boxes, size[1], size[0]), _SMALLEST)
    return Detected(boxes, score, best.indices % classes)


def dense(found: Detected, classes: int) -> dict[str, Tensor]:
    """As detectors predict: boxes (N, K, 4), and scores (N, K, classes), each of one class alone."""
    return {"boxes": found.boxes, "scores": functional.one_hot(found.labels, classes) * found.scores[..., None]}


def suppress(found: Detected, size: tuple[int, int], least: float, iou: float, limit: int, classes: int) -> Detected:
    """The best ``limit`` pairs of each image with more than the score ``least``, without worse ones of their class.

    Boxes are clipped to the image. Rows left over are zeros. On the meta device nothing is computed.

    Args:
        found: of :func:`best_pairs`.
        size: height and width of the images.
        iou: above it, the worse of two boxes of a class is dropped.
        classes: how many there are.
    """
    if found.boxes.is_meta:
        return _empty(found.boxes, min(limit, found.boxes.shape[1]))
    boxes = clip(found.boxes, size[1], size[0])
    kept = unsuppressed(boxes, found.scores, found.labels, classes, iou, size)
    scores = found.scores * (kept & (found.scores > least))
    best = scores.topk(min(limit, plain_size(scores)[1]), 1)
    exists = best.values > 0
    labels = found.labels.gather(1, best.indices) * exists
    return Detected(boxes.gather(1, of_boxes(best.indices)) * exists[..., None], best.values, labels)


def _empty(boxes: Tensor, count: int) -> Detected:
    shape = (boxes.shape[0], count)
    return Detected(boxes.new_empty(*shape, 4), boxes.new_empty(shape), boxes.new_empty(shape, dtype=torch.int64))
