"""What tasks on pictures with labelled boxes have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hubel.config import TrainingConfig
from hubel.data.checks.training_checks import ObjectFindings, check_object_set
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample
from hubel.data.splits import Splits
from hubel.data.transforms.object_transform import ObjectTransform, describe_object_augmentations
from hubel.models import ModelMetadata
from hubel.models.base import Model
from hubel.reports import AugmentationSample
from hubel.reports.augmentation_preview import augmentation_preview
from hubel.training.data_module import RunImages
from hubel.training.feature_cache import FeatureCache
from hubel.training.finetune import Phase
from hubel.training.sample_images import SampleImages
from hubel.training.task import Objective


class BoxTask:
    """Their part of :class:`hubel.training.task.Task`."""

    def check(
        self,
        splits: Mapping[str, Sequence[Any]],
        classes: Sequence[str],
        progress: Callable[[int, int], None] | None,
    ) -> ObjectFindings:
        """Unreadable pictures are left out; boxes are scaled to what is there."""
        return check_object_set(splits, classes, progress)

    def refuse(
        self,
        config: TrainingConfig,
        model: Model,
        phases: Sequence[Phase],
        classes: Sequence[str],
        splits: Splits[Any],
    ) -> None:
        """Nothing more."""

    def images(self, config: TrainingConfig, preprocessing: Preprocessing, side: int) -> SampleImages:
        """Pixels and boxes."""
        augmented = ObjectTransform(preprocessing.resized(side), config.augmentation)
        return SampleImages(augmented, ObjectTransform(preprocessing), config.seed)

    def features(
        self,
        config: TrainingConfig,
        metadata: ModelMetadata,
        side: int,
        samples: Sequence[Sample],
        images: RunImages,
        learning: Objective,
    ) -> FeatureCache | None:
        """None: boxes are learned from images that change."""
        return None

    def transforms(self, config: TrainingConfig) -> list[str]:
        """As the augmentations that carry boxes describe themselves."""
        return describe_object_augmentations(config.augmentation)

    def sheet(
        self, samples: Sequence[Sample], preprocessing: Preprocessing, config: TrainingConfig
    ) -> list[AugmentationSample]:
        """With their boxes."""
        augmented = ObjectTransform(preprocessing, config.augmentation)
        return augmentation_preview(samples, ObjectTransform(preprocessing), augmented, config.seed)
