"""Metrics of class maps, all computed from the confusion of pixels (Long et al. 2015, arXiv 1411.4038, section 5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubel.metrics.confidence import fraction

_REACH = 0.02  # of the image's diagonal


def pixel_confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Pixels by true class (rows) and predicted class: int64 (classes, classes).

    Both maps are integers of the same shape; pixels whose true class is not in 0..classes - 1 do not count.
    """
    # Pixels that do not count get a row of their own: they are cheaper counted than left out.
    if truth.dtype.kind == "i":
        truth = np.where(truth < 0, classes, truth)
    truth = np.minimum(truth, classes)
    kind = np.dtype(np.uint16 if classes * (classes + 1) <= np.iinfo(np.uint16).max else np.int64)
    pairs = truth.astype(kind) * kind.type(classes) + predicted.astype(kind)
    counts = np.bincount(pairs.ravel(), minlength=classes * (classes + 1))
    return counts[: classes**2].reshape(classes, classes)


def boundary_overlap(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Pixels near the outlines of each class, in both maps and in one or both: int64 (2, classes).

    Cheng et al. 2021, "Boundary IoU", arXiv 2103.16562, section 4: of each class's mask the pixels whose distance from
    its outline, the border of the image included, is at most 2 % of the image's diagonal (distances as of repeated
    erosion by 3×3, as in the authors' code). Maps are as of :func:`pixel_confusion`, of one image.
    """
    reach = max(1, round(_REACH * math.hypot(*truth.shape)))
    counted = (truth >= 0) & (truth < classes)
    of_truth, of_prediction = (_near_outlines(each, reach) & counted for each in (truth, predicted))
    both = of_truth & of_prediction & (truth == predicted)
    common, one, other = (
        np.bincount(values.astype(np.int64), minlength=classes)[:classes]
        for values in (truth[both], truth[of_truth], predicted[of_prediction])
    )
    return np.stack([common, one + other - common])


def _near_outlines(class_map: np.ndarray, reach: int) -> np.ndarray:
    """Pixels (H, W) with another class, or what is beside the image, within so many rows and columns: bool."""
    from scipy.ndimage import maximum_filter1d, minimum_filter1d  # takes a tenth of a second to import

    low = high = np.pad(class_map.astype(np.int16), 1, constant_values=-1)
    for axis in (0, 1):
        low = minimum_filter1d(low, 2 * reach + 1, axis, mode="nearest")
        high = maximum_filter1d(high, 2 * reach + 1, axis, mode="nearest")
    near: np.ndarray = (low != high)[1:-1, 1:-1]
    return near


@dataclass(frozen=True)
class SegmentationScores:
    """Metrics of class maps; all but the counts are fractions 0..1, NaN where a class has no pixel.

    Attributes:
        images: number of images.
        confusion: pixels by true class (rows) and predicted class, (classes, classes).
        images_with: number of images in which each class is labelled (classes,).
        boundaries: sums of :func:`boundary_overlap` (2, classes); ``None`` where outlines were not compared.
    """

    classes: tuple[str, ...]
    images: int
    confusion: np.ndarray
    images_with: np.ndarray
    boundaries: np.ndarray | None = None

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
    def boundary_iou(self) -> np.ndarray | None:
        """As :attr:`iou`, of the pixels near the outlines of each class alone (classes,)."""
        return None if self.boundaries is None else fraction(self.boundaries[0], self.boundaries[1])

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
        metrics = {name: getattr(self, name) for name in names}
        columns = (self.classes, self.images_with.tolist(), self.confusion.sum(1).tolist(), self.iou, self.accuracy)
        per_class: list[dict[str, Any]] = [
            {
                "name": name,
                "images": images,
                "pixels": pixels,
                "iou": _number(iou),
                "accuracy": _number(right),
            }
            for name, images, pixels, iou, right in zip(*columns, strict=True)
        ]
        if (outlines := self.boundary_iou) is not None:
            metrics["boundary_iou"] = _mean(outlines)
            for row, value in zip(per_class, outlines, strict=True):
                row["boundary_iou"] = _number(value)
        return {"metrics": metrics, "per_class": per_class}


def combine(
    confusions: Sequence[np.ndarray], classes: Sequence[str], boundaries: Sequence[np.ndarray | None] = ()
) -> SegmentationScores:
    """Metrics of images together, from the confusion of each, and its :func:`boundary_overlap`."""
    count = len(classes)
    images_with = sum(((each.sum(1) > 0).astype(np.int64) for each in confusions), np.zeros(count, np.int64))
    outlines = [each for each in boundaries if each is not None]
    return SegmentationScores(
        tuple(classes),
        len(confusions),
        sum(confusions, np.zeros((count, count), np.int64)),
        images_with,
        sum(outlines, np.zeros((2, count), np.int64)) if outlines else None,
    )


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else 0.0


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
