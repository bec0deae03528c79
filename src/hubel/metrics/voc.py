"""Pascal VOC's average precision at one IoU: read at 11 recalls (VOC 2007), or the whole area under the curve.

Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", section 4.2; the area is that of the
development kit since 2010. The kit counts pixels inclusively, ``xmax - xmin + 1``; its box ``xmin .. xmax`` from 1 is
``xmin - 1, xmax`` in hubel's coordinates, whose width is the same, so that IoU is the kit's too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hubel import boxes
from hubel.metrics.coco import FoundObjects


@dataclass(frozen=True)
class VocObjects:
    """What is really in one image.

    Attributes:
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        labels: (N,) class indices.
        difficult: (N,) bool: finding such an object is neither right nor wrong.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


@dataclass(frozen=True)
class PrecisionCurve:
    """One class: precision and recall (N,), 0..1, after each detection from the best score down.

    Attributes:
        precision: share of the detections so far that are right.
        recall: share of the objects found so far.
        scores: of the detections.
        objects: how many there are to find.
    """

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    objects: int

    @property
    def area(self) -> float:
        """All-point average precision: the area under the curve, after each precision is raised to the best at a
        higher recall; NaN without objects.
        """
        if not self.objects:
            return float("nan")
        recall = np.concatenate(([0.0], self.recall))
        return float((np.diff(recall) * _envelope(self.precision)).sum())

    @property
    def eleven_points(self) -> float:
        """Mean of the best precision at a recall of at least 0, 0.1, … 1; NaN without objects."""
        if not self.objects:
            return float("nan")
        best = [self.precision[self.recall >= step - 1e-12].max(initial=0.0) for step in np.linspace(0, 1, 11)]
        return float(np.mean(best))


def precision_curves(
    labelled: Sequence[VocObjects], found: Sequence[FoundObjects], num_classes: int, iou: float = 0.5
) -> list[PrecisionCurve]:
    """The curve of each class.

    Detections choose their object in order of score: the one that they overlap most, of all, taken or not. Right is
    who overlaps it by at least ``iou`` and is the first to.

    Args:
        labelled: of each image.
        found: of each image, in the same order.
        num_classes: of the labels.
        iou: the smallest overlap that counts, 0..1.
    """
    return [_curve(labelled, found, index, iou) for index in range(num_classes)]


def _curve(labelled: Sequence[VocObjects], found: Sequence[FoundObjects], index: int, iou: float) -> PrecisionCurve:
    scores, right, counted, objects = [], [], [], 0
    for true, given in zip(labelled, found, strict=True):
        own = np.flatnonzero(true.labels == index)
        difficult = np.asarray(true.difficult, bool)[own]
        objects += int((~difficult).sum())
        theirs = np.flatnonzero(given.labels == index)
        theirs = theirs[np.argsort(-given.scores[theirs], kind="stable")]
        overlap = boxes.iou(np.asarray(given.boxes[theirs], np.float64), np.asarray(true.boxes[own], np.float64))
        taken = np.zeros(len(own), bool)
        for row, place in enumerate(theirs):
            best = int(overlap[row].argmax()) if len(own) else -1
            hit = best >= 0 and overlap[row, best] >= iou
            scores.append(float(given.scores[place]))
            counted.append(not (hit and difficult[best]))
            right.append(bool(hit and not taken[best]))
            if hit:
                taken[best] = True
    order = np.argsort(-np.array(scores), kind="stable")
    order = order[np.array(counted, bool)[order]]
    hits = np.cumsum(np.array(right, float)[order])
    precision = hits / np.arange(1, len(order) + 1)
    return PrecisionCurve(precision, hits / max(1, objects), np.array(scores)[order], objects)


def _envelope(precision: np.ndarray) -> np.ndarray:
    return np.maximum.accumulate(precision[::-1])[::-1]
