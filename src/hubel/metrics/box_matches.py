"""Which predicted boxes are right: matches of the boxes of an image with its objects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.boxes import ioa, iou
from hubel.metrics.coco import GroundTruth, PredictedObjects
from hubel.metrics.mask_overlap import pairwise_overlaps

SCORE_THRESHOLD = 0.25
"""Minimum score of boxes that are shown to users and count in the confusion matrix."""

IOU_THRESHOLD = 0.5
"""Minimum IoU of a match."""

UNMATCHED, IGNORED = -1, -2

Overlaps = tuple[np.ndarray, np.ndarray]
"""IoU of what was predicted with the objects, and the fraction of it that lies in each: (F, T)."""


@dataclass(frozen=True)
class BoxMatches:
    """Matches of the predicted boxes of an image with its objects.

    Attributes:
        objects: (F,), index of the object that each box is matched with; :data:`UNMATCHED`; or :data:`IGNORED` for
            boxes below the score threshold and those within a crowd of their class. Objects are matched once.
        right: indices of the boxes matched with an object of their class, in order of score.
        wrong: indices of the boxes that are unmatched or matched with another class, in order of score.
        missed: indices of the unmatched objects, crowds excluded.
    """

    objects: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray


def match_boxes(
    truth: GroundTruth,
    predicted: PredictedObjects,
    score_threshold: float = SCORE_THRESHOLD,
    overlaps: Overlaps | None = None,
) -> BoxMatches:
    """Match the boxes of an image that reach a score, in order of score.

    A box is matched with the unmatched object that it overlaps most: first among those of its class, as in COCO, so
    that the correct boxes are the same as there; then the remaining boxes with the remaining objects. Where both sides
    have masks, these are compared, and not the boxes; ``overlaps`` are :func:`overlaps_of`, where they are known.
    """
    crowd = np.zeros(len(truth.labels), bool) if truth.crowd is None else np.asarray(truth.crowd, bool)
    scores = np.asarray(predicted.scores)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= score_threshold]
    objects = np.full(len(scores), IGNORED)
    objects[order] = UNMATCHED
    overlap, within = overlaps_of(truth, predicted) if overlaps is None else overlaps
    overlap = np.where(crowd, 0, overlap)
    same = np.asarray(predicted.labels)[:, None] == np.asarray(truth.labels)[None]
    _match(objects, np.where(same, overlap, 0), order)
    in_crowd = np.where(same & crowd[None], within, 0).max(1, initial=0) >= IOU_THRESHOLD
    objects[in_crowd & (objects == UNMATCHED)] = IGNORED
    _match(objects, overlap, order)
    right = np.array([index >= 0 and same[box, index] for box, index in enumerate(objects)], bool)
    wrong = ~right & (objects != IGNORED)
    return BoxMatches(objects, order[right[order]], order[wrong[order]], np.setdiff1d(np.flatnonzero(~crowd), objects))


def overlaps_of(truth: GroundTruth, predicted: PredictedObjects) -> Overlaps:
    """Of masks where both sides have some, else of boxes."""
    if truth.masks is not None and predicted.masks is not None:
        return pairwise_overlaps(predicted.masks, truth.masks)
    boxes, true_boxes = (np.asarray(side.boxes, np.float64).reshape(-1, 4) for side in (predicted, truth))
    return iou(boxes, true_boxes), ioa(boxes, true_boxes)


def _match(objects: np.ndarray, overlap: np.ndarray, order: np.ndarray) -> None:
    """Match the unmatched boxes, in place."""
    free = np.ones(overlap.shape[1], bool)
    free[objects[objects >= 0]] = False
    # Most boxes overlap no object enough: they need no turn in the loop.
    near = overlap.max(1, initial=0) >= IOU_THRESHOLD
    for box in order[(objects[order] == UNMATCHED) & near[order]]:
        candidates = np.where(free, overlap[box], 0)
        if candidates.max(initial=0) >= IOU_THRESHOLD:
            objects[box] = candidates.argmax()
            free[objects[box]] = False
