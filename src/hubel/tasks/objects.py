"""Base of localization, detection and segmentation: a choice of backbones, transforms that carry objects along."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from hubel.config import DEFAULT_NETWORK, TrainingConfig
from hubel.data.checks.training_checks import Findings, check_object_set
from hubel.data.samples import Sample
from hubel.data.transforms.object_transform import (
    ObjectTransform,
    check_object_augmentations,
    describe_object_augmentations,
)
from hubel.errors import ModelError, UsageError
from hubel.models import architecture
from hubel.models.base import Model
from hubel.models.metadata import ModelMetadata
from hubel.tasks.base import ProgressCallback, Task, TaskData


class ObjectTask(Task):
    """A task on objects in images, whose networks stand on a classifier.

    Attributes:
        network: the architecture that is trained by default.
        refused_augmentations: those that are not for the task.
        has_masks: objects have masks, which copy-paste needs.
        model_type: base class of the networks, and what they are called in messages.
    """

    network: ClassVar[str]
    refused_augmentations: ClassVar[tuple[str, ...]] = ("multiscale",)
    has_masks: ClassVar[bool] = False
    model_type: ClassVar[tuple[type[Model], str]]

    def resolve_config(self, config: TrainingConfig) -> TrainingConfig:
        """A classifier named as the model becomes the backbone."""
        refused = {
            "--balance": config.balance not in ("auto", "none"),
            "--label-smoothing": bool(config.label_smoothing),
            "--cache-features": config.cache_features,
            "--training-size": config.training_size is not None and architecture(config.model).training_crop is None,
        }
        for option, is_set in refused.items():
            if is_set:
                raise UsageError(f"{option} is for --task classify, not for {config.task}", "omit it")
        for name in (*self.refused_augmentations, *(() if self.has_masks else ("copy-paste",))):
            if name in config.augmentation:
                raise UsageError(f"--augment {name} cannot be used with --task {config.task}", "omit it")
        config = replace(config, augmentation=check_object_augmentations(config.augmentation))
        if not architecture(config.model).is_backbone:
            return config
        if config.backbone is not None and config.model != DEFAULT_NETWORK:
            message = f"--model {config.model} is a backbone of {self.network}, and so is --backbone {config.backbone}"
            raise UsageError(message, "pass one of them")
        return replace(config, model=self.network, backbone=config.backbone or config.model)

    def check(
        self, splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: ProgressCallback
    ) -> Findings:
        """Unreadable images are left out; boxes are scaled to the real sizes of the images."""
        return check_object_set(splits, classes, progress)

    def prepare_model(
        self, config: TrainingConfig, model: Model, metadata: ModelMetadata, samples: Sequence[Sample]
    ) -> ModelMetadata:
        """The networks are trained as they are made."""
        kind, name = self.model_type
        if not isinstance(model, kind):
            raise ModelError(f"{config.model} is not {name}", f"use --model {self.network}, and choose its --backbone")
        return metadata


class ObjectData(TaskData):
    """Images with objects or class maps, which augmentations carry along."""

    transform = ObjectTransform

    def describe_augmentations(self) -> list[str]:
        """Those of boxes and class maps."""
        return describe_object_augmentations(self.config.augmentation)
