"""Every picture opened once: can it be read, how large is it, how is it turned, what does it look like.

Pictures are decoded to their end, so damage is found, but JPEGs at a part of their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hubel.data.checks.perceptual_hash import SIDE, Fingerprint, fingerprint
from hubel.data.image_io import read_image, read_reduced, read_size, read_stored_size
from hubel.errors import DataError, ImageError
from hubel.system import cpu_count

_CHUNK = 64


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What one look at a picture file tells.

    Attributes:
        fault: why it cannot be read, a sentence that names it; empty for a sound picture.
        width: of the upright picture in pixels; 0 if it cannot be read.
        height: likewise.
        orientation: EXIF's, 1..8.
        print: its fingerprint; ``None`` where it shows next to nothing.
    """

    message: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    print: Fingerprint | None = None


def scan_image(path: Path) -> ImageInfo:
    """Look at one picture; nothing is raised for what is wrong with it."""
    try:
        *_, orientation = read_stored_size(path)
        seen = read_reduced(path, lambda width, height: min(width, height) / (2 * SIDE))
    except ImageError as error:
        return ImageInfo(error.message)
    return ImageInfo("", seen.width, seen.height, orientation, fingerprint(seen.image))


def scan_images(
    paths: Sequence[Path], progress: Callable[[int, int], None] | None = None, threads: int | None = None
) -> dict[Path, ImageInfo]:
    """Look at many pictures.

    Args:
        paths: of the pictures.
        progress: called now and then with the number of pictures seen and of all.
        threads: that decode; the number of cores, at most 8, by default.
    """
    looks: dict[Path, ImageInfo] = {}
    with ThreadPoolExecutor(threads or min(8, cpu_count())) as pool:
        for start in range(0, len(paths), _CHUNK):
            some = paths[start : start + _CHUNK]
            looks.update(zip(some, pool.map(scan_image, some), strict=True))
            if progress is not None:
                progress(len(looks), len(paths))
    return looks


DECODED_WHOLE = 5000
"""How many pictures are decoded whole: some 5 s a core at 1 ms each."""

_SHOWN = 5
_readability_CHUNK = 100  # a million futures at once would take a gigabyte


def try_pictures(
    paths: Sequence[Path], progress: Callable[[int, int], None] | None = None, threads: int | None = None
) -> dict[Path, tuple[int, int] | str]:
    """Open every picture; nothing is raised for what is found.

    Every header is read. Up to :data:`DECODED_WHOLE` pictures are decoded whole as well, of larger sets an even sample
    of as many, for damage that the header does not show.

    Args:
        paths: of the pictures.
        progress: called now and then with the number of pictures opened and of all.
        threads: that decode; the number of cores, at most 8, by default.

    Returns:
        By path the width and height of the upright picture, or the sentence, naming it, that says why it cannot be
        read.
    """
    step = max(1, -(-len(paths) // DECODED_WHOLE))
    found: dict[Path, tuple[int, int] | str] = {}

    def tried(place: int) -> tuple[int, int] | str:
        try:
            return read_image(paths[place]).size if place % step == 0 else read_size(paths[place])
        except ImageError as error:
            return error.message

    with ThreadPoolExecutor(threads or min(8, cpu_count())) as pool:
        for start in range(0, len(paths), _readability_CHUNK):
            places = range(start, min(start + _readability_CHUNK, len(paths)))
            found.update(zip((paths[place] for place in places), pool.map(tried, places), strict=True))
            if progress is not None:
                progress(places.stop, len(paths))
    return found


def left_out(reasons: Sequence[str]) -> list[str]:
    """What a person is told of pictures that cannot be read: the first ones, and how many more."""
    lines = [f"{reason} Left out." for reason in reasons[:_SHOWN]]
    if len(reasons) > _SHOWN:
        lines.append(f"{len(reasons) - _SHOWN} more pictures cannot be read and are left out.")
    return lines


def refuse_unreadable(reasons: Sequence[str]) -> None:
    """For ``--strict``: stop at pictures that cannot be read.

    Raises:
        DataError: there is one.
    """
    if reasons:
        more = len(reasons) - 1
        message = reasons[0] + (f" So are {more} more." if more else "")
        raise DataError(message, "Repair or remove the pictures, or run without --strict.")
