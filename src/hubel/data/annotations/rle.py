"""Masks as COCO run lengths, and polygons drawn into them exactly as COCO's own code draws them.

A mask is told column by column as lengths of zeros and ones in turn. The compressed text writes each length, less
the one two before it, in groups of five bits, least first, as characters from ``0`` on; a sixth bit says that more
follow. Source: common/maskApi.c of the COCO API (Lin, Dollár).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from hubel.data.annotations.polygons import surface
from hubel.data.annotations.records import Annotation, Box, RunLengthMask
from hubel.data.image_io import MAX_PIXELS

_STEPS = 5
"""COCO traces polygons on a grid five times as fine as the pixels."""

_LONGEST = 20_000_000
"""Steps of an outline, in all, that are walked; only forged ones are longer."""


def decode_counts(text: str) -> list[int]:
    """The lengths that a compressed text tells.

    Raises:
        ValueError: it ends in the middle of a number or has characters that no such text has.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift > 40:
            raise ValueError(f"a mask's run lengths are no COCO text (at {character!r})")
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("a mask's run lengths end in the middle of a number")
    return lengths


def encode_counts(lengths: Sequence[int]) -> str:
    """The compressed text of lengths."""
    characters: list[str] = []
    for place, length in enumerate(lengths):
        value = length - lengths[place - 2] if place > 2 else length
        more = True
        while more:
            code = value & 31
            value >>= 5
            more = value != (-1 if code & 16 else 0)
            characters.append(chr(code + (32 if more else 0) + 48))
    return "".join(characters)


def checked_mask(height: int, width: int, counts: str | Sequence[int]) -> RunLengthMask:
    """A mask from a file's lengths, compressed or as a list of numbers.

    Raises:
        ValueError: the lengths do not add up to ``height × width``, or the picture is too large for a mask.
    """
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"a mask of {width}×{height} pixels is none")
    lengths = decode_counts(counts) if isinstance(counts, str) else list(counts)
    if not all(isinstance(length, int) and length >= 0 for length in lengths) or sum(lengths) != height * width:
        raise ValueError(f"a mask's run lengths do not add up to {width}×{height} pixels")
    return RunLengthMask(height, width, counts if isinstance(counts, str) else encode_counts(lengths))


def encode(mask: np.ndarray) -> RunLengthMask:
    """From pixels, (H, W) bool or 0 and 1."""
    height, width = mask.shape
    flat = np.asarray(mask, dtype=bool).ravel(order="F")
    return RunLengthMask(height, width, encode_counts(runs(flat)))


def runs(flat: np.ndarray) -> list[int]:
    """Lengths of zeros and ones in turn, zeros first, of a row of bools."""
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    edges = np.concatenate(([0], changes, [flat.size]))
    lengths = np.diff(edges).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def decode(mask: RunLengthMask) -> np.ndarray:
    """The pixels, (H, W) bool."""
    lengths = np.asarray(decode_counts(mask.counts), dtype=np.int64)
    values = np.arange(lengths.size) % 2 == 1
    return np.repeat(values, lengths).reshape((mask.height, mask.width), order="F")


def area(mask: RunLengthMask) -> int:
    """The number of pixels."""
    return sum(decode_counts(mask.counts)[1::2])


def box(mask: RunLengthMask) -> Box:
    """The smallest box around the pixels; all zeros where there are none."""
    pixels = decode(mask)
    columns, rows = np.flatnonzero(pixels.any(axis=0)), np.flatnonzero(pixels.any(axis=1))
    if not columns.size:
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def draw(polygons: Iterable[Sequence[float]], holes: Iterable[Sequence[float]], height: int, width: int) -> np.ndarray:
    """The pixels that polygons enclose and holes do not, (H, W) bool.

    Raises:
        ValueError: the picture is too large for a mask, or an outline too long to be one of a picture.
    """
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"a mask of {width}×{height} pixels is none")
    pixels = np.zeros((height, width), dtype=bool)
    for ring in polygons:
        pixels |= _inside(ring, height, width)
    for ring in holes:
        pixels &= ~_inside(ring, height, width)
    return pixels


def _inside(ring: Sequence[float], height: int, width: int) -> np.ndarray:
    """The pixels that one polygon encloses, by maskApi.c's ``rleFrPoly``.

    Its edges are walked in steps on the fine grid; where the walk enters another column of pixels, the row is
    noted. Reading a column downwards, every note switches between outside and inside.
    """
    # Casts to integers cut towards zero, as C's do.
    points = (_STEPS * np.asarray(ring, dtype=np.float64).reshape(-1, 2) + 0.5).astype(np.int64)
    ends = np.roll(points, -1, axis=0)
    if np.abs(ends - points).max(axis=1).sum() > _LONGEST:
        raise ValueError("an outline is millions of pixels long")
    walked = [_walk(*edge) for edge in zip(points.tolist(), ends.tolist(), strict=True)]
    u, v = (np.concatenate(parts) for parts in zip(*walked, strict=True))
    moved = np.flatnonzero(u[1:] != u[:-1]) + 1
    x = (np.where(u[moved] < u[moved - 1], u[moved], u[moved] - 1) + 0.5) / _STEPS - 0.5
    noted = (np.floor(x) == x) & (x >= 0) & (x <= width - 1)
    columns = x[noted].astype(np.int64)
    pixels = np.zeros((height, width), dtype=bool)
    if columns.size:
        y = (np.minimum(v[moved], v[moved - 1])[noted] + 0.5) / _STEPS - 0.5
        rows = np.ceil(np.clip(y, 0, height)).astype(np.int64)
        first, last = columns.min(), columns.max()
        inside = np.bincount((columns - first) * height + rows, minlength=(last + 1 - first) * height) & 1
        inside = np.bitwise_xor.accumulate(inside[: (last + 1 - first) * height].astype(np.uint8))
        pixels[:, first : last + 1] = inside.reshape((height, -1), order="F")
    return pixels


def _walk(start: list[int], end: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Points of the fine grid from ``start`` to ``end``, a step of one along the longer direction."""
    (xs, ys), (xe, ye) = start, end
    dx, dy = abs(xe - xs), abs(ye - ys)
    flip = (dx >= dy and xs > xe) or (dx < dy and ys > ye)
    if flip:
        xs, xe, ys, ye = xe, xs, ye, ys
    steps = np.arange(max(dx, dy) + 1)
    if flip:
        steps = steps[::-1]
    if dx >= dy:
        return steps + xs, (ys + (ye - ys) / max(dx, 1) * steps + 0.5).astype(np.int64)
    return (xs + (xe - xs) / dy * steps + 0.5).astype(np.int64), steps + ys


def covered(thing: Annotation) -> float:
    """The area of an object in pixels: as its file says, else of its mask, its polygons or its box."""
    if thing.area is not None:
        return thing.area
    if thing.mask is not None:
        return float(area(thing.mask))
    if thing.polygons:
        return sum(map(surface, thing.polygons)) - sum(map(surface, thing.holes))
    x1, y1, x2, y2 = thing.box
    return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)
