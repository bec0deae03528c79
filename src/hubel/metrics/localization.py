"""How good boxes are where each image has one: overlap with the true box, and the class beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hubel.boxes import paired_iou
from hubel.errors import DataError
from hubel.metrics.classification import ClassificationScores, ImageScore, combine_images, score_images

ENOUGH = 0.5
"""IoU from which on a box counts as right, as in the ImageNet localization challenge (Russakovsky et al. 2015, arXiv
1409.0575, section 4.2)."""


@dataclass(frozen=True)
class LocalizationScores:
    """Final figures; fractions.

    Attributes:
        classes: of the classes alone.
        overlap: (N,), IoU of each image's box with the true one.
        mean_iou: their mean.
        iou50: share of images whose box overlaps the true one by at least :data:`ENOUGH`.
        both: share of images where besides the class is right.
        class_overlap: mean IoU of each class's images; NaN where it has none.
    """

    classes: ClassificationScores
    overlap: np.ndarray
    mean_iou: float
    iou50: float
    both: float
    class_overlap: tuple[float, ...]

    @property
    def images(self) -> int:
        """How many were scored."""
        return self.classes.images

    @property
    def top1(self) -> float:
        """Accuracy of the classes."""
        return self.classes.top1

    def to_json(self) -> dict[str, Any]:
        """``{"metrics": {…}, "per_class": […]}``: what classification has, and what boxes add."""
        row = self.classes.to_json()
        boxes = {"mean_iou": self.mean_iou, "iou50": self.iou50, "both": self.both}
        per_class = [
            {**each, "mean_iou": None if np.isnan(overlap) else overlap}
            for each, overlap in zip(row["per_class"], self.class_overlap, strict=True)
        ]
        return {"metrics": {**boxes, **row["metrics"]}, "per_class": per_class}


def score_localization(
    probabilities: np.ndarray,
    labels: np.ndarray,
    boxes: np.ndarray,
    true_boxes: np.ndarray,
    class_names: Sequence[str],
) -> LocalizationScores:
    """Score a class and a box for each image.

    Args:
        probabilities: (N, K), each row of sum 1.
        labels: (N,), true classes, integers.
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        true_boxes: likewise.
        class_names: the K names.

    Raises:
        DataError: nothing to score, shapes that do not fit, or boxes that are not finite.
    """
    if boxes.shape != true_boxes.shape or boxes.shape != (len(labels), 4):
        raise DataError(
            f"Boxes of shape {boxes.shape} do not fit {true_boxes.shape} and {len(labels)} labels.",
            "Give one an image.",
        )
    if not np.isfinite(boxes).all():
        raise DataError("Boxes are not finite.", "Train with a lower learning rate or in float32.")
    return combine_boxes(
        score_images(probabilities, labels, len(class_names)),
        paired_iou(np.asarray(boxes, np.float64), np.asarray(true_boxes, np.float64)),
        class_names,
    )


def combine_boxes(images: Sequence[ImageScore], overlap: np.ndarray, class_names: Sequence[str]) -> LocalizationScores:
    """The scores of images whose classes :func:`~hubel.metrics.classification.score_images` took.

    Args:
        images: N.
        overlap: (N,), IoU of each image's box with the true one.
        class_names: of all classes.
    """
    labels = np.array([image.label for image in images])
    right = np.array([image.predicted for image in images]) == labels
    enough = overlap >= ENOUGH
    by_class = [overlap[labels == index] for index in range(len(class_names))]
    means = tuple(float(each.mean()) if len(each) else float("nan") for each in by_class)
    both = float((enough & right).mean())
    classes = combine_images(images, class_names)
    return LocalizationScores(classes, overlap, float(overlap.mean()), float(enough.mean()), both, means)
