"""The cache of decoded images or features between epochs: in memory, on disk, or none."""

from __future__ import annotations

import mmap
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from hubel.analysis.memory_advice import free_host_memory
from hubel.analysis.table import format_bytes
from hubel.data.image_io import read_size
from hubel.data.loader import PixelCache, disk_block, memory_block
from hubel.data.samples import Sample
from hubel.errors import ImageError
from hubel.tasks.base import CachedShape, Shape
from hubel.weights.local_cache import cache_folder

# Fractions of the free space: small by default, large on request.
_FRACTION, _FRACTION_ON_REQUEST = 0.25, 0.75


def allocate_block(size: int, mode: str, trainings: int = 1) -> tuple[mmap.mmap | None, str]:
    """A block of ``size`` bytes within the budget.

    Args:
        size: in bytes.
        mode: ``"auto"`` takes up to a quarter of the free memory, else up to a quarter of the free space on the
            cache folder's disk; ``"ram"`` and ``"disk"`` up to three quarters of the one; ``"none"`` nothing.
        trainings: processes on this machine that need as much.

    Returns:
        The block, or ``None`` if it does not fit; and where it is, or why there is none, as the end of a sentence.
    """
    fraction = _FRACTION if mode == "auto" else _FRACTION_ON_REQUEST
    obstacles = []
    for kind in ("ram", "disk") if mode == "auto" else (mode,):
        location, take = _LOCATIONS[kind]
        try:
            allowed = int(fraction * _free(kind) / trainings)
            if size <= allowed:
                return take(size), f"{location}, {format_bytes(size)}"
            obstacles.append(f"more than the {format_bytes(allowed)} allowed {location}")
        except OSError as error:
            obstacles.append(f"and there is no room {location} ({error.strerror or error})")
    return None, f"they take {format_bytes(size)}, {', '.join(obstacles)}"


def _free(kind: str) -> int:
    if kind == "ram":
        return free_host_memory().free
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    return shutil.disk_usage(folder).free


def _folder() -> Path:
    return cache_folder().parent


_LOCATIONS: dict[str, tuple[str, Callable[[int], mmap.mmap]]] = {
    "ram": ("in memory", memory_block),
    "disk": ("on disk", lambda size: disk_block(size, _folder())),
}


def make_image_caches(
    parts: Sequence[tuple[Sequence[Sample], CachedShape]], mode: str, trainings: int = 1
) -> tuple[list[PixelCache | None], str]:
    """A cache for each part of a data set, all of them or none, and a sentence on where they are.

    A part is images and the shape (H, W, C) that is cached of each; or a function of an upright image's width and
    height, which are then read from the files. The rest is as in :func:`allocate_block`.
    """
    if mode == "none":
        return [None for _ in parts], ""
    shapes = [
        [_shape(sample.path, kept) for sample in samples] if callable(kept) else [kept] * len(samples)
        for samples, kept in parts
    ]
    block, where = allocate_block(sum(PixelCache.needed(part) for part in shapes), mode, trainings)
    if block is None:
        return [None for _ in parts], f"images are decoded in every epoch: {where}"
    caches: list[PixelCache | None] = []
    start = 0
    for part in shapes:
        caches.append(PixelCache(memoryview(block)[start : start + PixelCache.needed(part)], part))
        start += PixelCache.needed(part)
    return caches, f"decoded images are cached {where}"


def _shape(path: Path, shape_of: Callable[[int, int], Shape]) -> Shape:
    try:
        return shape_of(*read_size(path))
    except ImageError:  # removed since the check
        return 0, 0, 0
