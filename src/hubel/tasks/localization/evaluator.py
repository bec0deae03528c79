"""Scores a localizer image by image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hubel.boxes import paired_iou
from hubel.data.samples import Sample, Target
from hubel.drawing import BoxLabel
from hubel.metrics.classification import ImageScore, score_images
from hubel.metrics.localization import LocalizationScores, combine_boxes
from hubel.models.metadata import ModelMetadata
from hubel.reports.report_data import Mistake
from hubel.results import ClassScore
from hubel.tasks.base import Evaluator, Predictions
from hubel.tasks.classification.decode import top_k
from hubel.tasks.decoding import scale_to_original


class _Localized(NamedTuple):
    """One image: class and IoU; of a sample its file, best class and boxes, too."""

    score: ImageScore
    overlap: float
    path: Path | None = None
    best: ClassScore | None = None
    box: np.ndarray | None = None
    true_box: np.ndarray | None = None


class LocalizationEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`.

    Args:
        metadata: of the model.
    """

    def __init__(self, metadata: ModelMetadata) -> None:
        super().__init__()
        self._classes, self._preprocessing = metadata.classes, metadata.preprocessing

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"boxes"`` (N, 1, 4) and ``"scores"`` (N, 1, classes)."""
        boxes, probabilities = predictions["boxes"][:, 0], predictions["scores"][:, 0]
        labels = [int(truth.labels[0]) if len(truth.labels) else 0 for truth in truths]
        scores = score_images(probabilities, labels, len(self._classes))
        for box, row, truth, score in zip(boxes, probabilities, truths, scores, strict=True):
            # In pixels of the input an object may be too small to be there: no box overlaps it.
            true_box = truth.boxes[:1] if len(truth.labels) else np.zeros((1, 4))
            if isinstance(truth, Sample):
                moved = scale_to_original(box[None], self._preprocessing, truth.width, truth.height)
                overlap = float(paired_iou(moved.astype(np.float64), true_box)[0])
                (best,) = top_k(row, self._classes, 1)
                self.images.append(_Localized(score, overlap, truth.path, best, moved[0], true_box[0]))
            else:
                self.images.append(_Localized(score, float(paired_iou(box[None].astype(np.float64), true_box)[0])))

    def compute(self) -> LocalizationScores:
        """Metrics of classes and boxes."""
        overlap = np.array([image.overlap for image in self.images])
        return combine_boxes([image.score for image in self.images], overlap, self._classes)

    def prediction_records(self) -> list[dict[str, Any]]:
        """Source, truth, and the class and box found."""
        return [
            {
                "source": str(image.path),
                "truth": {"name": self._classes[image.score.label], "box": _rounded(image.true_box)},
                "objects": [{**image.best.to_json(), "box": _rounded(image.box)}],
            }
            for image in self.images
        ]

    def worst_predictions(self, count: int = 24) -> list[Mistake]:
        """The boxes of the smallest IoU."""
        mistakes = []
        for image in sorted(self.images, key=lambda image: image.overlap)[:count]:
            truth, best = self._classes[image.score.label], image.best
            true = BoxLabel(_corners(image.true_box), truth, 0)
            found = BoxLabel(_corners(image.box), f"{best.name} IoU {image.overlap:.2f}", 1)
            mistakes.append(Mistake(image.path, truth, best.name, best.score, image.overlap, (true, found)))
        return mistakes


def _rounded(box: np.ndarray) -> list[float]:
    return [round(float(value), 2) for value in box]


def _corners(box: np.ndarray) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(value) for value in box)
    return x1, y1, x2, y2
