"""Localization metrics: IoU of one box per image with the true one, and its class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubel.boxes import paired_iou
from hubel.errors import DataError
from hubel.metrics.classification import ClassificationScores, ImageScore, combine_images, score_images

IOU_THRESHOLD = 0.5
"""Minimum IoU of a correct box, as in the ImageNet localization challenge (Russakovsky et al. 2015, arXiv 1409.0575,
section 4.2)."""

METRICS = {
    "mean_iou": ("mean IoU", ".3f"),
    "iou50": ("IoU ≥ 0.5", ".1%"),
    "top1": ("top-1", ".1%"),
    "both": ("both", ".1%"),
    "loss": ("loss of the class", ".4f"),
}
"""Labels and number formats of the metrics in tables, by name."""


@dataclass(frozen=True)
class LocalizationScores:
    """Localization metrics, fractions 0..1.

    Attributes:
        overlap: (N,), IoU of each image's box with the true one.
        iou50: fraction of images with an IoU of at least :data:`IOU_THRESHOLD`.
        both: fraction of images where the class is right too.
        class_overlap: mean IoU of each class; NaN without images.
    """

    classes: ClassificationScores
    overlap: np.ndarray
    mean_iou: float
    iou50: float
    both: float
    class_overlap: tuple[float, ...]

    @property
    def images(self) -> int:
        """Number of images."""
        return self.classes.images

    @property
    def top1(self) -> float:
        """Accuracy of the classes."""
        return self.classes.top1

    def to_json(self) -> dict[str, Any]:
        """``{"metrics": {…}, "per_class": […]}``: metrics of classification and of boxes."""
        row = self.classes.to_json()
        for each, overlap in zip(row["per_class"], self.class_overlap, strict=True):
            each["mean_iou"] = None if np.isnan(overlap) else overlap
        boxes = {"mean_iou": self.mean_iou, "iou50": self.iou50, "both": self.both}
        return {"metrics": {**boxes, **row["metrics"]}, "per_class": row["per_class"]}


def score_localization(
    probabilities: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    true_boxes: np.ndarray,
    class_names: Sequence[str],
) -> LocalizationScores:
    """Score a class and a box for each of N images.

    Args:
        probabilities: (N, K), each row of sum 1.
        labels: (N,).
        boxes: (N, 4), x1, y1, x2, y2 in pixels, as ``true_boxes``.
        true_boxes: (N, 4).
        class_names: K.

    Raises:
        DataError: there are no images, shapes do not match, or boxes are not finite.
    """
    if boxes.shape != true_boxes.shape or boxes.shape != (len(labels), 4):
        raise DataError(
            f"boxes of shape {boxes.shape} do not match {true_boxes.shape} and {len(labels)} labels",
            "pass one per image",
        )
    if not np.isfinite(boxes).all():
        raise DataError("boxes are not finite", "train with a lower learning rate or in float32")
    return combine_boxes(
        score_images(probabilities, labels, len(class_names)),
        paired_iou(np.asarray(boxes, np.float64), np.asarray(true_boxes, np.float64)),
        class_names,
    )


def combine_boxes(images: Sequence[ImageScore], overlap: np.ndarray, class_names: Sequence[str]) -> LocalizationScores:
    """Metrics of N images whose classes :func:`~hubel.metrics.classification.score_images` scored, with the IoU of
    each image's box and the true one (N,).
    """
    labels = np.array([image.label for image in images])
    right = np.array([image.predicted for image in images]) == labels
    enough = overlap >= IOU_THRESHOLD
    by_class = [overlap[labels == index] for index in range(len(class_names))]
    means = tuple(float(each.mean()) if len(each) else float("nan") for each in by_class)
    both = float((enough & right).mean())
    classes = combine_images(images, class_names)
    return LocalizationScores(classes, overlap, float(overlap.mean()), float(enough.mean()), both, means)
