"""Batches of pixels and labels, decoded by worker processes while the network computes.

The augmentation of a sample depends on the seed, the epoch and its index alone, never on the number of workers or on
what ran before: a resumed run sees the pixels that an uninterrupted one would have seen.

Pixels can be cached from one epoch to the next, so that an image is decoded once. They lie in one block of memory that
processes forked later share: whichever of them decodes an image writes it into its slot, and all find it there. Nothing
is copied to them and nothing is pickled. The block is memory proper, or a file without a name on a disk; it is gone
with the last process that uses it, however that ends.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hubel.data.image_io import read_reduced
from hubel.data.samples import Batch, Sample
from hubel.data.transforms.pipeline import Decoded, Transform
from hubel.errors import ImageError
from hubel.interrupts import leave_signals_to_parent
from hubel.system import cpu_count

_STEP = 16 << 20


def seed_for(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part: ``seed_for(run_seed, "order", epoch)``."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class PixelCache:
    """Arrays of uint8 by index, each in a slot of its own in a block of :meth:`needed` bytes, zero at the beginning.

    ``shapes`` are (H, W, C) of each array; of no pixels where it is not to be kept.
    """

    def __init__(self, block: mmap.mmap | memoryview, shapes: Sequence[tuple[int, int, int]]) -> None:
        self._shapes = np.array(shapes, np.int32).reshape(-1, 3)
        sizes = self._shapes.prod(1, dtype=np.int64)
        self._starts = np.cumsum(sizes) - sizes
        whole = np.frombuffer(block, np.uint8)
        self._pixels, self._there = np.split(whole[: self.needed(shapes)], [sizes.sum()])

    @staticmethod
    def needed(shapes: Sequence[tuple[int, int, int]]) -> int:
        """Bytes for arrays of these shapes, and a mark for each that says whether it is there."""
        return int(np.array(shapes, np.int64).reshape(-1, 3).prod(1).sum()) + len(shapes)

    def get(self, index: int) -> np.ndarray | None:
        """The array of this index, not to be written to; ``None`` where it has not been kept yet."""
        return self._slot(index) if self._there[index] else None

    def put(self, index: int, pixels: np.ndarray) -> None:
        """Keep an array; one of another shape than was announced is not kept."""
        slot = self._slot(index)
        if pixels.size and pixels.shape == slot.shape:
            slot[:] = pixels
            self._there[index] = 1  # last: a process that is killed while writing leaves no half image

    def _slot(self, index: int) -> np.ndarray:
        height, width, channels = self._shapes[index].tolist()
        start = int(self._starts[index])
        return self._pixels[start : start + height * width * channels].reshape(height, width, channels)


def memory_block(size: int) -> mmap.mmap:
    """Memory of ``size`` bytes that forked processes share; raises ``OSError`` if there is not that much."""
    return mmap.mmap(-1, max(1, size))


def disk_block(size: int, folder: Path) -> mmap.mmap:
    """As :func:`memory_block`, in a nameless file whose disk space is taken at once.

    If it were taken later, page by page, a full disk would kill the process without a message. The folder is made
    if it does not exist. Raises ``OSError`` if the disk is full, or the folder cannot be written.
    """
    size = max(1, size)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder, prefix=".pixels.") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            for start in range(0, size, _STEP):
                file.write(bytes(min(_STEP, size - start)))
            file.flush()
        return mmap.mmap(file.fileno(), size)


class BatchDataset(Dataset[Batch]):
    """Samples as batches, for the loader that :func:`make_dataloader` makes.

    An image that cannot be read is left out of its batch: it was readable when the data were checked, and one file
    that has gone since must not end hours of training. A mosaic with such an image becomes a single image.

    The random changes of an image are seeded from the run's seed, the epoch and the index. The
    cache keeps what ``transform.prepare`` gives, in the shapes of ``transform.cached_shape``. After the epoch
    ``combined_until``, no image is combined with others: a network that has learned from mosaics ends on images as it
    will see them (Ge et al. 2021, "YOLOX", arXiv 2107.08430, section 2.1).
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        transform: Transform,
        seed: int,
        cache: PixelCache | None = None,
        combined_until: int | None = None,
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed
        self._cache = cache
        self._combined_until = math.inf if combined_until is None else combined_until

    def __len__(self) -> int:
        return len(self.samples)

    def __getitems__(self, keys: Sequence[tuple[int, int]]) -> Batch:
        """The batch of these keys (epoch, index); the loader asks for whole batches."""
        with _single_threaded():
            return self._batch(keys)

    def _batch(self, keys: Sequence[tuple[int, int]]) -> Batch:
        groups: list[list[Decoded]] = []
        seeds: list[int] = []
        indices: list[int] = []
        for epoch, index in keys:
            own = self._decoded(index)
            if own is None:
                continue
            seed = seed_for(self.seed, self.transform.stream, epoch, index)
            partners = self.transform.partners(seed, len(self)) if epoch <= self._combined_until else []
            others = [self._decoded(other) for other in partners]
            groups.append([own] if None in others else [own, *(other for other in others if other is not None)])
            seeds.append(seed)
            indices.append(index)
        if not groups:
            return self.dummy_batch(0)
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
        """An image before any random change, with its labels; ``None`` where it cannot be read."""
        sample = self.samples[index]
        pixels = None if self._cache is None else self._cache.get(index)
        try:
            if pixels is None:
                read = read_reduced(sample.path, self.transform.reduction)
                pixels = self.transform.prepare(read.image, (read.width, read.height, read.scale))
                if self._cache is not None:
                    self._cache.put(index, pixels)
            class_map = None if sample.class_map is None else sample.class_map.read()
        except ImageError:
            return None
        return self.transform.decoded(pixels, sample, class_map)


@contextmanager
def _single_threaded() -> Iterator[None]:
    """Compute as the worker processes do, which have a thread each, wherever a batch is made.

    Several threads add up a mean in parts, and end their parts with other instructions than they go through them: the
    pixels of a colour change would differ in some last bits, and the losses with them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class EpochSampler(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of one epoch; set :attr:`epoch` before iterating.

    With ``shuffle`` the order is new in each epoch, decided by it and the run's seed; otherwise 0, 1, 2, … With
    ``weights`` (count,), the chance of each image, images are drawn with replacement (weighted sampling).
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
    """Leave interruptions to the parent: it ends its workers itself, without their tracebacks."""
    leave_signals_to_parent()
    torch.set_num_threads(1)


def make_dataloader(
    images: Dataset[Any],
    sampler: EpochSampler | Sequence[tuple[int, int]],
    batch: int,
    workers: int,
    drop_last: bool = False,
) -> DataLoader[Any]:
    """A loader of the data set's own batches, whose workers live as long as it does.

    The sampler gives keys (epoch, index). ``drop_last`` leaves out a last batch that is not full, unless it is the only
    one.
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


def start_workers(loader: DataLoader[Any]) -> None:
    """Fork the processes of a loader of images in order now, with nothing to do yet.

    A forked process keeps the memory of its parent as it is then: each page that the parent writes later is copied, and
    stays twice for as long as the process lives. Before the first training step that is little, after it gigabytes of
    feature maps.
    """
    sampler, context = loader.sampler, loader.multiprocessing_context
    if context is None or context.get_start_method() != "fork" or not isinstance(sampler, EpochSampler):
        return
    count, sampler.count = sampler.count, 0
    try:
        iter(loader)
    finally:
        sampler.count = count
