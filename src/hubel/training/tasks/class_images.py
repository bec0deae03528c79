"""Batches of pixels with a class each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from hubel.data.image_cache import PixelCache
from hubel.data.image_folder import Sample
from hubel.data.loader import LabelledImages, LoadedBatch
from hubel.data.preprocessing import Preprocessing
from hubel.data.transforms.pipeline import TrainTransform
from hubel.training.cache_budget import KeptShape


class ClassImages:
    """See :class:`hubel.training.task.DatasetFactory`.

    Args:
        pixels: of training images.
        preprocessing: of validation images.
        seed: of the run.
    """

    def __init__(self, pixels: TrainTransform, preprocessing: Preprocessing, seed: int) -> None:
        self._pixels, self._preprocessing, self._seed = pixels, preprocessing, seed

    def kept_shapes(self) -> tuple[KeptShape, KeptShape]:
        """What is kept of a training and of a validation image between epochs."""
        pixels, size = self._pixels, self._preprocessing
        of_training: KeptShape = pixels.fixed_shape if pixels.crops else pixels.fixed_shape(1, 1)
        return of_training, (size.height, size.width, size.channels)

    def training(self, samples: Sequence[Sample], cache: PixelCache | None) -> LabelledImages:
        """Images that change at random, by keys (epoch, index)."""
        return self._of(samples, self._pixels, self._pixels.changed, cache)

    def validation(self, samples: Sequence[Sample], cache: PixelCache | None) -> LabelledImages:
        """Images as for prediction."""
        return self._of(samples, self._preprocessing, cache=cache)

    def stand_in(self, images: int) -> LoadedBatch:
        """Black ones, all of the first class."""
        height, width, channels = self._pixels.shape
        pixels = torch.zeros(images, channels, height, width, dtype=torch.uint8)
        return LoadedBatch(pixels, torch.zeros(images, dtype=torch.int64), torch.full((images,), -1))

    def unchanged(self, samples: Sequence[Sample], as_predicted: bool) -> LabelledImages:
        """Images without random changes: as for prediction, or at the size that they train at."""
        return self._of(samples, self._preprocessing if as_predicted else self._pixels)

    def _of(
        self,
        samples: Sequence[Sample],
        size: TrainTransform | Preprocessing,
        change: Callable[..., Any] | None = None,
        cache: PixelCache | None = None,
    ) -> LabelledImages:
        paths, labels = [sample.path for sample in samples], [sample.label for sample in samples]
        pixels = size.pixels if isinstance(size, Preprocessing) else size.fixed
        return LabelledImages(paths, labels, pixels, self._seed, change, cache, size.reduction)
