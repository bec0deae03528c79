"""Open every image once: whether it can be read, its size, its EXIF orientation, its fingerprint.

Images are decoded to their end, so damage is found, but JPEGs at reduced size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hubel.data.checks.duplicates import SIDE, Fingerprint, fingerprint
from hubel.data.image_io import read_image, read_reduced, read_size, read_stored_size
from hubel.errors import ImageError
from hubel.system import cpu_count

DECODED_WHOLE = 5000
"""Number of images that are decoded whole: about 5 s per core at 1 ms each."""

_CHUNK = 100
"""Images per batch of futures; a million at once would take a gigabyte."""

Progress = Callable[[int, int], None]
"""Called regularly with the number of images opened and of all."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image file.

    Attributes:
        message: why it cannot be read, a sentence that names it; empty for an intact image.
        width: of the upright image in pixels; 0 if it cannot be read, as is ``height``.
        orientation: EXIF's, 1..8.
        fingerprint: ``None`` for an image of nearly uniform grey.
    """

    message: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    fingerprint: Fingerprint | None = None


def scan_images(paths: Sequence[Path], progress: Progress | None = None) -> dict[Path, ImageInfo]:
    """Open many images; errors are returned, not raised."""

    def scan(index: int, path: Path) -> ImageInfo:
        try:
            orientation = read_stored_size(path)[2]
            reduced = read_reduced(path, lambda width, height: min(width, height) / (2 * SIDE))
        except ImageError as error:
            return ImageInfo(error.message)
        return ImageInfo("", reduced.width, reduced.height, orientation, fingerprint(reduced.image))

    return _in_threads(scan, paths, progress)


def verify_images(paths: Sequence[Path], progress: Progress | None = None) -> dict[Path, tuple[int, int] | str]:
    """Width and height of every upright image, or a sentence, naming it, why it cannot be read.

    Every header is read. Up to :data:`DECODED_WHOLE` images are also decoded whole, of larger sets an even sample of as
    many, to find damage that the header does not show.
    """
    step = max(1, -(-len(paths) // DECODED_WHOLE))

    def size_of(index: int, path: Path) -> tuple[int, int] | str:
        try:
            return read_image(path).size if index % step == 0 else read_size(path)
        except ImageError as error:
            return error.message

    return _in_threads(size_of, paths, progress)


def _in_threads(function: Callable[[int, Path], T], paths: Sequence[Path], progress: Progress | None) -> dict[Path, T]:
    """Results of a function of the index and path of each image."""
    results: dict[Path, T] = {}
    with ThreadPoolExecutor(min(8, cpu_count())) as pool:
        for start in range(0, len(paths), _CHUNK):
            chunk = paths[start : start + _CHUNK]
            results |= zip(chunk, pool.map(function, range(start, start + len(chunk)), chunk), strict=True)
            if progress is not None:
                progress(start + len(chunk), len(paths))
    return results
