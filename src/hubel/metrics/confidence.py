"""Precision, recall and F1 of a detector over the confidence from which its boxes count, and the best threshold."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

THRESHOLDS = np.linspace(0, 1, 101)
"""Confidences at which the curves are sampled: 0, 0.01, … 1."""


class ScoredBoxes(NamedTuple):
    """Boxes of any number of images, matched with their objects as if all boxes counted.

    Attributes:
        scores: (N,), 0..1.
        labels: (N,) class indices.
        right: (N,) bool: matched with an object of their class. The others are false positives.
    """

    scores: np.ndarray
    labels: np.ndarray
    right: np.ndarray


@dataclass(frozen=True)
class ConfidenceCurves:
    """By threshold and class (101, K), if the boxes of that score or more count; fractions 0..1.

    Attributes:
        precision: fraction of the boxes that are right; NaN without boxes.
        recall: fraction of the objects that are found; NaN for classes without objects.
        f1: harmonic mean of the two, ``2 TP / (boxes + objects)``; NaN for classes without objects.
        mean_f1: (101,), of the classes with objects; NaN if there are none.
    """

    precision: np.ndarray = field(repr=False)
    recall: np.ndarray = field(repr=False)
    f1: np.ndarray = field(repr=False)
    mean_f1: np.ndarray = field(repr=False)

    @property
    def best(self) -> int | None:
        """Index in :data:`THRESHOLDS` of the highest mean F1, the middle of several; ``None`` if nothing is right."""
        if not self.mean_f1.size or not np.nanmax(self.mean_f1, initial=0) > 0:
            return None
        highest = np.flatnonzero(np.isclose(self.mean_f1, np.nanmax(self.mean_f1), rtol=0, atol=1e-12))
        return int(highest[len(highest) // 2])


def confidence_curves(boxes: ScoredBoxes, objects: np.ndarray) -> ConfidenceCurves:
    """Curves of matched boxes.

    A greedy match in order of score does not depend on boxes of lower scores, so one match with all boxes yields the
    counts at every threshold.

    Args:
        objects: (K,), labelled objects by class.
    """
    precision, recall, f1 = (np.full((len(THRESHOLDS), len(objects)), np.nan) for _ in range(3))
    for index, count in enumerate(objects):
        of_class = boxes.labels == index
        found, right = (_counts(boxes.scores[of_class & chosen]) for chosen in (True, boxes.right))
        precision[:, index] = fraction(right, found)
        if count:
            recall[:, index], f1[:, index] = right / count, 2 * right / (found + count)
    present = f1[:, np.asarray(objects) > 0]
    mean = present.mean(1) if present.size else np.full(len(THRESHOLDS), np.nan)
    return ConfidenceCurves(precision, recall, f1, mean)


def _counts(scores: np.ndarray) -> np.ndarray:
    """Number of scores (N,) that reach each threshold (101,)."""
    return len(scores) - np.searchsorted(np.sort(scores), THRESHOLDS, side="left")


def fraction(part: Any, whole: Any) -> np.ndarray:
    """``part / whole``, NaN where ``whole`` is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    result: np.ndarray = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return result
