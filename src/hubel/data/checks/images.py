"""Check images: whether they can be read, their size and EXIF orientation, and duplicates.

Every image is opened once and decoded to its end, so damage is found, but JPEGs at reduced size.

Duplicates have the same bytes, or a similar perceptual hash and similar grey values. The hash: the image is reduced to
32 × 32 grey values, and the signs of the 64 lowest frequencies of its cosine transform, without the mean, make the bits
(the "pHash" of Zauner 2010, with signs instead of a median). Brightness and contrast leave the signs as they are;
coding and resizing flip a few of the weak ones. Images of one kind (microscope slides, a fixed camera) can have similar
bits too, so the grey values of two images must also correlate.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from hubel.data.checks.findings import Finding
from hubel.data.image_io import read_image, read_reduced, read_size, read_stored_size
from hubel.errors import ImageError
from hubel.system import cpu_count

DECODED_WHOLE = 5000
"""Number of images that are decoded whole: about 5 s per core at 1 ms each."""

_CHUNK = 100  # images per batch of futures; a million at once would take a gigabyte

Progress = Callable[[int, int], None]
"""Called regularly with the number of images opened and of all."""

SIDE = 32
"""Pixels of the reduced image in each direction."""

MAX_BITS = 10
"""Bits in which copies may differ: at most 7 were measured, and at least 11 for different images."""

MIN_CORRELATION = 0.9
"""Correlation of the grey values of copies; 1 for images equal but for brightness and contrast."""

# Standard deviation of grey values, of 255, below which an image has too little structure to be compared.
_MIN_DEVIATION = 3.0
_BLOCK = 1024

T = TypeVar("T")

# The orthonormal type II cosine transform of SIDE values, as a matrix.
_FREQUENCY, _POSITION = np.mgrid[:SIDE, :SIDE]
_ANGLES = np.pi * _FREQUENCY * (2 * _POSITION + 1) / (2 * SIDE)
_TRANSFORM = (np.cos(_ANGLES) * np.sqrt(np.where(_FREQUENCY, 2, 1) / SIDE)).astype(np.float32)
# The 64 lowest frequencies after the mean, by the sum of both directions, then by rows.
_LOWEST = sorted(((y, x) for y in range(SIDE) for x in range(SIDE)), key=lambda index: (sum(index), index))[1:65]
_ROWS, _COLUMNS = (np.array(axis) for axis in zip(*_LOWEST, strict=True))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Perceptual hash of an image: ``bits``, below 2⁶⁴, and ``grey``, 32 × 32 uint8 row by row."""

    bits: int
    grey: bytes


def fingerprint(image: Image.Image) -> Fingerprint | None:
    """Fingerprint of an upright image; ``None`` for one of nearly uniform grey."""
    grey = np.asarray(image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX))
    if grey.std() < _MIN_DEVIATION:
        return None
    frequencies = _TRANSFORM @ grey.astype(np.float32) @ _TRANSFORM.T
    bits = np.packbits(frequencies[_ROWS, _COLUMNS] > 0)
    return Fingerprint(int.from_bytes(bits.tobytes(), "big"), grey.tobytes())


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


def identical_files(items: Iterable[T], path_of: Callable[[T], Path]) -> list[list[T]]:
    """Groups of two or more items with the same bytes in their files: by size, then by their beginning, then whole."""
    groups = [list(items)]
    keys: tuple[Callable[[Path], object], ...] = (
        lambda path: path.stat().st_size,
        lambda path: _digest(path, 16384),
        _digest,
    )
    for key in keys:
        subgroups: list[list[T]] = []
        for group in groups:
            by_key: dict[object, list[T]] = defaultdict(list)
            for item in group:
                by_key[key(path_of(item))].append(item)
            subgroups += [members for members in by_key.values() if len(members) > 1]
        groups = subgroups
    return groups


def _digest(path: Path, length: int | None = None) -> bytes:
    with path.open("rb") as file:
        if length is not None:
            return hashlib.blake2b(file.read(length)).digest()
        return hashlib.file_digest(file, "blake2b").digest()


def similar_pairs(prints: Sequence[Fingerprint]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs of similar images, many at a time: their indices, the smaller first, and the number of differing bits.

    Every pair is compared: on one core about 0.2 s for 10,000 images that all differ, 8 s if they are a film of one
    scene, and a hundred times as long for 100,000.
    """
    bits = np.array([one.bits for one in prints], np.uint64)
    for start in range(0, len(bits), _BLOCK):
        differing = np.bitwise_count(bits[start : start + _BLOCK, None] ^ bits[None, start:])
        rows, columns = np.nonzero(differing <= MAX_BITS)
        rows, columns = rows[rows < columns], columns[rows < columns]
        firsts, row_of = np.unique(rows, return_inverse=True)
        seconds, column_of = np.unique(columns, return_inverse=True)
        greys, others = (_standardized([prints[start + i] for i in indices]) for indices in (firsts, seconds))
        similar = (greys @ others.T >= MIN_CORRELATION)[row_of, column_of]
        rows, columns = rows[similar], columns[similar]
        if len(rows):
            yield start + rows, start + columns, differing[rows, columns]


def _standardized(prints: Sequence[Fingerprint]) -> np.ndarray:
    """Grey values (N, SIDE²) of mean 0 and length 1: the product of two rows is their correlation."""
    grey = np.frombuffer(b"".join(one.grey for one in prints), np.uint8).reshape(-1, SIDE * SIDE).astype(np.float32)
    grey -= grey.mean(1, keepdims=True)
    lengths = np.sqrt((grey**2).sum(1, keepdims=True))
    np.divide(grey, lengths, out=grey, where=lengths > 0)
    return grey


def identical_findings(images: Sequence[tuple[str, Path]]) -> list[Finding]:
    """Findings of readable images, each with its split, that have the same bytes."""
    groups = identical_files(images, lambda image: image[1])
    return [copy_finding("same", first, other, "the same bytes") for first, *others in groups for other in others]


def similar_findings(images: Sequence[tuple[str, Path, Fingerprint | None]]) -> Iterator[Finding]:
    """Findings of images, each with its split, that look nearly the same: one per image and split that it resembles."""
    comparable = [(split, path, print_) for split, path, print_ in images if print_ is not None]
    names = list(dict.fromkeys(split for split, *_ in comparable))
    split_of = np.array([names.index(split) for split, *_ in comparable], int)
    reported = np.zeros((len(comparable), len(names)), bool)
    for firsts, seconds, bits in similar_pairs([print_ for *_, print_ in comparable]):
        # A film of a thousand frames makes half a million pairs.
        _, candidates = np.unique(seconds * len(names) + split_of[firsts], return_index=True)
        for index in np.sort(candidates).tolist():
            first, second = int(firsts[index]), int(seconds[index])
            if not reported[second, split_of[first]]:
                reported[second, split_of[first]] = True
                reason = f"{bits[index]} of 64 bits of their hashes differ"
                yield copy_finding("near", comparable[first][:2], comparable[second][:2], reason)


def copy_finding(kind: str, one: tuple[str, Path], other: tuple[str, Path], reason: str) -> Finding:
    """Finding of two images, each with its split, that are equal or similar, in one split or in two."""
    where = f"in {one[0]} and {other[0]}" if one[0] != other[0] else f"in {one[0]}"
    kind = kind if one[0] == other[0] else f"{kind}-elsewhere"
    return Finding(kind, f"{where}: {reason}", one[0], one[1], other=other[1], other_split=other[0])
