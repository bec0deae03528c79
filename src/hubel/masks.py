"""Masks as COCO run lengths, and polygons: geometry, area, rasterization.

Coordinates are pixels from the image's upper left corner, x to the right and y down; the first pixel spans 0 to 1.
A polygon is a flat tuple ``x, y, x, y, …``, closed by itself. Run lengths are those of the COCO API: column by column,
lengths of zeros and ones in turn, zeros first, compressed to text (common/maskApi.c; Lin, Dollár).
"""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Box = tuple[float, float, float, float]
"""``x1, y1, x2, y2``."""

Polygon = tuple[float, ...]
"""A closed polygon, ``x, y`` after ``x, y``; the last point is joined to the first."""

MAX_PIXELS = 178_956_970
"""Pixels of the largest mask, and of the largest image that is read; Pillow has the same limit."""

_MAX_OUTLINE = 4_000_000
"""Pixels along an outline that is rasterized; only forged ones are longer."""

_MAX_GROUP = 9  # characters of a number in compressed run lengths: 45 bits
_CIRCLE_CORNERS = 64


@dataclass(frozen=True, slots=True)
class RunLengthMask:
    """A mask of an image of ``height`` × ``width`` pixels; ``counts`` are run lengths as COCO's compressed text."""

    height: int
    width: int
    counts: str

    def to_coco(self) -> dict[str, Any]:
        """COCO's ``{"size": [height, width], "counts": text}``."""
        return {"size": [self.height, self.width], "counts": self.counts}


class Outline(NamedTuple):
    """The object inside any of the polygons and outside all holes; the numbers may be in compact arrays."""

    polygons: tuple[Sequence[float], ...]
    holes: tuple[Sequence[float], ...] = ()


Shape = Outline | RunLengthMask
"""The pixels of an object, as a file describes them."""


def shape_mask(shape: Shape, height: int, width: int) -> RunLengthMask:
    """A shape in an image of ``height`` × ``width`` pixels, as the COCO API rasterizes it.

    Raises:
        ValueError: as :func:`rasterized`, or a mask is of another size than the image.
    """
    if not isinstance(shape, RunLengthMask):
        return rasterized(*shape, height, width)
    if (shape.height, shape.width) != (height, width):
        raise ValueError(f"a mask is {shape.width} × {shape.height}, its image {width} × {height}")
    return shape


def scale_shape(shape: Shape, x: float, y: float, height: int, width: int) -> Shape:
    """A shape in its image scaled by ``x`` and ``y``, to ``height`` × ``width`` pixels."""
    if isinstance(shape, RunLengthMask):
        rows, columns = (
            (np.arange(new) * old + old // 2) // new for new, old in ((height, shape.height), (width, shape.width))
        )
        return encode(decode(shape)[rows[:, None], columns])
    factors = np.array([x, y])
    return Outline(*(tuple(_scaled(each, factors) for each in part) for part in shape))


def _scaled(polygon: Sequence[float], factors: np.ndarray) -> array[float]:
    return array("d", (np.asarray(polygon).reshape(-1, 2) * factors).ravel())


def _coco() -> Any:
    from faster_coco_eval import mask  # 0.1 s to import

    return mask


def encode(pixels: np.ndarray) -> RunLengthMask:
    """Run lengths of pixels (H, W), bool or 0 and 1."""
    height, width = pixels.shape
    rle = _coco().encode(np.asarray(pixels, dtype=np.uint8, order="F"))
    return RunLengthMask(height, width, rle["counts"].decode("ascii"))


def encode_part(pixels: np.ndarray, left: int, top: int, height: int, width: int) -> RunLengthMask:
    """Run lengths of an image of ``height`` × ``width`` pixels that has ``pixels`` (h, w) at ``left, top``.

    Takes the time and memory of the part, not of the image. Raises :class:`ValueError` as :func:`check_size`, or if the
    part extends beyond the image.
    """
    check_size(height, width)
    h, w = pixels.shape
    if min(left, top) < 0 or left + w > width or top + h > height:
        raise ValueError(f"a mask of {w}×{h} at {left}, {top} extends beyond its image")
    padded = np.zeros((w, h + 2), dtype=bool)
    padded[:, 1:-1] = pixels.T
    # Where runs of each column begin and end, in turn.
    columns, rows = divmod(np.flatnonzero(padded[:, 1:] != padded[:, :-1]), h + 1)
    return encode_runs((left + columns) * height + top + rows, height, width)


def encode_runs(bounds: np.ndarray, height: int, width: int) -> RunLengthMask:
    """Run lengths of a mask from where its runs of pixels begin and end, in turn, column by column.

    ``bounds`` are int (2 · runs,), ascending positions in the image's pixels; runs that touch are joined, and empty
    ones left out.
    """
    starts, ends = bounds[::2], bounds[1::2]
    bounds = bounds[np.repeat(starts < ends, 2)]
    apart = np.repeat(bounds[1:-1:2] != bounds[2::2], 2)
    if len(bounds):
        bounds = bounds[np.concatenate(([True], apart, [True]))]
    if not len(bounds) or bounds[-1] < height * width:
        bounds = np.append(bounds, height * width)
    lengths = np.diff(bounds, prepend=0).tolist()
    rle = _coco().frPyObjects({"size": [height, width], "counts": lengths}, height, width)
    return RunLengthMask(height, width, rle["counts"].decode("ascii"))


def decode(mask: RunLengthMask) -> np.ndarray:
    """Pixels of a mask, (H, W) bool."""
    pixels: np.ndarray = _coco().decode(mask.to_coco()).astype(bool)
    return pixels


def decode_part(mask: RunLengthMask) -> tuple[np.ndarray, int, int]:
    """The smallest part of a mask that has all its pixels, (h, w) bool, and where it begins: x and y.

    Takes the time and memory of the columns with pixels, not of the image.
    """
    runs = mask_runs(mask)
    runs = runs[runs[:, 0] < runs[:, 1]]
    if not len(runs):
        return np.zeros((0, 0), bool), 0, 0
    left, right = int(runs[0, 0]) // mask.height, (int(runs[-1, 1]) - 1) // mask.height + 1
    bounds = runs.ravel() - left * mask.height
    lengths = np.diff(bounds, prepend=0, append=(right - left) * mask.height)
    inside = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(-1, mask.height)
    rows = np.flatnonzero(inside.any(0))
    return inside[:, rows[0] : rows[-1] + 1].T, left, int(rows[0])


def mask_area(mask: RunLengthMask) -> int:
    """Number of pixels in a mask."""
    return int(_coco().area(mask.to_coco()))


def mask_box(mask: RunLengthMask) -> Box:
    """Smallest box around the pixels; all zeros for an empty mask."""
    x, y, w, h = _coco().toBbox(mask.to_coco()).tolist()
    return x, y, x + w, y + h


def parse_mask(height: int, width: int, counts: str | Sequence[int]) -> RunLengthMask:
    """A mask from a file's run lengths, compressed or as a list of numbers.

    Raises:
        ValueError: the lengths do not add up to ``height × width``, or the image is too large for a mask.
    """
    check_size(height, width)
    lengths = _decode_counts(counts).tolist() if isinstance(counts, str) else list(counts)
    if not all(isinstance(length, int) and length >= 0 for length in lengths) or sum(lengths) != height * width:
        raise ValueError(f"a mask's run lengths do not add up to {width}×{height} pixels")
    if isinstance(counts, str):
        return RunLengthMask(height, width, counts)
    rle = _coco().frPyObjects({"size": [height, width], "counts": lengths}, height, width)
    return RunLengthMask(height, width, rle["counts"].decode("ascii"))


def _decode_counts(text: str) -> np.ndarray:
    """Run lengths of a compressed text: groups of five bits, least first, as differences to the one two before.

    faster_coco_eval reads a text without checking it; a forged one would make it write beyond its memory.
    """
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.int64) - 48
    if not codes.size:
        return codes
    ends = codes & 32 == 0  # of the groups
    starts = np.concatenate(([0], np.flatnonzero(ends[:-1]) + 1))
    sizes = np.diff(starts, append=codes.size)
    wrong = (codes < 0) | (codes >= 64) | np.repeat(sizes > _MAX_GROUP, sizes)
    if wrong.any():
        raise ValueError(f"a mask's run lengths are not COCO's compressed text (at {text[int(wrong.argmax())]!r})")
    if not ends[-1]:
        raise ValueError("a mask's run lengths end in the middle of a number")
    places = np.arange(codes.size) - np.repeat(starts, sizes)
    lengths = np.add.reduceat((codes & 31) << (5 * places), starts)
    lengths -= np.where(codes[starts + sizes - 1] & 16, 1 << (5 * sizes), 0)
    if np.abs(lengths).max() > MAX_PIXELS:
        raise ValueError("a mask's run lengths are longer than any image")
    for first in (1, 2):  # the first length stands alone
        lengths[first::2] = lengths[first::2].cumsum()
    return lengths


def rasterize(
    polygons: Iterable[Sequence[float]], holes: Iterable[Sequence[float]], height: int, width: int
) -> np.ndarray:
    """Pixels inside any polygon and outside all holes, (H, W) bool, exactly as COCO rasterizes them.

    Raises:
        ValueError: the image is too large for a mask, or an outline too long to be that of an object.
    """
    check_size(height, width)
    pixels: np.ndarray = _rasterize(polygons, height, width) & ~_rasterize(holes, height, width)
    return pixels


def rasterized(
    polygons: Iterable[Sequence[float]], holes: Sequence[Sequence[float]], height: int, width: int
) -> RunLengthMask:
    """As :func:`rasterize`, as run lengths; without holes in the time and memory of the outlines, not of the image."""
    check_size(height, width)
    if holes:
        return encode(rasterize(polygons, holes, height, width))
    if (rle := _filled(polygons, height, width)) is None:
        return encode(np.zeros((height, width), dtype=bool))
    return RunLengthMask(height, width, rle["counts"].decode("ascii"))


def mask_runs(mask: RunLengthMask) -> np.ndarray:
    """Where the runs of pixels begin and end, int (runs, 2), in the image's pixels column by column."""
    ends = _decode_counts(mask.counts).cumsum()
    return ends[: len(ends) // 2 * 2].reshape(-1, 2)


def _rasterize(polygons: Iterable[Sequence[float]], height: int, width: int) -> np.ndarray:
    if (rle := _filled(polygons, height, width)) is None:
        return np.zeros((height, width), dtype=bool)
    pixels: np.ndarray = _coco().decode(rle).astype(bool)
    return pixels


def _filled(polygons: Iterable[Sequence[float]], height: int, width: int) -> dict[str, Any] | None:
    """Pixels inside any polygon as the library's run lengths; ``None`` without polygons."""
    flat = [list(map(float, polygon)) for polygon in polygons]
    check_outlines(flat)
    if not flat:
        return None
    coco = _coco()
    found = coco.frPyObjects(flat, height, width)
    rle: dict[str, Any] = found[0] if len(found) == 1 else coco.merge(found)
    return rle


def check_outlines(polygons: Iterable[Sequence[float]]) -> None:
    """Raise :class:`ValueError` for outlines too long to be those of objects, which would take hours to rasterize."""
    for polygon in polygons:
        points = np.asarray(polygon).reshape(-1, 2)
        if np.abs(np.diff(points, axis=0, append=points[:1])).max(axis=1).sum() > _MAX_OUTLINE:
            raise ValueError("an outline is millions of pixels long")


def check_size(height: int, width: int) -> None:
    """Raise :class:`ValueError` for images without pixels, or with more than :data:`MAX_PIXELS`."""
    if not 0 < height * width <= MAX_PIXELS:
        raise ValueError(f"a mask of {width}×{height} pixels is not possible")


def bounding_box(polygons: Iterable[Polygon]) -> Box:
    """Smallest box around polygons."""
    flat = tuple(itertools.chain.from_iterable(polygons))
    return min(flat[::2]), min(flat[1::2]), max(flat[::2]), max(flat[1::2])


def box_to_polygon(x1: float, y1: float, x2: float, y2: float) -> Polygon:
    """A box as a polygon, clockwise from its upper left corner."""
    return x1, y1, x2, y1, x2, y2, x1, y2


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> Polygon:
    """A polygon of 64 corners on an ellipse around ``(x, y)``, rotated clockwise; its area is 0.2 % smaller."""
    points: list[float] = []
    for index in range(_CIRCLE_CORNERS):
        angle = 2 * math.pi * index / _CIRCLE_CORNERS
        points += x + rx * math.cos(angle), y + ry * math.sin(angle)
    return rotate(points, degrees, x, y)


def rotate(polygon: Sequence[float], degrees: float, x: float, y: float) -> Polygon:
    """A polygon rotated clockwise around ``(x, y)``."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points: list[float] = []
    for px, py in zip(polygon[::2], polygon[1::2], strict=True):
        points += x + (px - x) * cos - (py - y) * sin, y + (px - x) * sin + (py - y) * cos
    return tuple(points)


def merge_polygons(polygons: Sequence[Polygon]) -> Polygon:
    """Several polygons as one: a seam without width leads from the first one's start to each other one and back.

    A polygon within another becomes a hole where areas are filled by the even-odd rule, as COCO and most programs do.
    """
    first, *others = polygons
    if not others:
        return first
    start = first[:2]
    points = [*first, *start]
    for polygon in others:
        points += (*polygon, *polygon[:2], *start)
    return tuple(points)


def polygon_area(polygon: Polygon) -> float:
    """Area in square pixels (shoelace formula)."""
    xs, ys = polygon[::2], polygon[1::2]
    return abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))) / 2


def clip_polygon(polygon: Polygon, width: float, height: float) -> Polygon:
    """The part of a polygon inside an image; empty if there is none.

    Sutherland and Hodgman's algorithm (1974): one edge of the image after another. Parts that become separate stay
    joined by lines along the edge.
    """
    points = list(zip(polygon[::2], polygon[1::2], strict=True))
    for axis, limit, sign in ((0, 0.0, 1), (0, float(width), -1), (1, 0.0, 1), (1, float(height), -1)):
        clipped: list[tuple[float, float]] = []
        for before, point in zip(points[-1:] + points[:-1], points, strict=True):
            is_inside = sign * (point[axis] - limit) >= 0
            if is_inside != (sign * (before[axis] - limit) >= 0):
                fraction = (limit - before[axis]) / (point[axis] - before[axis])
                other = before[1 - axis] + fraction * (point[1 - axis] - before[1 - axis])
                clipped.append((limit, other) if axis == 0 else (other, limit))
            if is_inside:
                clipped.append(point)
        points = clipped
    return tuple(itertools.chain.from_iterable(points))
