"""What a classifier of windows learns from: crops with an object in the middle, and without."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hubel.config import TrainingConfig
from hubel.data.image_cache import PixelCache
from hubel.data.loader import ObjectBatch
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import ObjectSample, Targets
from hubel.data.transforms.object_pipeline import ObjectPixels
from hubel.data.transforms.window_sampler import WindowCrops
from hubel.models.detection.sliding_window import SlidingWindowConfig
from hubel.tasks.windows import window_terms
from hubel.training.cache_budget import KeptShape
from hubel.training.tasks.box_images import BoxImages
from hubel.training.tasks.detection_learning import DetectionLearning, ObjectLabels

WINDOWS = "sliding_window"


def with_window_size(config: TrainingConfig) -> TrainingConfig:
    """The configuration with training images of the window's size."""
    window = config.options.get("window", SlidingWindowConfig().window)
    return replace(config, training_size=int(window))


class WindowLearning(DetectionLearning):
    """See :class:`hubel.training.task.Objective`: the windows of a training crop are one, of a whole picture all."""

    def terms(self, output: tuple[Tensor, Tensor], labels: ObjectLabels) -> dict[str, Tensor]:
        """Of what the windows show, and of the offsets of those that show an object."""
        return self._judged(output, labels)[0]

    def sums(self, output: tuple[Tensor, Tensor], labels: ObjectLabels) -> dict[str, float]:
        """How many crops are rightly told apart, of those that count."""
        return {"windows": float(self._judged(output, labels)[1]) * len(labels.targets)}

    def _judged(self, output: tuple[Tensor, Tensor], labels: ObjectLabels) -> tuple[dict[str, Tensor], Tensor]:
        scores, offsets = output
        windows = self.anchors(*labels.size).to(scores.device)
        return window_terms(scores, offsets, windows, labels.targets)


class WindowImages(BoxImages):
    """Crops of a window's size to train on, whole pictures to validate.

    Args:
        preprocessing: of whole pictures.
        window: side in pixels.
        config: of the run.
    """

    def __init__(self, preprocessing: Preprocessing, window: int, config: TrainingConfig) -> None:
        whole = ObjectPixels(preprocessing)
        super().__init__(whole, whole, config.seed)
        self._preprocessing, self._window, self._run = preprocessing, window, config

    def kept_shapes(self) -> tuple[KeptShape, KeptShape]:
        """Whole pictures, stretched to the network's input."""
        return self._validation.shape, self._validation.shape

    def training(self, samples: Sequence[ObjectSample], cache: PixelCache | None) -> WindowCrops:  # type: ignore[override]
        """Several crops of each picture, by keys (epoch, index)."""
        names = self._run.augmentation
        return WindowCrops(samples, self._preprocessing, self._window, names, self._seed, cache=cache)

    def stand_in(self, images: int) -> ObjectBatch:
        """Black crops, each with an object of the first class that fills it."""
        side = float(self._window)
        fills = Targets(torch.tensor([[0.0, 0.0, side, side]]), torch.zeros(1, dtype=torch.int64))
        shape = (images, self._preprocessing.channels, self._window, self._window)
        return ObjectBatch(torch.zeros(shape, dtype=torch.uint8), images * [fills], torch.full((images,), -1))
