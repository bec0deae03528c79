"""Object detection, from labels of any annotation format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import torch

from hubel.config import TrainingConfig
from hubel.data.annotated_images import read_annotated_images
from hubel.data.checks.training_checks import ObjectFindings, check_object_set
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Batch, ImageDataset, Sample
from hubel.data.transforms.object_transform import (
    ObjectTransform,
    WindowSampler,
    check_object_augmentations,
    describe_object_augmentations,
)
from hubel.data.transforms.pipeline import Transform
from hubel.errors import ModelError
from hubel.metrics.detection import DetectionScores, scores_table
from hubel.models import architecture
from hubel.models.base import DetectionTargets, Detector, Model, ObjectTargets
from hubel.models.metadata import ModelMetadata
from hubel.reports.augmentation_preview import augmentation_preview
from hubel.reports.report_data import AugmentationSample, TaskReport
from hubel.results import Detections
from hubel.tasks.base import Task, TaskData
from hubel.tasks.detection.evaluator import DetectionEvaluator
from hubel.tasks.options import reject_classification_options, with_backbone

NETWORK = "ssd"


class Detection(Task):
    """All objects of an image."""

    name = "detect"
    result = Detections
    monitor = ("AP50", "AP")
    logged_metrics: ClassVar[Mapping[str, str]] = {"AP50": "AP50", "AP": "AP"}

    def resolve_config(self, config: TrainingConfig) -> TrainingConfig:
        """A classifier named as the model becomes the backbone; models that train on crops set the training size."""
        reject_classification_options(config)
        augmentation = check_object_augmentations(config.augmentation)
        config = with_backbone(replace(config, augmentation=augmentation), NETWORK)
        arch = architecture(config.model)
        if arch.training_crop is None:
            return config
        side = config.options.get(arch.training_crop, getattr(arch.config, arch.training_crop))
        return replace(config, training_size=int(side))

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """All images, those without objects too."""
        return read_annotated_images(data, strict=strict)

    def check(
        self,
        splits: Mapping[str, Sequence[Sample]],
        classes: Sequence[str],
        progress: Callable[[int, int], None] | None,
    ) -> ObjectFindings:
        """Unreadable images are left out; boxes are scaled to the real sizes of the images."""
        return check_object_set(splits, classes, progress)

    def prepare_model(self, config: TrainingConfig, model: Model, metadata: ModelMetadata) -> ModelMetadata:
        """Detectors are trained as they are made."""
        if not isinstance(model, Detector):
            message = f"{config.model} is not a detector"
            raise ModelError(message, f"take --model {NETWORK}, and choose its --backbone")
        return metadata

    def data(
        self, config: TrainingConfig, metadata: ModelMetadata, side: int, samples: Sequence[Sample]
    ) -> DetectionData:
        """Pixels and objects; crops for training if the model is trained on them."""
        if architecture(config.model).training_crop is None:
            return DetectionData(config, metadata.preprocessing, side)
        crops = WindowSampler(metadata.preprocessing, side, config.augmentation)
        return DetectionData(config, metadata.preprocessing, side, crops)

    def evaluator(self, metadata: ModelMetadata) -> DetectionEvaluator:
        """COCO's metrics, and confusion."""
        return DetectionEvaluator(metadata)

    def scores_table(self, scores: DetectionScores) -> str:
        """Totals, then a line per class; fractions."""
        return scores_table(scores)

    def report(self) -> TaskReport:
        """Precision over recall, confusion, the worst images."""
        from hubel.tasks.detection.report import REPORT

        return REPORT


class ObjectData(TaskData):
    """Images with boxes, for the tasks that have them.

    Args:
        config: of the run.
        preprocessing: of the model.
        side: of training images in pixels.
        augmented: transform of training images, if it is not that of the configured augmentations.
    """

    def __init__(
        self, config: TrainingConfig, preprocessing: Preprocessing, side: int, augmented: Transform | None = None
    ) -> None:
        augmented = augmented or ObjectTransform(preprocessing.resized(side), config.augmentation)
        super().__init__(config, ObjectTransform(preprocessing), augmented)

    def augmentation_preview(self, samples: Sequence[Sample]) -> list[AugmentationSample]:
        """Whole images with their boxes."""
        augmented = ObjectTransform(self.plain.preprocessing, self.config.augmentation)
        return augmentation_preview(samples, self.plain, augmented, self.config.seed)

    def describe_augmentations(self) -> list[str]:
        """Augmentations that carry boxes along."""
        return describe_object_augmentations(self.config.augmentation)


class DetectionData(ObjectData):
    """See :class:`ObjectData`. Targets are :class:`~hubel.models.base.DetectionTargets`."""

    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> DetectionTargets:
        """All objects but crowds."""
        objects = [
            ObjectTargets(torch.from_numpy(each.boxes).to(device), torch.from_numpy(each.labels).to(device))
            for each in batch.targets
        ]
        return DetectionTargets(objects, (batch.pixels.shape[2], batch.pixels.shape[3]))
