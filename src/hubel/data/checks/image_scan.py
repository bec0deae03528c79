"""Open every image once: whether it can be read, its size, its EXIF orientation, its fingerprint.

Images are decoded to their end, so damage is found, but JPEGs at reduced size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hubel.data.checks.duplicates import SIDE, Fingerprint, fingerprint
from hubel.data.image_io import read_image, read_reduced, read_size, read_stored_size
from hubel.errors import DataError, ImageError
from hubel.system import cpu_count

DECODED_WHOLE = 5000
"""Number of images that are decoded whole: about 5 s per core at 1 ms each."""

_CHUNK = 100
"""Images per batch of futures; a million at once would take a gigabyte."""

_SHOWN = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """An image file.

    Attributes:
        message: why it cannot be read, a sentence that names it; empty for an intact image.
        width: of the upright image in pixels; 0 if it cannot be read.
        height: of the upright image in pixels, or 0.
        orientation: EXIF's, 1..8.
        fingerprint: ``None`` for an image of nearly uniform grey.
    """

    message: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    fingerprint: Fingerprint | None = None


def scan_image(path: Path) -> ImageInfo:
    """Open one image; errors are returned, not raised."""
    try:
        *_, orientation = read_stored_size(path)
        reduced = read_reduced(path, lambda width, height: min(width, height) / (2 * SIDE))
    except ImageError as error:
        return ImageInfo(error.message)
    return ImageInfo("", reduced.width, reduced.height, orientation, fingerprint(reduced.image))


def scan_images(
    paths: Sequence[Path], progress: Callable[[int, int], None] | None = None, threads: int | None = None
) -> dict[Path, ImageInfo]:
    """Open many images.

    Args:
        paths: of the images.
        progress: called regularly with the number of images opened and of all.
        threads: that decode; the number of cores, at most 8, by default.
    """
    infos = _in_threads(lambda index: scan_image(paths[index]), len(paths), progress, threads)
    return dict(zip(paths, infos, strict=True))


def _in_threads(
    function: Callable[[int], T], count: int, progress: Callable[[int, int], None] | None, threads: int | None
) -> Iterator[T]:
    """Results of a function of each index, in order."""
    with ThreadPoolExecutor(threads or min(8, cpu_count())) as pool:
        for start in range(0, count, _CHUNK):
            end = min(start + _CHUNK, count)
            yield from pool.map(function, range(start, end))
            if progress is not None:
                progress(end, count)


def verify_images(
    paths: Sequence[Path], progress: Callable[[int, int], None] | None = None, threads: int | None = None
) -> dict[Path, tuple[int, int] | str]:
    """Open every image; errors are returned, not raised.

    Every header is read. Up to :data:`DECODED_WHOLE` images are also decoded whole, of larger sets an even sample of as
    many, to find damage that the header does not show.

    Args:
        paths: of the images.
        progress: called regularly with the number of images opened and of all.
        threads: that decode; the number of cores, at most 8, by default.

    Returns:
        By path the width and height of the upright image, or a sentence, naming it, why it cannot be read.
    """
    step = max(1, -(-len(paths) // DECODED_WHOLE))

    def size_of(index: int) -> tuple[int, int] | str:
        try:
            return read_image(paths[index]).size if index % step == 0 else read_size(paths[index])
        except ImageError as error:
            return error.message

    return dict(zip(paths, _in_threads(size_of, len(paths), progress, threads), strict=True))


def left_out(reasons: Sequence[str]) -> list[str]:
    """Lines about images that cannot be read: the first ones, and how many more."""
    lines = [f"{reason} Left out." for reason in reasons[:_SHOWN]]
    if len(reasons) > _SHOWN:
        lines.append(f"{len(reasons) - _SHOWN} more images cannot be read and are left out.")
    return lines


def refuse_unreadable(reasons: Sequence[str]) -> None:
    """For ``--strict``: raise if images cannot be read.

    Raises:
        DataError: there is one.
    """
    if reasons:
        more = len(reasons) - 1
        message = reasons[0] + (f" {more} more cannot be read either." if more else "")
        raise DataError(message, "Repair or remove the images, or run without --strict.")
