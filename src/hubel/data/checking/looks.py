"""Every picture opened once: can it be read, how large is it, how is it turned, what does it look like.

Pictures are decoded to their end, so damage is found, but JPEGs at a part of their size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hubel.data.checking.fingerprints import SIDE, Fingerprint, fingerprint
from hubel.data.image_io import read_reduced, read_stored_size
from hubel.errors import ImageError

_CHUNK = 64


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a picture file tells.

    Attributes:
        fault: why it cannot be read, a sentence that names it; empty for a sound picture.
        width: of the upright picture in pixels; 0 if it cannot be read.
        height: likewise.
        orientation: EXIF's, 1..8.
        print: its fingerprint; ``None`` where it shows next to nothing.
    """

    fault: str = ""
    width: int = 0
    height: int = 0
    orientation: int = 1
    print: Fingerprint | None = None


def look_at(path: Path) -> Look:
    """Look at one picture; nothing is raised for what is wrong with it."""
    try:
        *_, orientation = read_stored_size(path)
        seen = read_reduced(path, lambda width, height: min(width, height) / (2 * SIDE))
    except ImageError as error:
        return Look(error.fault)
    return Look("", seen.width, seen.height, orientation, fingerprint(seen.image))


def look_at_all(
    paths: Sequence[Path], progress: Callable[[int, int], None] | None = None, threads: int | None = None
) -> dict[Path, Look]:
    """Look at many pictures.

    Args:
        paths: of the pictures.
        progress: called now and then with the number of pictures seen and of all.
        threads: that decode; the number of cores, at most 8, by default.
    """
    looks: dict[Path, Look] = {}
    with ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(paths), _CHUNK):
            some = paths[start : start + _CHUNK]
            looks.update(zip(some, pool.map(look_at, some), strict=True))
            if progress is not None:
                progress(len(looks), len(paths))
    return looks
