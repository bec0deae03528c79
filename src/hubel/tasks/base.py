"""The contract between a task and the one training loop.

The loop knows batches of pixels, a model's losses and its predictions. A :class:`Task` knows how a data set is read and
augmented, what its targets are, how good predictions are, and what a report says of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from hubel.config import TrainingConfig
from hubel.data.checks.training_checks import Findings
from hubel.data.image_io import read_image
from hubel.data.loader import BatchDataset, PixelCache
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Batch, ImageDataset, Sample, Target
from hubel.data.sources import ImageSource
from hubel.data.transforms.pipeline import Transform
from hubel.models.base import BatchTargets, Model
from hubel.models.metadata import ModelMetadata
from hubel.reports.augmentation_preview import augmentation_preview
from hubel.reports.report_data import AugmentationSample, Mistakes, TaskReport
from hubel.results import Prediction
from hubel.tasks.decoding import Thresholds

Predictions = Mapping[str, np.ndarray]
"""Output of :meth:`~hubel.models.base.Model.predictions` for a batch, as arrays (N, …)."""

Shape = tuple[int, int, int]
CachedShape = Shape | Callable[[int, int], Shape]
"""(H, W, C) of every cached image, or a function of the upright image's width and height."""


ProgressCallback = Callable[[int, int], None] | None
"""Called now and then with the number of images opened and of all."""


class Scores(Protocol):
    """Final metrics of one split."""

    @property
    def images(self) -> int:
        """Number of images scored."""

    def to_json(self) -> dict[str, Any]:
        """``{"metrics": {…}, "per_class": […]}``."""


class Evaluator(ABC):
    """Scores a stream of predictions: of each image it keeps what the metrics need, in :attr:`images`, and no more.

    Several processes that evaluate parts of a split bring their :attr:`images` together before one computes.

    Attributes:
        thresholds: limits on the objects that are scored, of tasks that select some.
    """

    thresholds = Thresholds()

    def __init__(self, metadata: ModelMetadata) -> None:
        self.images: list[Any] = []
        self.classes, self.preprocessing = metadata.classes, metadata.preprocessing

    @abstractmethod
    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take a batch.

        The truths are samples, with boxes in pixels of the original images, or, in the validation after an epoch,
        targets, with boxes in pixels of the input.
        """

    def update_results(self, results: Sequence[Prediction], samples: Sequence[Sample]) -> None:
        """Take results of samples as users see them, of tasks whose decoder selects objects."""
        raise NotImplementedError

    @abstractmethod
    def compute(self) -> Scores:
        """Metrics of all images."""

    @abstractmethod
    def prediction_records(self) -> list[dict[str, Any]]:
        """Rows of ``predictions.jsonl``; of samples only."""

    @abstractmethod
    def worst_predictions(self) -> Mistakes:
        """The worst mistakes, worst first; of samples only."""


class TaskData(ABC):
    """The data of one run: from samples to batches, from batches to targets.

    Args:
        config: resolved.
        metadata: of the model.
        side: of training images in pixels.
        samples: of the training split.

    Attributes:
        transform: from preprocessing and the names of augmentations to a transform.
        balance_note: how imbalanced classes are treated, and why; may be empty.
        sample_weights: sampling weight of each training image (N,); ``None``: uniform, without replacement.
        allows_feature_cache: whether features of a frozen backbone may replace the images.
    """

    transform: ClassVar[Callable[..., Transform]]
    balance_note: str = ""
    sample_weights: Tensor | None = None
    allows_feature_cache: bool = False

    def __init__(self, config: TrainingConfig, metadata: ModelMetadata, side: int, samples: Sequence[Sample]) -> None:
        self.config, self.classes = config, metadata.classes
        self.plain = self.transform(metadata.preprocessing)
        self.augmented = self.transform(metadata.preprocessing.resized(side), config.augmentation)

    def cached_shapes(self) -> tuple[CachedShape, CachedShape]:
        """Shapes of a cached training and a cached validation image."""
        of_training, of_validation = (
            each.cached_shape if each.crops else each.cached_shape(1, 1) for each in (self.augmented, self.plain)
        )
        return of_training, of_validation

    def training(self, samples: Sequence[Sample], cache: PixelCache | None) -> BatchDataset:
        """Randomly augmented images, by keys (epoch, index)."""
        combined = (self.config.epochs or 1) - self.config.close_mosaic
        return BatchDataset(samples, self.augmented, self.config.seed, cache, combined)

    def validation(self, samples: Sequence[Sample], cache: PixelCache | None) -> BatchDataset:
        """Images as for prediction."""
        return BatchDataset(samples, self.plain, self.config.seed, cache)

    def for_feature_cache(self, samples: Sequence[Sample]) -> tuple[BatchDataset, Preprocessing]:
        """Images as in training if that does not augment them, else as for prediction, and their preprocessing."""
        transform = self.plain if self.config.augmentation else self.augmented
        return BatchDataset(samples, transform, self.config.seed), transform.preprocessing

    def dummy_batch(self, images: int) -> Batch:
        """A training batch of black images at indices of -1: to time a step, to fill an empty part of a batch."""
        return BatchDataset((), self.augmented, self.config.seed).dummy_batch(images)

    @abstractmethod
    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> BatchTargets:
        """Ground truth of a batch for the model's losses; in training with what only that adds: label smoothing."""

    def blend(self, images: Tensor, targets: Any, step: int) -> tuple[Tensor, Any]:
        """Augmentations of a whole training batch (N, C, H, W) that is ready for the network; none by default.

        ``step`` is its number in the epoch, from 0.
        """
        return images, targets

    def augmentation_preview(self, samples: Sequence[Sample]) -> list[AugmentationSample]:
        """A few training images and random augmentations of each, at the size of prediction."""
        augmented = self.transform(self.plain.preprocessing, self.config.augmentation)
        return augmentation_preview(samples, self.plain, augmented, self.config.seed)

    @abstractmethod
    def describe_augmentations(self) -> list[str]:
        """The augmentations in words, in the order in which they are applied."""


class Task(ABC):
    """A task: how its data are read and its predictions scored.

    Attributes:
        name: as ``--task`` and models' metadata have it.
        result: type of the result of one image.
        monitor: metrics of validation that decide the best epoch, the first first; "-" before those to be minimized.
        logged_metrics: metrics that ``metrics.csv`` has as ``train_NAME`` and ``val_NAME``, with their names in
            messages, the most telling first; losses apart.
        scores_results: whether final scores are those of results as users see them, in which a network may see an image
            in parts, and not of predictions for whole images at the input's size.
        logs_validation_terms: whether ``metrics.csv`` has each term of the validation loss, too.
        data: the data of a run.
        evaluator: scores the predictions of a model with the given metadata.
        report: the task's sections of a report.
    """

    name: ClassVar[str]
    result: ClassVar[type[Prediction]]
    monitor: ClassVar[tuple[str, ...]]
    logged_metrics: ClassVar[Mapping[str, str]]
    logs_validation_terms: ClassVar[bool] = True
    scores_results: ClassVar[bool] = False
    data: ClassVar[type[TaskData]]
    evaluator: ClassVar[type[Evaluator]]
    report: ClassVar[TaskReport]

    def choice_margin(self, best: float, images: int) -> float:
        """By how much less than the ``best`` score, of so many validation images, a later epoch is still preferred.

        The score is the first of :attr:`monitor`, negative where it is to be minimized.
        """
        return 0.0

    @abstractmethod
    def resolve_config(self, config: TrainingConfig) -> TrainingConfig:
        """Fill in defaults of the task; raises :class:`~hubel.errors.UsageError` for options of other tasks."""

    @abstractmethod
    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """The samples of a data set; raises :class:`~hubel.errors.DataError` for none or, if ``strict``, bad files."""

    @abstractmethod
    def check(
        self, splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: ProgressCallback
    ) -> Findings:
        """Open the images, by the name of their split, and collect what is wrong; raises nothing for it."""

    @abstractmethod
    def prepare_model(
        self, config: TrainingConfig, model: Model, metadata: ModelMetadata, samples: Sequence[Sample]
    ) -> ModelMetadata:
        """Make a new model ready for training on some samples.

        Raises :class:`~hubel.errors.ModelError` if it is for another task.
        """

    def source(self, sample: Sample, preprocessing: Preprocessing) -> ImageSource:
        """The image that is shown to the network for a sample."""
        return ImageSource(str(sample.path), partial(read_image, sample.path))

    @abstractmethod
    def scores_table(self, scores: Any) -> str:
        """The metrics as text: totals, then a line per class; fractions."""
