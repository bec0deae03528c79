"""Scores a detector image by image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hubel.data.samples import Sample, Target
from hubel.metrics.coco import GroundTruth, PredictedObjects
from hubel.metrics.detection import DetectionScores, score_detection
from hubel.models.metadata import ModelMetadata
from hubel.reports.report_data import DetectionMistake
from hubel.tasks.base import Evaluator, Predictions
from hubel.tasks.decoding import Thresholds, scale_to_original
from hubel.tasks.detection.decode import select_objects

THRESHOLDS = Thresholds(conf=0.001, iou=0.6, max_detections=100)
"""Thresholds of scored objects: COCO's precision looks at the best hundred of an image."""


class _Detected(NamedTuple):
    """One image: its objects, and those found; of a sample its file, too. Boxes are in pixels of one image."""

    truth: GroundTruth
    found: PredictedObjects
    path: Path | None


class DetectionEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`.

    Args:
        metadata: of the model.
    """

    def __init__(self, metadata: ModelMetadata) -> None:
        super().__init__()
        self._classes, self._preprocessing = metadata.classes, metadata.preprocessing

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"boxes"`` (N, A, 4) and ``"scores"`` (N, A, classes)."""
        size = (self._preprocessing.height, self._preprocessing.width)
        for boxes, scores, truth in zip(predictions["boxes"], predictions["scores"], truths, strict=True):
            found = select_objects(boxes, scores, size, THRESHOLDS)
            if isinstance(truth, Sample):
                labelled = GroundTruth(truth.boxes, truth.labels, truth.crowd, truth.areas)
                moved = scale_to_original(found.boxes, self._preprocessing, truth.width, truth.height)
                self.images.append(_Detected(labelled, PredictedObjects(moved, found.scores, found.labels), truth.path))
            else:
                self.images.append(_Detected(GroundTruth(truth.boxes, truth.labels), found, None))

    def compute(self) -> DetectionScores:
        """COCO's metrics, and confusion at the confidence that users see."""
        truths, found = [image.truth for image in self.images], [image.found for image in self.images]
        return score_detection(truths, found, self._classes)

    def prediction_records(self) -> list[dict[str, Any]]:
        """Source, truth, and the objects found."""
        rows = []
        for image in self.images:
            objects = self._objects(image.found.labels, image.found.boxes)
            objects = [{**each, "score": float(score)} for each, score in zip(objects, image.found.scores, strict=True)]
            truth = self._objects(image.truth.labels, image.truth.boxes)
            rows.append({"source": str(image.path), "truth": truth, "objects": objects})
        return rows

    def _objects(self, labels: np.ndarray, boxes: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"index": int(label), "name": self._classes[label], "box": [round(float(value), 2) for value in box]}
            for label, box in zip(labels, boxes, strict=True)
        ]

    def worst_predictions(self, count: int = 12) -> list[DetectionMistake]:
        """The images with the worst mistakes."""
        from hubel.tasks.detection.report import detection_mistakes

        truths, found = [image.truth for image in self.images], [image.found for image in self.images]
        return detection_mistakes([image.path for image in self.images], truths, found, self._classes, count)
