"""Pascal VOC's average precision at one IoU: sampled at 11 recalls (VOC 2007), or the area under the curve.

Everingham et al. 2010, "The Pascal Visual Object Classes (VOC) Challenge", section 4.2; the area is that of the
development kit since 2010. The kit counts pixels inclusively, ``xmax - xmin + 1``; its box ``xmin .. xmax``, counted
from 1, is ``xmin - 1, xmax`` in hubel's coordinates and has the same width, so the IoU is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hubel import boxes
from hubel.metrics.coco import PredictedObjects


@dataclass(frozen=True)
class VocGroundTruth:
    """Labelled objects of one image.

    Attributes:
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        labels: (N,) class indices.
        difficult: (N,) bool: detections of such an object are ignored.
    """

    boxes: np.ndarray
    labels: np.ndarray
    difficult: np.ndarray


@dataclass(frozen=True)
class PrecisionCurve:
    """Precision and recall of a class (N,), 0..1, after each of its N detections, in order of score."""

    precision: np.ndarray
    recall: np.ndarray
    scores: np.ndarray
    objects: int

    @property
    def area(self) -> float:
        """All-point average precision: the area under the curve, where each precision is raised to the largest at a
        higher recall; NaN without objects.
        """
        if not self.objects:
            return float("nan")
        envelope = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float((np.diff(self.recall, prepend=0.0) * envelope).sum())

    @property
    def eleven_points(self) -> float:
        """Mean of the best precision at a recall of at least 0, 0.1, … 1; NaN without objects."""
        if not self.objects:
            return float("nan")
        best = [self.precision[self.recall >= step - 1e-12].max(initial=0.0) for step in np.linspace(0, 1, 11)]
        return float(np.mean(best))


def precision_curves(
    truths: Sequence[VocGroundTruth], predictions: Sequence[PredictedObjects], num_classes: int, iou: float = 0.5
) -> list[PrecisionCurve]:
    """The curve of each class.

    In order of score, each detection is matched with the object that it overlaps most, matched before or not. It is
    correct if their IoU is at least ``iou`` and it is the first one of the object.
    """
    return [_curve(truths, predictions, index, iou) for index in range(num_classes)]


def _curve(
    truths: Sequence[VocGroundTruth], predictions: Sequence[PredictedObjects], index: int, iou: float
) -> PrecisionCurve:
    scores, correct, counted, objects = [], [], [], 0
    for true, predicted in zip(truths, predictions, strict=True):
        own = np.flatnonzero(true.labels == index)
        difficult = np.asarray(true.difficult, bool)[own]
        objects += int((~difficult).sum())
        detected = np.flatnonzero(predicted.labels == index)
        detected = detected[np.argsort(-predicted.scores[detected], kind="stable")]
        overlap = boxes.iou(np.asarray(predicted.boxes[detected], np.float64), np.asarray(true.boxes[own], np.float64))
        taken = np.zeros(len(own), bool)
        for row, detection in enumerate(detected):
            best = int(overlap[row].argmax()) if len(own) else -1
            hit = best >= 0 and overlap[row, best] >= iou
            scores.append(float(predicted.scores[detection]))
            counted.append(not (hit and difficult[best]))
            correct.append(bool(hit and not taken[best]))
            if hit:
                taken[best] = True
    order = np.argsort(-np.array(scores), kind="stable")
    order = order[np.array(counted, bool)[order]]
    hits = np.cumsum(np.array(correct, float)[order])
    precision = hits / np.arange(1, len(order) + 1)
    return PrecisionCurve(precision, hits / max(1, objects), np.array(scores)[order], objects)
