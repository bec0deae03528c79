"""Batches of pixels and boxes, decoded and changed by worker processes while the network computes.

As in :mod:`hubel.data.loading`, what a sample looks like depends on the seed, the epoch and its index alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hubel.data.loading import DecodedImages, seed_for
from hubel.data.objects.augmentation import LabelledPixels, ObjectPixels
from hubel.data.objects.sets import ObjectSample
from hubel.data.objects.targets import Targets
from hubel.data.pixel_cache import PixelCache


@dataclass(frozen=True)
class ObjectBatch:
    """What a loader of :class:`ObjectImages` gives.

    Attributes:
        pixels: uint8 (N, C, H, W) in channels-last memory; N may be 0 where no image of the batch could be read.
        targets: of each image; boxes in pixels of ``pixels``. Crowds are left out.
        indices: int64 (N,), positions in the data set.
    """

    pixels: Tensor
    targets: list[Targets]
    indices: Tensor


class ObjectImages(Dataset[ObjectBatch]):
    """Images from disk with their objects, for the loader that :func:`hubel.data.loading.batches` makes.

    An image that cannot be read is left out of its batch; a mosaic with one becomes a single image.

    Args:
        samples: readable ones.
        pixels: how they are changed; one without names for validation.
        seed: of the run; the random changes of an image are seeded from it, the epoch and the index.
        cache: keeps what is the same in every epoch; of the shapes that ``pixels.fixed_shape`` tells.
    """

    def __init__(
        self, samples: Sequence[ObjectSample], pixels: ObjectPixels, seed: int, cache: PixelCache | None = None
    ) -> None:
        self._samples = [sample.only(~sample.crowd) for sample in samples]
        self._pixels = pixels
        self._seed = seed
        self._decoded = DecodedImages([sample.path for sample in samples], pixels.fixed, cache, pixels.reduction)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> ObjectBatch:
        """The batch of these keys (epoch, index); the loader asks for whole batches."""
        height, width, channels = self._pixels.shape
        pixels = np.empty((len(keys), height, width, channels), np.uint8)
        targets: list[Targets] = []
        indices: list[int] = []
        for epoch, index in keys:
            own = self._picture(index)
            if own is None:
                continue
            seed = seed_for(self._seed, "pixels", epoch, index)
            others = [self._picture(other) for other in self._pixels.partners(seed, len(self))]
            together = [own, *(other for other in others if other is not None)]
            changed = self._pixels.changed(together if len(together) == 4 else [own], seed)
            pixels[len(indices)] = changed.pixels
            targets.append(Targets(torch.from_numpy(changed.boxes), torch.from_numpy(changed.labels)))
            indices.append(index)
        # Stacked rows of pixels are channels-last as they come.
        batch = torch.from_numpy(pixels[: len(indices)]).permute(0, 3, 1, 2)
        return ObjectBatch(batch, targets, torch.tensor(indices, dtype=torch.int64))

    def _picture(self, index: int) -> LabelledPixels | None:
        pixels, sample = self._decoded(index), self._samples[index]
        if pixels is None:
            return None
        return self._pixels.labelled(pixels, sample.boxes, sample.labels, sample.width, sample.height)
