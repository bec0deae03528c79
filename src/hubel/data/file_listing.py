"""The files below a folder, in the order in which a person would list them."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from hubel.errors import DataError

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".avif"}
    | {".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".apng", ".mpo", ".jps"}
    # Telephones' HEIC needs an extra: without it, it is named, as passing over it in silence would lose images; so is
    # JPEG XL, which is not read.
    | {".heic", ".heif", ".hif", ".heics", ".heifs", ".avifs", ".jxl"}
)
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".qt", ".avi", ".divx", ".mkv", ".webm", ".mpg", ".mpeg", ".m1v", ".m2v", ".vob"}
    | {".mts", ".m2ts", ".m2t", ".wmv", ".asf", ".flv", ".f4v", ".ogv", ".ogm", ".3gp", ".3g2", ".mxf", ".rm", ".rmvb"}
    | {".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265", ".hevc", ".ivf", ".y4m", ".nut", ".dv", ".amv", ".wtv"}
)


# What systems, file servers and editors add to folders, by case-folded name; names that begin with a dot need no entry.
_SYSTEM_NAMES = frozenset(
    {"__macosx", "icon\r", "network trash folder", "temporary items"}  # macOS
    | {"$recycle.bin", "system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"}  # Windows
    | {"@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"}  # Synology, QNAP
    | {"lost+found", "__pycache__"}
)

OUTPUT_MARK = ".hubel"
"""Name of an empty file in folders of annotated images, which nothing else tells from folders of images."""

DATA_MARK = ".hubel-data"
"""Name of an empty file in data sets that hubel wrote: inside another data set, one is most likely a copy of it."""

_MOST_RUNS = 1000


def natural_order(name: str) -> list[tuple[int, str] | str]:
    """Sort key that puts ``2.jpg`` before ``10.jpg``; names that differ only in zeros or case stay apart."""
    parts = re.split(r"(\d+)", name.casefold())  # text and digits in turn, text first and last
    # Without leading zeros, (length, digits) compare like numbers of any size.
    key: list[tuple[int, str] | str] = [
        (len(part.lstrip("0")), part.lstrip("0")) if index % 2 else part for index, part in enumerate(parts)
    ]
    return [*key, (0, ""), name]


def files_below(
    folder: Path, on_error: Callable[[Path, OSError], None] | None = None, seen: set[tuple[int, int]] | None = None
) -> Iterator[Path]:
    """All files below a folder: its own first, in natural order, then those of each of its folders.

    Hidden files and folders, and those that systems add (see :func:`is_shown`), are left out, and so are folders that
    hubel wrote (see :func:`is_own_output`), unless ``folder`` itself is one. Links are followed; a
    folder that is reached twice is read once, so links that lead in circles end. Broken links are yielded as files.
    Only the names of one folder per level are in memory.

    A folder that cannot be listed raises :class:`DataError`, or, if there is ``on_error``, is passed to it with the
    reason, and the walk continues. ``seen`` are device and inode of the folders that have been reached.
    """
    seen = set() if seen is None else seen
    try:
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            return
        seen.add((status.st_dev, status.st_ino))
        files, folders = _listed(folder)
    except OSError as error:
        if on_error is None:
            raise not_listed(folder, error) from error
        on_error(folder, error)
        return
    for name in files:
        yield folder / name
    for name in folders:
        if is_own_output(folder / name):
            continue
        yield from files_below(folder / name, on_error, seen)


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """The names of a folder's files and of its folders, in natural order."""
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if not is_shown(entry.name):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself: reading it as a file gives the error
                is_folder = False
            (folders if is_folder else files).append(entry.name)
    return sorted(files, key=natural_order), sorted(folders, key=natural_order)


def not_listed(folder: Path, error: OSError) -> DataError:
    """The error of a folder that cannot be listed."""
    message = f"{folder} cannot be listed: {error.strerror or error}"
    return DataError(message, "make it readable (chmod +rx)")


def is_shown(name: str) -> bool:
    """True unless a file or folder is hidden, or one that a system or a file server adds.

    Hidden are names that begin with a dot: ``._a.jpg`` (AppleDouble), ``.DS_Store``, ``.ipynb_checkpoints``.
    """
    return not name.startswith(".") and name.casefold() not in _SYSTEM_NAMES


def is_own_output(folder: Path) -> bool:
    """True if hubel wrote a folder: a run, a saved or exported model, annotated images, or a folder of such folders.

    In a data set, such a folder is not data.
    """
    try:
        inside = [path for path in folder.iterdir() if path.name == OUTPUT_MARK or is_shown(path.name)]
        if _is_marked([path.name for path in inside]):
            return True
        # Folders of data hold files, or more folders than are worth looking into.
        if not 0 < len(inside) <= _MOST_RUNS or not all(path.is_dir() for path in inside):
            return False
        return all(_is_marked([path.name for path in run.iterdir()]) for run in inside)
    except OSError:
        return False


def is_written_data(folder: Path) -> bool:
    """True for a data set that hubel wrote, and for a folder of such data sets."""
    if (folder / DATA_MARK).exists():
        return True
    try:
        inside = [path for path in folder.iterdir() if is_shown(path.name)]
        return 0 < len(inside) <= _MOST_RUNS and all((path / DATA_MARK).exists() for path in inside)
    except OSError:
        return False


def _is_marked(names: Collection[str]) -> bool:
    """True if the names of a folder's files are those of something that hubel wrote."""
    if OUTPUT_MARK in names or "model.json" in names:
        return True
    return "config.yaml" in names and any(
        name in names for name in ("splits.json", "metrics.csv", "best", "last", "study.db")
    )


def composed(name: str) -> str:
    """A name with each letter as one character (NFC): Macs write ``é`` as two, other systems as one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def listing(names: Sequence[str], shown: int = 5) -> str:
    """``a, b, c``, and how many more there are."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
