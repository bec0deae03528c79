"""What a task is to the one training loop.

The loop knows batches of pixels, a network's raw output and the terms that are to be minimized; what an image's labels
are, what the output means and how good it is, a :class:`Task` knows. Implementations are in
:mod:`hubel.training.tasks`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from hubel.config import TrainingConfig
from hubel.data.preprocessing import Preprocessing
from hubel.data.splits import SplitData, Splits
from hubel.models import ModelMetadata
from hubel.models.base import Model
from hubel.reports import AugmentationSample, DetectionMistake, Mistake
from hubel.training.data_module import RunImages
from hubel.training.distributed import DistributedContext
from hubel.training.feature_cache import FeatureCache
from hubel.training.finetune import Phase
from hubel.training.predict_split import Answers
from hubel.training.sample_images import SampleImages


class LabelledData(SplitData[Any], Protocol):
    """A data set as it lies on disk."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of it, one line each."""

    def remap_classes(self, classes: Sequence[str]) -> LabelledData:
        """The same with labels that count in a model's list of classes.

        Raises:
            DataError: a class of the data set is not in the list.
        """


class Findings(Protocol):
    """What a check of a data set has found before the first epoch."""

    def raise_if_unusable(self, strict: bool) -> None:
        """Stop where training could not give anything sensible.

        Args:
            strict: stop at a picture that cannot be read, too.

        Raises:
            DataError: it could not.
        """

    def usable(self, samples: Sequence[Any]) -> tuple[Any, ...]:
        """The samples without what cannot be used."""

    def warnings(self) -> list[str]:
        """What a person should know, one line each."""


class Validation(Protocol):
    """Gathers what a network says of the validation images in an epoch."""

    def add(self, output: Any, labels: Any) -> None:
        """Take a batch: the network's raw output, and the images' labels on the same device."""

    def columns(self, processes: DistributedContext, images: float) -> dict[str, float]:
        """Figures of all processes, which all call it: a column ``val_NAME`` each.

        Args:
            processes: that train together.
            images: that they have taken, all together.
        """


class Objective(Protocol):
    """What one run minimizes and watches; made for its configuration and its training images.

    Labels are whatever the task knows of a batch's images.
    """

    @property
    def decision(self) -> str:
        """A sentence on what was chosen and why; may be empty."""

    @property
    def chances(self) -> Tensor | None:
        """Of each training image to be drawn, (N,); ``None`` shows each once an epoch."""

    @property
    def fixed_features(self) -> bool:
        """Whether features of a frozen backbone can stand in for the images: see :meth:`Task.features`."""

    def labels(self, batch: Any, device: torch.device) -> Any:
        """Those of a loader's batch, on the network's device."""

    def change(self, images: Tensor, labels: Any) -> tuple[Tensor, Any]:
        """A training batch (N, C, H, W), ready for the network, blended or as it came."""

    def terms(self, output: Any, labels: Any) -> dict[str, Tensor]:
        """Means over the batch, by name; their sum is minimized."""

    def weight(self, labels: Any) -> float:
        """How much a batch counts beside others, if those means are to be means over all of them."""

    def sums(self, output: Any, labels: Any) -> dict[str, float]:
        """Sums over a training batch of what is watched; their means are the columns ``train_NAME``."""

    def validation(self) -> Validation:
        """For one epoch."""


class Scores(Protocol):
    """Final figures of one split."""

    @property
    def images(self) -> int:
        """How many were scored."""

    def to_json(self) -> dict[str, Any]:
        """``{"metrics": {…}, "per_class": […]}``."""


class Task(Protocol):
    """A task: how its data are read, learned from, and scored.

    Attributes:
        name: as ``--task`` and models' cards have it.
        watched: what ``metrics.csv`` has of it as ``train_NAME`` and ``val_NAME``, in plain words, the most telling
            first; losses apart.
    """

    name: str
    watched: Mapping[str, str]

    def settle(self, config: TrainingConfig) -> TrainingConfig:
        """The configuration with the task's own defaults filled in.

        Raises:
            UsageError: an option is for other tasks.
        """

    def read(self, data: Path, strict: bool = False) -> LabelledData:
        """The samples of a data set.

        Raises:
            DataError: it has none; or, if ``strict``, one of its files is wrong.
        """

    def check(
        self,
        splits: Mapping[str, Sequence[Any]],
        classes: Sequence[str],
        progress: Callable[[int, int], None] | None,
    ) -> Findings:
        """Open the pictures; nothing is raised for what is found.

        Args:
            splits: samples by the name of their split.
            classes: the data set's.
            progress: called now and then with the number of pictures opened and of all.
        """

    def prepare(self, config: TrainingConfig, model: Model, metadata: ModelMetadata) -> ModelMetadata:
        """Make a new network ready to learn, and say how it wants its images.

        Raises:
            ModelError: it is not for this task.
        """

    def refuse(
        self,
        config: TrainingConfig,
        model: Model,
        phases: Sequence[Phase],
        classes: Sequence[str],
        splits: Splits[Any],
    ) -> None:
        """Report wrong options before a folder is made; raises :class:`~hubel.errors.HubelError`."""

    def learning(
        self, config: TrainingConfig, samples: Sequence[Any], metadata: ModelMetadata, device: torch.device
    ) -> Objective:
        """What a run on these training samples minimizes and watches."""

    def images(self, config: TrainingConfig, preprocessing: Preprocessing, side: int) -> SampleImages:
        """Batches for a network with this preprocessing, whose training images are ``side`` pixels high."""

    def features(
        self,
        config: TrainingConfig,
        metadata: ModelMetadata,
        side: int,
        samples: Sequence[Any],
        images: RunImages,
        learning: Objective,
    ) -> FeatureCache | None:
        """What stands in for the images while the head alone learns, where ``learning`` has ``fixed_features``."""

    def merit(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """What makes an epoch, a row of ``metrics.csv``, better than another: more is better, the first counts most."""

    def answer(self, output: Any, metadata: ModelMetadata) -> np.ndarray:
        """What is kept of the raw output of N images: float32 (N, :meth:`answer_width`)."""

    def answer_width(self, classes: int) -> int:
        """Numbers that are kept of an image."""

    def scores(self, answers: Answers, metadata: ModelMetadata) -> Scores:
        """The final figures."""

    def table(self, scores: Any) -> str:
        """The figures as a person reads them, several lines."""

    def rows(self, answers: Answers, metadata: ModelMetadata) -> list[dict[str, Any]]:
        """The lines of ``predictions.jsonl``."""

    def transforms(self, config: TrainingConfig) -> list[str]:
        """The augmentations in words, in the order in which they are applied."""

    def mistakes(self, answers: Answers, metadata: ModelMetadata) -> Sequence[Mistake] | Sequence[DetectionMistake]:
        """The worst, worst first."""

    def sheet(
        self, samples: Sequence[Any], preprocessing: Preprocessing, config: TrainingConfig
    ) -> list[AugmentationSample]:
        """A few training images and what augmentation makes of them."""
