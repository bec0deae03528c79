"""Batches of pixels and labels, decoded by worker processes while the network computes.

What a sample looks like depends on the seed, the epoch and its index alone, never on the number of workers or
on what ran before: a resumed run sees the pixels that an uninterrupted one would have seen.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hubel.data.image_cache import PixelCache
from hubel.data.image_io import read_reduced
from hubel.data.mask_folders import read_class_map
from hubel.data.samples import Batch, Sample
from hubel.data.transforms.pipeline import Decoded, Transform
from hubel.errors import ImageError
from hubel.system import cpu_count


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part: ``seed_for(run_seed, "order", epoch)``."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class CachedReader:
    """The pixels of images before any random change, decoded once where a cache keeps them.

    Args:
        paths: image files.
        pixels: turns an upright Pillow image into a uint8 array (H, W, C), always the same one; if it was reduced, it
            is given what :meth:`hubel.data.preprocessing.Preprocessing.pixels` calls ``original`` too.
        cache: keeps what ``pixels`` gave for the next epoch.
        reduction: how many times an image of a width and height may be reduced for it; ``None``: images come whole.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        pixels: Callable[..., np.ndarray],
        cache: PixelCache | None = None,
        reduction: Callable[[int, int], float] | None = None,
    ) -> None:
        self._paths = paths
        self._pixels = pixels
        self._cache = cache
        self._reduction = reduction or _whole

    def __call__(self, index: int) -> np.ndarray | None:
        """Those of one image, not to be written to; ``None`` where it cannot be read."""
        kept = None if self._cache is None else self._cache.get(index)
        if kept is not None:
            return kept
        try:
            read = read_reduced(self._paths[index], self._reduction)
            original = (read.width, read.height, read.scale)
            pixels = self._pixels(read.image) if read.scale == 1 else self._pixels(read.image, original)
        except ImageError:
            return None
        if self._cache is not None:
            self._cache.put(index, pixels)
        return pixels


def _whole(width: int, height: int) -> float:
    return 1.0


class BatchDataset(Dataset[Batch]):
    """Samples as batches, for the loader that :func:`make_dataloader` makes.

    An image that cannot be read is left out of its batch: it was readable when the data were checked, and one file
    that has gone since must not end hours of training. A mosaic with such an image becomes a single image.

    Args:
        samples: labelled images. Crowds do not train.
        transform: from an image and its labels to the network's input.
        seed: of the run; the random changes of an image are seeded from it, the epoch and the index.
        cache: keeps what is the same in every epoch; of the shapes that ``transform.cached_shape`` tells.
    """

    def __init__(
        self, samples: Sequence[Sample], transform: Transform, seed: int, cache: PixelCache | None = None
    ) -> None:
        self.samples = [sample.select(~sample.crowd) if sample.crowd.any() else sample for sample in samples]
        self.transform = transform
        self.seed = seed
        paths = [sample.path for sample in samples]
        self.read_pixels = CachedReader(paths, transform.prepare, cache, transform.reduction)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The batch of these keys (epoch, index); the loader asks for whole batches."""
        groups: list[list[Decoded]] = []
        seeds: list[int] = []
        indices: list[int] = []
        for epoch, index in keys:
            own = self._decoded(index)
            if own is None:
                continue
            seed = seed_for(self.seed, self.transform.stream, epoch, index)
            others = [self._decoded(other) for other in self.transform.partners(seed, len(self))]
            groups.append([own] if None in others else [own, *(other for other in others if other is not None)])
            seeds.append(seed)
            indices.append(index)
        if not groups:
            height, width, channels = self.transform.shape
            return Batch(torch.zeros(0, channels, height, width, dtype=torch.uint8), [], torch.zeros(0).long())
        pixels, targets = self.transform(groups, seeds)
        repeats = len(targets) // len(indices)
        # Stacked rows of pixels are channels-last as they come.
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        return Batch(batch, targets, torch.tensor(indices, dtype=torch.int64).repeat_interleave(repeats))

    def dummy_batch(self, images: int) -> Batch:
        """Black images that are not in the data set (indices of -1), each with a label: to time a step."""
        height, width, channels = self.transform.shape
        pixels = torch.zeros(images, channels, height, width, dtype=torch.uint8)
        return Batch(pixels, images * [self.transform.dummy_target()], torch.full((images,), -1))

    def _decoded(self, index: int) -> Decoded | None:
        pixels = self.read_pixels(index)
        if pixels is None:
            return None
        sample = self.samples[index]
        try:
            class_map = None if sample.class_map is None else read_class_map(sample.class_map)
        except ImageError:
            return None
        return self.transform.decoded(pixels, sample, class_map)


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of one epoch; set :attr:`epoch` before iterating.

    Args:
        count: number of images.
        seed: of the run.
        shuffle: a new order each epoch; otherwise 0, 1, 2, …
        weights: chance of each image to be drawn, with replacement (weighted sampling); ``None`` draws each once.
    """

    def __init__(self, count: int, seed: int, shuffle: bool, weights: Tensor | None = None) -> None:
        self.count = count
        self.seed = seed
        self.shuffle = shuffle
        self.weights = weights
        self.epoch = 0

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(seed_for(self.seed, "order", self.epoch))
        if self.weights is not None:
            order = torch.multinomial(self.weights, self.count, replacement=True, generator=generator)
        elif self.shuffle:
            order = torch.randperm(self.count, generator=generator)
        else:
            order = torch.arange(self.count)
        return ((self.epoch, index) for index in order.tolist())


def identity_collate(batch: Any) -> Any:
    """For loaders of data sets that give whole batches: nothing is left to collate."""
    return batch


def default_workers(trainings: int = 1) -> int:
    """Half of the cores, at least one, at most eight: the rest computes; ``trainings`` share the machine."""
    return max(1, min(8, cpu_count() // 2 // trainings))


def _init_worker(_: int) -> None:
    """Interruptions are the parent's to answer: it ends its workers itself, without tracebacks that frighten people.

    SIGTERM may hit the whole group of processes, so the first is the parent's. A second one comes from the parent,
    where it ends with the loader still alive: it would wait for ever for a worker that ignored it.
    """
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    torch.set_num_threads(1)


def make_dataloader(
    images: Dataset[Any],
    sampler: EpochSampler | Sequence[tuple[int, int]],
    batch: int,
    workers: int,
    drop_last: bool = False,
) -> DataLoader[Any]:
    """A loader of the data set's own batches, whose workers live as long as it does.

    The sampler gives the keys (epoch, index).

    ``drop_last`` leaves out a last batch that is not full, unless it is the only one.
    """
    return DataLoader(
        images,
        batch_size=batch,
        sampler=sampler,
        num_workers=workers,
        collate_fn=identity_collate,
        drop_last=drop_last and len(sampler) >= batch,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_init_worker if workers else None,
        # Its own generator: from the global one it would draw a number at its first epoch only, and a resumed run's
        # dropout would differ from an uninterrupted one's.
        generator=torch.Generator(),
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
