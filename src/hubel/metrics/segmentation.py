"""Metrics of class maps, all computed from the confusion of pixels (Long et al. 2015, arXiv 1411.4038, section 5)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubel.metrics.confidence import fraction


def pixel_confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Pixels by true class (rows) and predicted class: int64 (classes, classes).

    Both maps are integers of the same shape; pixels whose true class is not in 0..classes - 1 do not count.
    """
    counted = (truth >= 0) & (truth < classes)
    pairs = truth[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


@dataclass(frozen=True)
class SegmentationScores:
    """Metrics of class maps; all but the counts are fractions 0..1, NaN where a class has no pixel.

    Attributes:
        images: number of images.
        confusion: pixels by true class (rows) and predicted class, (classes, classes).
    """

    classes: tuple[str, ...]
    images: int
    confusion: np.ndarray

    @property
    def pixel_accuracy(self) -> float:
        """Fraction of the pixels that are right."""
        return float(np.trace(self.confusion) / max(1, self.confusion.sum()))

    @property
    def accuracy(self) -> np.ndarray:
        """Fraction of the pixels of each class that are right (classes,)."""
        return fraction(np.diag(self.confusion), self.confusion.sum(1))

    @property
    def iou(self) -> np.ndarray:
        """Pixels of each class that are right, over those that belong to it or were predicted to (classes,)."""
        right = np.diag(self.confusion)
        return fraction(right, self.confusion.sum(0) + self.confusion.sum(1) - right)

    @property
    def mean_iou(self) -> float:
        """Mean of :attr:`iou` over the classes that occur."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean of :attr:`accuracy` over the classes that occur."""
        return _mean(self.accuracy)

    @property
    def frequency_weighted_iou(self) -> float:
        """Mean of :attr:`iou`, weighted by each class's pixels."""
        pixels = self.confusion.sum(1)
        return float(np.nansum(self.iou * pixels) / max(1, pixels.sum()))

    def to_json(self) -> dict[str, Any]:
        """``{"metrics": {…}, "per_class": […]}``."""
        names = ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
        rows = zip(self.classes, self.confusion.sum(1), self.iou, self.accuracy, strict=True)
        per_class = [
            {"name": name, "pixels": int(pixels), "iou": _number(iou), "accuracy": _number(accuracy)}
            for name, pixels, iou, accuracy in rows
        ]
        return {"metrics": {name: getattr(self, name) for name in names}, "per_class": per_class}


def combine(confusions: Sequence[np.ndarray], classes: Sequence[str]) -> SegmentationScores:
    """Metrics of images together, from the confusion of each."""
    empty = np.zeros((len(classes), len(classes)), np.int64)
    return SegmentationScores(tuple(classes), len(confusions), sum(confusions, empty))


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else 0.0


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
