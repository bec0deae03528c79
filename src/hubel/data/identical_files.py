"""Files with the same bytes, found without reading more than needs be."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

Thing = TypeVar("Thing")


def identical(things: Iterable[Thing], path_of: Callable[[Thing], Path]) -> list[list[Thing]]:
    """Groups of two or more with the same bytes in their files: by size, then by their beginnings, then whole.

    Args:
        things: whatever has a file.
        path_of: tells which.
    """
    groups = [list(things)]
    keys: tuple[Callable[[Path], object], ...] = (
        lambda path: path.stat().st_size,
        lambda path: _digest(path, 16384),
        _digest,
    )
    for key in keys:
        finer: list[list[Thing]] = []
        for group in groups:
            by_key: dict[object, list[Thing]] = defaultdict(list)
            for thing in group:
                by_key[key(path_of(thing))].append(thing)
            finer += [members for members in by_key.values() if len(members) > 1]
        groups = finer
    return groups


def _digest(path: Path, length: int | None = None) -> bytes:
    with path.open("rb") as file:
        if length is not None:
            return hashlib.blake2b(file.read(length)).digest()
        return hashlib.file_digest(file, "blake2b").digest()
