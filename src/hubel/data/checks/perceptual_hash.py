"""What a picture looks like, in 64 bits: nearly the same pictures are found however they were stored.

The picture is reduced to 32 × 32 grey values, and the signs of the 64 lowest frequencies of its cosine transform but
the mean make the bits (the "pHash" of Zauner 2010, with signs in place of a median). Brightness and contrast leave the
signs as they are; coding and resizing turn a few of the weak ones. Pictures of one kind (microscope slides, a fixed
camera) can have close bits too, so two are held for the same only if their grey values also agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

SIDE = 32
"""Pixels of the reduced picture in each direction."""

MOST_BITS = 10
"""Bits in which copies may differ: those measured did in at most 7, different pictures in 11 and more."""

LEAST_CORRELATION = 0.9
"""What the grey values of copies must agree in, 1 being equal but for brightness and contrast."""

_FLAT = 3.0
"""Standard deviation of grey values, of 255, under which a picture shows too little to be compared."""

_BLOCK = 1024


def _cosines() -> np.ndarray:
    """The orthonormal type II cosine transform of :data:`SIDE` values, as a matrix."""
    frequency, place = np.mgrid[:SIDE, :SIDE]
    matrix = np.cos(np.pi * frequency * (2 * place + 1) / (2 * SIDE)) * np.sqrt(2 / SIDE)
    matrix[0] /= np.sqrt(2)
    return matrix.astype(np.float32)


_TRANSFORM = _cosines()
# The 64 lowest frequencies after the mean, by the sum of both directions, then by rows.
_LOWEST = sorted(((y, x) for y in range(SIDE) for x in range(SIDE)), key=lambda at: (at[0] + at[1], at))[1:65]
_ROWS, _COLUMNS = (np.array(axis) for axis in zip(*_LOWEST, strict=True))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a picture looks like.

    Attributes:
        bits: the hash, 0 ≤ bits < 2⁶⁴.
        grey: (32 × 32) uint8, row by row.
    """

    bits: int
    grey: bytes


def fingerprint(image: Image.Image) -> Fingerprint | None:
    """The fingerprint of an upright picture; ``None`` for one of hardly more than one grey."""
    small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = np.asarray(small)
    if grey.std() < _FLAT:
        return None
    frequencies = _TRANSFORM @ grey.astype(np.float32) @ _TRANSFORM.T
    bits = np.packbits(frequencies[_ROWS, _COLUMNS] > 0)
    return Fingerprint(int.from_bytes(bits.tobytes(), "big"), grey.tobytes())


def close_pairs(
    prints: Sequence[Fingerprint], most_bits: int = MOST_BITS
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pairs that look nearly the same, many at a time: places in ``prints``, the first the smaller, and differing bits.

    Every pair is compared: on one core some 0.2 s for 10,000 pictures that all differ, 8 s where they are a film of one
    scene, and a hundred times as much for 100,000.
    """
    bits = np.array([one.bits for one in prints], np.uint64)
    for start in range(0, len(bits), _BLOCK):
        differing = np.bitwise_count(bits[start : start + _BLOCK, None] ^ bits[None, start:])
        rows, columns = np.nonzero(differing <= most_bits)
        rows, columns = rows[rows < columns], columns[rows < columns]
        firsts, row_of = np.unique(rows, return_inverse=True)
        seconds, column_of = np.unique(columns, return_inverse=True)
        greys, others = (_standardized([prints[start + at] for at in places]) for places in (firsts, seconds))
        alike = (greys @ others.T >= LEAST_CORRELATION)[row_of, column_of]
        rows, columns = rows[alike], columns[alike]
        if len(rows):
            yield start + rows, start + columns, differing[rows, columns]


def _standardized(prints: Sequence[Fingerprint]) -> np.ndarray:
    """Grey values (N, SIDE²) of mean 0 and length 1: the product of two rows is how far they rise and fall together."""
    grey = np.frombuffer(b"".join(one.grey for one in prints), np.uint8).reshape(-1, SIDE * SIDE).astype(np.float32)
    grey -= grey.mean(1, keepdims=True)
    lengths: np.ndarray = np.sqrt((grey**2).sum(1, keepdims=True))
    return np.divide(grey, lengths, out=grey, where=lengths > 0)
