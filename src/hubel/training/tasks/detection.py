"""Detection: all objects of a picture, from labels of any annotation format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hubel.config import TrainingConfig
from hubel.data.annotated_images import read_annotated_images
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import ImageDataset, Sample
from hubel.errors import ModelError, UsageError
from hubel.inference.postprocess import scale_to_original
from hubel.metrics.coco import FoundObjects, GroundTruth
from hubel.metrics.detection import DetectionScores, score_detection, scores_table
from hubel.models import ModelMetadata
from hubel.models.base import Detector, Model
from hubel.reports import DetectionMistake
from hubel.reports.detection_mistakes import detection_mistakes
from hubel.tasks.detection.decode import decode_detections
from hubel.training.predict_split import Answers
from hubel.training.sample_images import SampleImages
from hubel.training.tasks.box_task import BoxTask
from hubel.training.tasks.detection_learning import RULE, WATCHED, DetectionLearning
from hubel.training.tasks.for_classes import reject_classification_options, with_backbone, with_object_augmentations
from hubel.training.tasks.window_learning import WINDOWS, WindowLearning, window_images, with_window_size

NETWORK = "ssd"
_NUMBERS = 6
"""Kept of each object: class, score and box; the score of what there is not is -1."""


class Detection(BoxTask):
    """See :class:`hubel.training.task.Task`."""

    name = "detect"
    watched: Mapping[str, str] = WATCHED

    def settle(self, config: TrainingConfig) -> TrainingConfig:
        """A classifier named as the network becomes the backbone."""
        reject_classification_options(config)
        if config.loss_weights:
            raise UsageError("--loss-weights is for --task localize", "leave it out")
        settled = with_backbone(with_object_augmentations(config), NETWORK)
        return with_window_size(settled) if settled.model == WINDOWS else settled

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """All pictures, those without objects too."""
        return read_annotated_images(data, strict=strict)

    def prepare(self, config: TrainingConfig, model: Model, metadata: ModelMetadata) -> ModelMetadata:
        """As it was made."""
        if not isinstance(model, Detector):
            raise ModelError(f"{config.model} is no detector", f"take --model {NETWORK}, and choose its --backbone")
        return metadata

    def learning(
        self, config: TrainingConfig, samples: Sequence[Sample], metadata: ModelMetadata, device: torch.device
    ) -> DetectionLearning:
        """SSD's loss, or that of windows."""
        key, kind = _key(metadata), WindowLearning if metadata.architecture == WINDOWS else DetectionLearning
        return kind(tuple(metadata.classes), lambda height, width: _anchors(key, height, width))

    def images(self, config: TrainingConfig, preprocessing: Preprocessing, side: int) -> SampleImages:
        """Pixels and objects."""
        if config.model == WINDOWS:
            return window_images(preprocessing, side, config)
        return super().images(config, preprocessing, side)

    def merit(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """AP50; of equal ones AP."""
        return row["val_AP50"], row["val_AP"]

    def answer(self, output: tuple[Tensor, Tensor], metadata: ModelMetadata) -> np.ndarray:
        """The best objects, boxes in pixels of the input."""
        size = (metadata.preprocessing.height, metadata.preprocessing.width)
        anchors = _anchors(_key(metadata), *size).numpy()
        scores, offsets = (each.float().cpu().numpy() for each in output)
        kept = np.full((len(scores), RULE.most, _NUMBERS), -1, np.float32)
        for place, (own, moved) in enumerate(zip(scores, offsets, strict=True)):
            found = decode_detections(own, moved, anchors, size, RULE)
            kept[place, : len(found.boxes)] = np.column_stack((found.labels, found.scores, found.boxes))
        return kept.reshape(len(kept), -1)

    def answer_width(self, classes: int) -> int:
        """As many as COCO's precision looks at."""
        return RULE.most * _NUMBERS

    def scores(self, answers: Answers, metadata: ModelMetadata) -> DetectionScores:
        """Boxes are compared in pixels of the pictures."""
        return score_detection(labelled_objects(answers), found_objects(answers, metadata), metadata.classes)

    def table(self, scores: DetectionScores) -> str:
        """Totals, then a line a class; fractions."""
        return scores_table(scores)

    def rows(self, answers: Answers, metadata: ModelMetadata) -> list[dict[str, Any]]:
        """Source, truth, and what was found."""
        rows = []
        for sample, found in zip(answers.samples, found_objects(answers, metadata), strict=True):
            truth = _objects(sample.labels, sample.boxes, metadata.classes)
            objects = _objects(found.labels, found.boxes, metadata.classes)
            objects = [{**each, "score": float(score)} for each, score in zip(objects, found.scores, strict=True)]
            rows.append({"source": str(sample.path), "truth": truth, "objects": objects})
        return rows

    def mistakes(self, answers: Answers, metadata: ModelMetadata) -> Sequence[DetectionMistake]:
        """The pictures with the worst."""
        paths = [sample.path for sample in answers.samples]
        return detection_mistakes(paths, labelled_objects(answers), found_objects(answers, metadata), metadata.classes)


def labelled_objects(answers: Answers) -> list[GroundTruth]:
    """What is really there."""
    return [GroundTruth(sample.boxes, sample.labels, sample.crowd, sample.areas) for sample in answers.samples]


def found_objects(answers: Answers, metadata: ModelMetadata) -> list[FoundObjects]:
    """What was found, boxes in pixels of the upright originals."""
    found = []
    for sample, values in zip(answers.samples, answers.values.reshape(-1, RULE.most, _NUMBERS), strict=True):
        there = values[values[:, 1] >= 0]
        boxes = scale_to_original(there[:, 2:], metadata.preprocessing, sample.width, sample.height)
        found.append(FoundObjects(boxes, there[:, 1], there[:, 0].astype(int)))
    return found


def _objects(labels: np.ndarray, boxes: np.ndarray, classes: Sequence[str]) -> list[dict[str, Any]]:
    return [
        {"index": int(label), "name": classes[label], "box": [round(float(side), 2) for side in box]}
        for label, box in zip(labels, boxes, strict=True)
    ]


def _key(metadata: ModelMetadata) -> str:
    return json.dumps(metadata.to_json(), sort_keys=True)


@lru_cache(maxsize=4)
def _anchors(metadata: str, height: int, width: int) -> Tensor:
    """The anchors of the network that a card describes, for images of that size: (A, 4)."""
    model = ModelMetadata.from_json(json.loads(metadata)).build(for_loading=True)
    assert isinstance(model, Detector)
    return model.anchors(height, width)
