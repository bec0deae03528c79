"""Semantic segmentation, from images with masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from hubel.config import TrainingConfig
from hubel.data.checks.mask_checks import MaskFindings, check_masks
from hubel.data.image_folder import read_mask_folder
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Batch, ImageDataset, Sample
from hubel.data.transforms.object_transform import (
    ObjectTransform,
    check_object_augmentations,
    describe_object_augmentations,
)
from hubel.errors import ModelError
from hubel.metrics.segmentation import SegmentationScores
from hubel.models.base import Model
from hubel.models.metadata import ModelMetadata
from hubel.models.segmentation.fcn import IGNORE_INDEX, FCN32s, SegmentationTargets
from hubel.reports.augmentation_preview import augmentation_preview
from hubel.reports.report_data import AugmentationSample, TaskReport
from hubel.results import SegmentationMap
from hubel.tasks.base import Task, TaskData
from hubel.tasks.options import reject_classification_options, with_backbone
from hubel.tasks.segmentation.evaluator import SegmentationEvaluator

NETWORK = "fcn32s"


class Segmentation(Task):
    """The class of every pixel."""

    name = "segment"
    result = SegmentationMap
    monitor = ("mean_iou", "pixel_accuracy")
    logged_metrics: ClassVar[Mapping[str, str]] = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}

    def resolve_config(self, config: TrainingConfig) -> TrainingConfig:
        """A classifier named as the model becomes the backbone."""
        reject_classification_options(config)
        augmentation = check_object_augmentations(config.augmentation)
        return with_backbone(replace(config, augmentation=augmentation), NETWORK)

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """Images with masks."""
        return read_mask_folder(data)

    def check(
        self,
        splits: Mapping[str, Sequence[Sample]],
        classes: Sequence[str],
        progress: Callable[[int, int], None] | None,
    ) -> MaskFindings:
        """Unreadable images and masks of another size are left out."""
        return check_masks(splits, classes, progress)

    def prepare_model(self, config: TrainingConfig, model: Model, metadata: ModelMetadata) -> ModelMetadata:
        """Networks for segmentation are trained as they are made."""
        if not isinstance(model, FCN32s):
            message = f"{config.model} is not a network for segmentation"
            raise ModelError(message, f"take --model {NETWORK}, and choose its --backbone")
        return metadata

    def data(
        self, config: TrainingConfig, metadata: ModelMetadata, side: int, samples: Sequence[Sample]
    ) -> SegmentationData:
        """Pixels and class maps."""
        return SegmentationData(config, metadata.preprocessing, side, len(metadata.classes))

    def evaluator(self, metadata: ModelMetadata) -> SegmentationEvaluator:
        """IoU and accuracy of every class."""
        return SegmentationEvaluator(metadata)

    def scores_table(self, scores: SegmentationScores) -> str:
        """Totals, then a line per class; fractions."""
        width = max(len("class"), *(len(name) for name in scores.classes))
        totals = (
            f"mean IoU {scores.mean_iou:.4f}   pixel accuracy {scores.pixel_accuracy:.4f}   "
            f"mean accuracy {scores.mean_accuracy:.4f}   frequency-weighted IoU {scores.frequency_weighted_iou:.4f}"
        )
        rows = zip(scores.classes, scores.iou, scores.accuracy, scores.confusion.sum(1), strict=True)
        lines = [f"{name:<{width}}  {iou:>6.3f}  {accuracy:>8.3f}" for name, iou, accuracy, pixels in rows if pixels]
        return "\n".join([totals, "", f"{'class':<{width}}  {'IoU':>6}  {'accuracy':>8}", *lines])

    def report(self) -> TaskReport:
        """IoU of every class, confusion of pixels, the worst images."""
        from hubel.tasks.segmentation.report import REPORT

        return REPORT


class SegmentationData(TaskData):
    """See :class:`TaskData`. Targets are :class:`~hubel.models.segmentation.fcn.SegmentationTargets`.

    Args:
        config: of the run.
        preprocessing: of the model.
        side: of training images in pixels.
        classes: how many there are.
    """

    def __init__(self, config: TrainingConfig, preprocessing: Preprocessing, side: int, classes: int) -> None:
        augmented = ObjectTransform(preprocessing.resized(side), config.augmentation, IGNORE_INDEX)
        super().__init__(config, ObjectTransform(preprocessing, (), IGNORE_INDEX), augmented)
        self._classes = classes

    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> SegmentationTargets:
        """Class maps; values that are not a class do not count."""
        maps = np.stack([target.class_map for target in batch.targets if target.class_map is not None])
        class_maps = torch.from_numpy(np.where(maps < self._classes, maps, IGNORE_INDEX).astype(np.int64))
        return SegmentationTargets(class_maps.to(device))

    def augmentation_preview(self, samples: Sequence[Sample]) -> list[AugmentationSample]:
        """Whole images."""
        augmented = ObjectTransform(self.plain.preprocessing, self.config.augmentation)
        return augmentation_preview(samples, self.plain, augmented, self.config.seed)

    def describe_augmentations(self) -> list[str]:
        """Augmentations that carry class maps along."""
        return describe_object_augmentations(self.config.augmentation)
