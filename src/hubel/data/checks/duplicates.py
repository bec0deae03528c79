"""Pictures that are there twice: the same bytes, or nearly the same to look at."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from hubel.data.checks.findings import Finding
from hubel.data.checks.image_scan import ImageInfo
from hubel.data.checks.perceptual_hash import close_pairs

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


Placed = tuple[str, Path]
"""A picture and its split."""


def same_pictures(placed: Sequence[Placed]) -> tuple[list[Finding], set[Path]]:
    """Findings of pictures with the same bytes, one for each copy, and the copies.

    Args:
        placed: readable pictures.
    """
    found, copies = [], set()
    for (split, path), *others in identical(placed, lambda each: each[1]):
        for other_split, other in others:
            kind = "same" if split == other_split else "same-elsewhere"
            found.append(_finding(kind, (split, path), (other_split, other), "the same bytes"))
            copies.add(other)
    return found, copies


def near_pictures(placed: Sequence[Placed], looks: Mapping[Path, ImageInfo]) -> Iterator[Finding]:
    """Pictures that look nearly the same: each is told of once for a picture in each split that it resembles.

    Args:
        placed: readable pictures, of which none is a copy of another.
        looks: at them.
    """
    able = [(split, path, print_) for split, path in placed if (print_ := looks[path].print) is not None]
    names = list(dict.fromkeys(split for split, *_ in able))
    split_of = np.array([names.index(split) for split, *_ in able], int)
    told = np.zeros((len(able), len(names)), bool)
    for firsts, seconds, bits in close_pairs([print_ for *_, print_ in able]):
        # A film of a thousand frames makes half a million pairs.
        _, places = np.unique(seconds * len(names) + split_of[firsts], return_index=True)
        for at in np.sort(places).tolist():
            first, second = int(firsts[at]), int(seconds[at])
            if not told[second, split_of[first]]:
                told[second, split_of[first]] = True
                (split, path, _), (other_split, other, _) = able[first], able[second]
                kind = "near" if split == other_split else "near-elsewhere"
                how = f"{bits[at]} of 64 bits of their hashes differ"
                yield _finding(kind, (split, path), (other_split, other), how)


def _finding(kind: str, one: Placed, other: Placed, how: str) -> Finding:
    where = f"in {one[0]} and {other[0]}" if one[0] != other[0] else f"in {one[0]}"
    return Finding(kind, f"{where}: {how}.", one[0], one[1], other=other[1], other_split=other[0])
