"""Object detection, from labels of any annotation format: data and metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch

from hubel.config import TrainingConfig
from hubel.data.annotated_images import read_annotated_images
from hubel.data.samples import Batch, ImageDataset, Sample, Target
from hubel.data.transforms.object_transform import WindowSampler
from hubel.metrics.coco import GroundTruth, PredictedObjects
from hubel.metrics.detection import DetectionScores, score_detection, scores_table
from hubel.models import architecture
from hubel.models.base import DetectionTargets, Detector, ObjectTargets
from hubel.models.metadata import ModelMetadata
from hubel.reports.report_data import DetectionMistake
from hubel.results import Detections
from hubel.tasks.base import Evaluator, Predictions
from hubel.tasks.decoding import Thresholds, scale_to_original
from hubel.tasks.detection.decode import select_objects
from hubel.tasks.detection.report import REPORT, detection_mistakes
from hubel.tasks.objects import ObjectData, ObjectTask

THRESHOLDS = Thresholds(conf=0.001, iou=0.6, max_detections=100)
"""Thresholds of scored objects: COCO's precision looks at the best hundred of an image."""


class _Detected(NamedTuple):
    """One image: its objects, and those found; of a sample its file, too. Boxes are in pixels of one image."""

    truth: GroundTruth
    found: PredictedObjects
    path: Path | None


class DetectionEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`."""

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"boxes"`` (N, A, 4) and ``"scores"`` (N, A, classes)."""
        size = (self.preprocessing.height, self.preprocessing.width)
        for boxes, scores, truth in zip(predictions["boxes"], predictions["scores"], truths, strict=True):
            found = select_objects(boxes, scores, size, THRESHOLDS)
            if isinstance(truth, Sample):
                labelled = GroundTruth(truth.boxes, truth.labels, truth.crowd, truth.areas)
                moved = scale_to_original(found.boxes, self.preprocessing, truth.width, truth.height)
                self.images.append(_Detected(labelled, PredictedObjects(moved, found.scores, found.labels), truth.path))
            else:
                self.images.append(_Detected(GroundTruth(truth.boxes, truth.labels), found, None))

    def compute(self) -> DetectionScores:
        """COCO's metrics, and confusion at the confidence that users see."""
        truths, found = [image.truth for image in self.images], [image.found for image in self.images]
        return score_detection(truths, found, self.classes)

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
            {"index": int(label), "name": self.classes[label], "box": [round(float(value), 2) for value in box]}
            for label, box in zip(labels, boxes, strict=True)
        ]

    def worst_predictions(self, count: int = 12) -> list[DetectionMistake]:
        """The images with the worst mistakes."""
        truths, found = [image.truth for image in self.images], [image.found for image in self.images]
        return detection_mistakes([image.path for image in self.images], truths, found, self.classes, count)


class DetectionData(ObjectData):
    """See :class:`~hubel.tasks.base.TaskData`; models that are trained on crops get those."""

    def __init__(self, config: TrainingConfig, metadata: ModelMetadata, side: int, samples: Sequence[Sample]) -> None:
        super().__init__(config, metadata, side, samples)
        if architecture(config.model).training_crop is not None:
            self.augmented = WindowSampler(metadata.preprocessing, side, config.augmentation)

    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> DetectionTargets:
        """All objects but crowds."""
        objects = [
            ObjectTargets(torch.from_numpy(each.boxes).to(device), torch.from_numpy(each.labels).to(device))
            for each in batch.targets
        ]
        return DetectionTargets(objects, (batch.pixels.shape[2], batch.pixels.shape[3]))


class Detection(ObjectTask):
    """All objects of an image."""

    name = "detect"
    result = Detections
    network = "ssd"
    model_type = (Detector, "a detector")
    monitor = ("AP50", "AP", "-loss")
    logged_metrics: ClassVar[Mapping[str, str]] = {"AP50": "AP50", "AP": "AP"}
    data = DetectionData
    evaluator = DetectionEvaluator
    report = REPORT

    def resolve_config(self, config: TrainingConfig) -> TrainingConfig:
        """See :class:`ObjectTask`; models that train on crops set the training size."""
        config = super().resolve_config(config)
        arch = architecture(config.model)
        if arch.training_crop is None:
            return config
        side = config.options.get(arch.training_crop, getattr(arch.config, arch.training_crop))
        return replace(config, training_size=int(side))

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """All images, those without objects too."""
        return read_annotated_images(data, strict=strict)

    def scores_table(self, scores: DetectionScores) -> str:
        """Totals, then a line per class; fractions."""
        return scores_table(scores)
