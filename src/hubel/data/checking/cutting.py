"""Objects cut off at the edge of their picture."""

from __future__ import annotations

from dataclasses import replace

from hubel.data.annotations.records import Box, LabelledObject, Ring
from hubel.data.annotations.validators import around

Point = tuple[float, float]


def cut_to_picture(thing: LabelledObject, width: int, height: int) -> LabelledObject:
    """The part of an object inside a picture of that size in pixels; its box may end without area."""
    polygons = _inside(thing.polygons, width, height)
    holes = _inside(thing.holes, width, height)
    box = around(polygons) if polygons else cut_box(thing.box, width, height)
    # An area that the file gave is that of the whole object.
    return replace(thing, box=box, polygons=polygons, holes=holes, area=None)


def cut_box(box: Box, width: int, height: int) -> Box:
    """The part of a box inside a picture."""
    x1, y1, x2, y2 = box
    return min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)


def _inside(rings: tuple[Ring, ...], width: int, height: int) -> tuple[Ring, ...]:
    cut = (cut_ring(ring, width, height) for ring in rings)
    return tuple(ring for ring in cut if len(ring) >= 6)


def cut_ring(ring: Ring, width: int, height: int) -> Ring:
    """The part of a polygon inside a picture; empty if there is none.

    Sutherland and Hodgman's algorithm (1974): one edge of the picture after another. Parts that become separate stay
    joined by lines along the edge.
    """
    points = list(zip(ring[::2], ring[1::2], strict=True))
    for axis, limit, sign in ((0, 0.0, 1), (0, float(width), -1), (1, 0.0, 1), (1, float(height), -1)):
        points = _cut(points, axis, limit, sign)
    return tuple(value for point in points for value in point)


def _cut(points: list[Point], axis: int, limit: float, sign: int) -> list[Point]:
    """What lies at ``limit`` or on from it, in the direction of ``sign``, along an axis: 0 is x, 1 is y."""

    def is_inside(value: float) -> bool:
        return sign * (value - limit) >= 0

    kept: list[Point] = []
    for before, point in zip(points[-1:] + points[:-1], points, strict=True):
        if is_inside(before[axis]) != is_inside(point[axis]):
            share = (limit - before[axis]) / (point[axis] - before[axis])
            other = before[1 - axis] + share * (point[1 - axis] - before[1 - axis])
            kept.append((limit, other) if axis == 0 else (other, limit))
        if is_inside(point[axis]):
            kept.append(point)
    return kept
