"""Scores class maps image by image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hubel.data.image_folder import read_class_map
from hubel.data.samples import Sample, Target
from hubel.metrics.segmentation import SegmentationScores, combine, pixel_confusion
from hubel.models.metadata import ModelMetadata
from hubel.reports.report_data import Mistake
from hubel.tasks.base import Evaluator, Predictions
from hubel.tasks.segmentation.decode import to_original


class _Segmented(NamedTuple):
    """One image: pixels by true and predicted class; of a sample its file, too."""

    confusion: np.ndarray
    path: Path | None


class SegmentationEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`. Samples are compared at the size of their images.

    Args:
        metadata: of the model.
    """

    def __init__(self, metadata: ModelMetadata) -> None:
        super().__init__()
        self._classes, self._preprocessing = metadata.classes, metadata.preprocessing

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"class_map"`` (N, H, W)."""
        count = len(self._classes)
        for class_map, truth in zip(predictions["class_map"], truths, strict=True):
            if isinstance(truth, Sample):
                assert truth.class_map is not None
                moved = to_original(class_map, self._preprocessing, truth.width, truth.height)
                confusion = pixel_confusion(read_class_map(truth.class_map), moved, count)
                self.images.append(_Segmented(confusion, truth.path))
            else:
                assert truth.class_map is not None
                self.images.append(_Segmented(pixel_confusion(truth.class_map, class_map, count), None))

    def compute(self) -> SegmentationScores:
        """IoU and accuracy of every class."""
        return combine([image.confusion for image in self.images], self._classes)

    def prediction_records(self) -> list[dict[str, Any]]:
        """Source, pixel accuracy and mean IoU of each image."""
        rows = []
        for image in self.images:
            scores = combine([image.confusion], self._classes)
            metrics = {"pixel_accuracy": scores.pixel_accuracy, "mean_iou": scores.mean_iou}
            rows.append({"source": str(image.path), **metrics})
        return rows

    def worst_predictions(self, count: int = 24) -> list[Mistake]:
        """The images of which most pixels are wrong, with their most frequent confusion."""
        scored = [(combine([image.confusion], self._classes).pixel_accuracy, image) for image in self.images]
        mistakes = []
        for accuracy, image in sorted(scored, key=lambda pair: pair[0])[:count]:
            wrong = image.confusion * (1 - np.eye(len(self._classes), dtype=int))
            truth, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
            if image.path is not None and wrong.any():
                names = self._classes[int(truth)], self._classes[int(predicted)]
                mistakes.append(Mistake(image.path, *names, probability=1 - accuracy))
        return mistakes
