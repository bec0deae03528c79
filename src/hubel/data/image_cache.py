"""Pixels kept from one epoch to the next, so that an image is decoded once.

They lie in one block of memory that processes forked later share: whichever of them decodes an image writes it into its
place, and all find it there. Nothing is copied to them and nothing is pickled. The block is memory proper, or a
file without a name on a disk; it is gone with the last process that uses it, however that ends.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

_STEP = 16 << 20


class PixelCache:
    """Arrays of uint8 by index, each in a place of its own in a block of memory.

    Args:
        block: of at least :meth:`needed` bytes, zero at the beginning.
        shapes: (H, W, C) of each; of no pixels where it is not to be kept.
    """

    def __init__(self, block: mmap.mmap | memoryview, shapes: Sequence[tuple[int, int, int]]) -> None:
        self._shapes = np.array(shapes, np.int32).reshape(-1, 3)
        ends = np.cumsum(self._shapes.prod(1, dtype=np.int64))
        self._starts = ends - self._shapes.prod(1, dtype=np.int64)
        whole = np.frombuffer(block, np.uint8)
        self._pixels = whole[: ends[-1] if len(ends) else 0]
        self._there = whole[len(self._pixels) : len(self._pixels) + len(self._shapes)]

    @staticmethod
    def needed(shapes: Sequence[tuple[int, int, int]]) -> int:
        """Bytes for arrays of these shapes, and a mark for each that says whether it is there."""
        return int(np.array(shapes, np.int64).reshape(-1, 3).prod(1).sum()) + len(shapes)

    def get(self, index: int) -> np.ndarray | None:
        """The array of this index, not to be written to; ``None`` where it has not been kept yet."""
        return self._place(index) if self._there[index] else None

    def put(self, index: int, pixels: np.ndarray) -> None:
        """Keep an array; one of another shape than was announced is not kept."""
        place = self._place(index)
        if pixels.size and pixels.shape == place.shape:
            place[:] = pixels
            self._there[index] = 1  # last: whoever is killed while writing leaves no half image

    def _place(self, index: int) -> np.ndarray:
        height, width, channels = self._shapes[index].tolist()
        start = int(self._starts[index])
        return self._pixels[start : start + height * width * channels].reshape(height, width, channels)


def memory_block(size: int) -> mmap.mmap:
    """Memory of ``size`` bytes that forked processes share.

    Raises:
        OSError: there is not that much.
    """
    return mmap.mmap(-1, max(1, size))


def disk_block(size: int, folder: Path) -> mmap.mmap:
    """As :func:`memory_block`, in a nameless file whose disk space is taken at once.

    Taken later, page by page, a disk that gets full would end the process without a word.

    Args:
        size: bytes.
        folder: whose disk it is on; it is made where it does not exist.

    Raises:
        OSError: the disk is full, or the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder, prefix=".pixels.") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, max(1, size))
        else:
            for start in range(0, max(1, size), _STEP):
                file.write(bytes(min(_STEP, max(1, size) - start)))
            file.flush()
        return mmap.mmap(file.fileno(), max(1, size))
