"""Text files that list images, one per line, as sources of ``predict``."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from hubel.data import file_kinds

_SUFFIX = ".txt"
_LONGEST_LINE = 8192  # bytes
_MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def list_file(source: str) -> Path | None:
    """The file of a source that is a list, ``list.txt`` or ``@list``; ``None`` for other sources."""
    path = Path(source)
    if source.startswith("@") and not _is_file(path):
        path = Path(source[1:])
        return path if _is_file(path) else None
    if path.suffix.lower() != _SUFFIX or not _is_file(path):
        return None
    prefix = file_kinds.prefix_of(path)  # images may have any name
    return None if file_kinds.is_image(prefix) or file_kinds.is_video(prefix) else path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def listed_sources(file: Path) -> Iterator[tuple[int, str]]:
    """The number of each line, from 1, and the source that it names: relative names are beside the list, or here.

    Empty lines and lines of comment (``# …``) are passed over. The file is read while iterating. Raises OSError, and
    UnicodeError for text that is neither UTF-8 nor UTF-16.
    """
    with file.open("rb") as stream:
        start = stream.read(4)
    encoding = next((name for mark, name in _MARKS.items() if start.startswith(mark)), "utf-8")
    with file.open(encoding=encoding, errors="surrogateescape" if encoding == "utf-8" else "strict") as lines:
        number = 0
        while line := lines.readline(_LONGEST_LINE):
            number += 1
            name = line.strip()
            if not name or name.startswith("# "):
                continue
            beside = file.parent / name
            yield number, str(beside) if "://" not in name and _exists(beside) else name


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def why_unreadable(error: OSError | UnicodeError) -> str:
    """What an error of :func:`listed_sources` means."""
    return getattr(error, "strerror", None) or "it is not text in UTF-8 or UTF-16"
