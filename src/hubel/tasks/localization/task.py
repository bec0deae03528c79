"""Localization: the class of an image, and one box, from labels of any annotation format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from hubel.config import TrainingConfig
from hubel.data.annotated_images import largest_only, read_annotated_images
from hubel.data.checks.training_checks import ObjectFindings, check_object_set
from hubel.data.samples import Batch, ImageDataset, Sample
from hubel.data.transforms.object_transform import check_object_augmentations
from hubel.errors import ModelError, UsageError
from hubel.metrics.localization import LocalizationScores
from hubel.models.base import Model
from hubel.models.localization import NO_OBJECT, LocalizationTargets, Localizer
from hubel.models.metadata import ModelMetadata
from hubel.reports.report_data import TaskReport
from hubel.results import Localization as LocalizationResult
from hubel.tasks.base import Task
from hubel.tasks.detection.task import ObjectData
from hubel.tasks.localization.evaluator import LocalizationEvaluator
from hubel.tasks.options import reject_classification_options, with_backbone

NETWORK = "localizer"


class Localization(Task):
    """One class and one box per image."""

    name = "localize"
    result = LocalizationResult
    monitor = ("mean_iou", "-loss")
    logged_metrics: ClassVar[Mapping[str, str]] = {
        "mean_iou": "mean IoU",
        "top1": "top-1",
        "iou50": "IoU ≥ 0.5",
        "both": "both",
    }
    logs_validation_terms = False  # runs of earlier versions, which may be resumed, have no such columns

    def resolve_config(self, config: TrainingConfig) -> TrainingConfig:
        """A classifier named as the model becomes the backbone."""
        reject_classification_options(config)
        if "mosaic" in config.augmentation:
            message = "--augment mosaic cannot be used with --task localize, which has one box per image"
            raise UsageError(message, "leave it out")
        config = replace(config, augmentation=check_object_augmentations(config.augmentation))
        return with_backbone(config, NETWORK)

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """The largest object of each image; images without any are left out."""
        objects = largest_only(read_annotated_images(data, strict=strict))
        shown = {
            split: tuple(each for each in samples if len(each.labels)) for split, samples in objects.splits.items()
        }
        empty = sum(map(len, objects.splits.values())) - sum(map(len, shown.values()))
        notes = (f"{objects.root}: {empty} images show no object and are left out.",) if empty else ()
        splits = {split: samples for split, samples in shown.items() if samples}
        return replace(objects, splits=splits, warnings=(*objects.warnings, *notes))

    def check(
        self,
        splits: Mapping[str, Sequence[Sample]],
        classes: Sequence[str],
        progress: Callable[[int, int], None] | None,
    ) -> ObjectFindings:
        """Unreadable images are left out; boxes are scaled to the real sizes of the images."""
        return check_object_set(splits, classes, progress)

    def prepare_model(self, config: TrainingConfig, model: Model, metadata: ModelMetadata) -> ModelMetadata:
        """Localizers are trained as they are made."""
        if not isinstance(model, Localizer):
            message = f"{config.model} is not a localizer"
            raise ModelError(message, f"take --model {NETWORK}, and choose its --backbone")
        return metadata

    def data(
        self, config: TrainingConfig, metadata: ModelMetadata, side: int, samples: Sequence[Sample]
    ) -> LocalizationData:
        """Pixels, a class and a box each."""
        return LocalizationData(config, metadata.preprocessing, side)

    def evaluator(self, metadata: ModelMetadata) -> LocalizationEvaluator:
        """IoU, and classification's metrics."""
        return LocalizationEvaluator(metadata)

    def scores_table(self, scores: LocalizationScores) -> str:
        """Totals, then a line per class; fractions."""
        width = max(len("class"), *(len(row.name) for row in scores.classes.per_class))
        lines = [
            f"mean IoU {scores.mean_iou:.4f}   IoU ≥ 0.5 {scores.iou50:.4f}   top-1 {scores.top1:.4f}   "
            f"both {scores.both:.4f}",
            "",
            f"{'class':<{width}}  images  mean IoU      F1",
        ]
        for row, overlap in zip(scores.classes.per_class, scores.class_overlap, strict=True):
            if row.images:
                lines.append(f"{row.name:<{width}}  {row.images:>6}  {overlap:>8.3f}  {row.f1:>6.3f}")
        return "\n".join(lines)

    def report(self) -> TaskReport:
        """Share of images over IoU, the worst boxes."""
        from hubel.tasks.localization.report import REPORT

        return REPORT


class LocalizationData(ObjectData):
    """See :class:`~hubel.tasks.base.TaskData`. Targets are :class:`~hubel.models.localization.LocalizationTargets`."""

    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> LocalizationTargets:
        """The only object of each image; those of which augmentation left nothing do not count."""
        height, width = batch.pixels.shape[2:]
        scale = torch.tensor([width, height, width, height])
        boxes = torch.from_numpy(
            np.stack([each.boxes[0] if len(each.boxes) else np.zeros(4, np.float32) for each in batch.targets])
        )
        labels = [int(each.labels[0]) if len(each.labels) else NO_OBJECT for each in batch.targets]
        return LocalizationTargets(torch.tensor(labels).to(device), (boxes / scale).to(device))
