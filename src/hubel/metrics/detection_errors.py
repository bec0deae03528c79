"""What a detector lost where: six kinds of mistakes, and the average precision that each costs.

Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors", arXiv 2008.08115, section 2. The
kinds of a wrong box, by its IoU with objects:

================== ================================================== ======================================
kind               overlap                                            put right
================== ================================================== ======================================
``localization``   0.1 to 0.5 with an object of its class             its box becomes that of the object
``classification`` 0.5 or more with one of another class              it gets the class of the object
``duplicate``      0.5 or more with one that a better box has found   removed
``background``     below 0.1 with all                                 removed
``both``           else: 0.1 to 0.5 with one of another class         removed
``missed``         (an object that no box of the first two is near)   the object is not counted
================== ================================================== ======================================

A box that would be right is removed if its object has been found, or if another such box of it has a higher score. What
a kind costs is how much AP50 rises if all mistakes of it, and no others, are put right. The costs do not add up to what
is missing: without one mistake, others weigh more.

Deviations from the authors' code: boxes in crowds are no mistakes; classes without objects do not count in the mean, as
in COCO, nor do those of which all objects are missed, once these are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hubel.metrics.box_matches import IOU_THRESHOLD, BoxMatches, Overlaps
from hubel.metrics.coco import RECALL_STEPS, GroundTruth, PredictedObjects

KINDS = ("classification", "localization", "both", "duplicate", "background", "missed")

_RIGHT = -1
_CLASSIFICATION, _LOCALIZATION, _BOTH, _DUPLICATE, _BACKGROUND = range(5)
_BACKGROUND_IOU = 0.1
_REMOVED = -1


@dataclass(frozen=True)
class DetectionErrors:
    """Mistakes of boxes of any score at IoU 0.5, by :data:`KINDS`.

    Attributes:
        AP50: average precision, 0..1; NaN without objects.
        counts: wrong boxes of each kind, and missed objects.
        costs: by how much AP50 rises without them, 0..1.
    """

    AP50: float
    counts: dict[str, int]
    costs: dict[str, float]

    @property
    def most_costly(self) -> str | None:
        """The kind that costs most; ``None`` if none costs anything."""
        kind = max(KINDS, key=lambda each: self.costs[each])
        return kind if self.costs[kind] > 0 else None


@dataclass(frozen=True)
class ImageErrors:
    """The boxes of an image that count, right and wrong, and the objects that none is near.

    Attributes:
        scores: (N,).
        labels: (N,), predicted classes.
        kinds: (N,), index in :data:`KINDS`, or -1 for right ones.
        mended: (N,), the class as which each would be right; -1: it would be removed.
        missed: (M,), classes of the missed objects.
        objects: (K,), classes of all objects but crowds.
    """

    scores: np.ndarray
    labels: np.ndarray
    kinds: np.ndarray
    mended: np.ndarray
    missed: np.ndarray
    objects: np.ndarray


def image_errors(
    truth: GroundTruth, predicted: PredictedObjects, matches: BoxMatches, overlaps: Overlaps
) -> ImageErrors:
    """The mistakes of an image; ``matches`` are those of all boxes, whatever their score."""
    single = np.ones(len(truth.labels), bool) if truth.crowd is None else ~np.asarray(truth.crowd, bool)
    classes, labels = np.asarray(truth.labels, np.int64), np.asarray(predicted.labels, np.int64)
    right, wrong = matches.right, matches.wrong
    overlap = overlaps[0][wrong] * single
    same = labels[wrong, None] == classes
    own, other = np.where(same, overlap, 0), np.where(same, 0, overlap)
    closest, closest_other = own.max(1, initial=0), other.max(1, initial=0)
    kinds = np.select(
        [
            (closest >= _BACKGROUND_IOU) & (closest < IOU_THRESHOLD),
            closest_other >= IOU_THRESHOLD,
            closest >= IOU_THRESHOLD,
            np.maximum(closest, closest_other) < _BACKGROUND_IOU,
        ],
        [_LOCALIZATION, _CLASSIFICATION, _DUPLICATE, _BACKGROUND],
        _BOTH,
    )
    near = np.full(len(wrong), -1)  # the object that a box would be right for
    for kind, part in ((_LOCALIZATION, own), (_CLASSIFICATION, other)):
        near[kinds == kind] = part[kinds == kind].argmax(1) if part.size else 0
    found = np.zeros(len(classes) + 1, bool)  # the last, at -1, stands for none of them
    found[matches.objects[right]] = True
    near[found[near]] = -1
    missed = single & ~found[:-1]
    missed[near[near >= 0]] = False
    objects, first = np.unique(near, return_index=True)  # boxes are in order of score
    mended = np.full(len(wrong), _REMOVED)
    mended[first[objects >= 0]] = classes[objects[objects >= 0]]
    order = np.concatenate((right, wrong)).astype(np.int64)
    return ImageErrors(
        np.asarray(predicted.scores, np.float64)[order],
        labels[order],
        np.concatenate((np.full(len(right), _RIGHT), kinds)),
        np.concatenate((labels[right], mended)),
        classes[missed],
        classes[single],
    )


def summarize_errors(images: Sequence[ImageErrors], num_classes: int) -> DetectionErrors:
    """Counts and costs of the mistakes of all images."""
    scores, labels, kinds, mended = (
        np.concatenate([np.zeros(0, dtype), *(getattr(image, name) for image in images)])
        for name, dtype in (("scores", float), ("labels", np.int64), ("kinds", np.int64), ("mended", np.int64))
    )
    missed, objects = (
        np.bincount(np.concatenate([np.zeros(0, np.int64), *each]), minlength=num_classes)
        for each in ([image.missed for image in images], [image.objects for image in images])
    )
    order = np.argsort(-scores, kind="stable")
    labels, kinds, mended = labels[order], kinds[order], mended[order]
    right = kinds == _RIGHT
    base = _mean_precision(labels, right, objects)
    counts, costs = {}, {}
    for kind, name in enumerate(KINDS[:-1]):
        changed = kinds == kind
        kept = ~changed | (mended != _REMOVED)
        fixed = _mean_precision(np.where(changed, mended, labels)[kept], (right | changed)[kept], objects)
        counts[name], costs[name] = int(changed.sum()), max(0.0, fixed - base)
    counts[KINDS[-1]] = int(missed.sum())
    costs[KINDS[-1]] = max(0.0, _mean_precision(labels, right, objects - missed) - base)
    return DetectionErrors(base, counts, costs)


def _mean_precision(labels: np.ndarray, right: np.ndarray, objects: np.ndarray) -> float:
    """Mean over classes with objects (classes,) of the average precision of boxes (N,) in order of score; NaN if none.

    As in COCO: of each recall from 0 to 1 in steps of 0.01 the best precision at that or a higher one.
    """
    values = []
    for label in np.flatnonzero(objects):
        hits = right[labels == label]
        total = np.cumsum(hits)
        precision = np.maximum.accumulate((total / np.arange(1, len(hits) + 1))[::-1])[::-1]
        at = np.searchsorted(total / objects[label], RECALL_STEPS)
        values.append(np.append(precision, 0.0)[at].mean())
    return float(np.mean(values)) if values else float("nan")
