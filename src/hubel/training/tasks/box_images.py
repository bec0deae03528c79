"""Batches of pixels with boxes."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hubel.data.image_cache import PixelCache
from hubel.data.loader import ObjectBatch, ObjectImages
from hubel.data.samples import ObjectSample, Targets
from hubel.data.transforms.object_pipeline import ObjectPixels
from hubel.training.cache_budget import KeptShape


class BoxImages:
    """See :class:`hubel.training.task.DatasetFactory`.

    Args:
        training: how training images are changed.
        validation: without changes.
        seed: of the run.
    """

    def __init__(self, training: ObjectPixels, validation: ObjectPixels, seed: int) -> None:
        self._training, self._validation, self._seed = training, validation, seed

    def kept_shapes(self) -> tuple[KeptShape, KeptShape]:
        """What is kept of a training and of a validation image between epochs."""
        pixels = self._training
        return pixels.fixed_shape if pixels.crops else pixels.shape, self._validation.shape

    def training(self, samples: Sequence[ObjectSample], cache: PixelCache | None) -> ObjectImages:
        """Images that change at random, by keys (epoch, index)."""
        return ObjectImages(samples, self._training, self._seed, cache)

    def validation(self, samples: Sequence[ObjectSample], cache: PixelCache | None) -> ObjectImages:
        """Images as for prediction."""
        return ObjectImages(samples, self._validation, self._seed, cache)

    def stand_in(self, images: int) -> ObjectBatch:
        """Black ones, each with an object of the first class in the middle."""
        height, width, channels = self._training.shape
        middle = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * torch.tensor([width, height, width, height])
        targets = [Targets(middle, torch.zeros(1, dtype=torch.int64)) for _ in range(images)]
        pixels = torch.zeros(images, channels, height, width, dtype=torch.uint8)
        return ObjectBatch(pixels, targets, torch.full((images,), -1))
