"""Outlines of shapes that are no polygons, and polygons of several parts as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hubel.data.annotations.records import Polygon

_CORNERS_OF_A_CIRCLE = 64


def ellipse(x: float, y: float, rx: float, ry: float, degrees: float = 0.0) -> Polygon:
    """A polygon of 64 corners on an ellipse around ``(x, y)``, turned clockwise; 0.2 % smaller than it."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points: list[float] = []
    for place in range(_CORNERS_OF_A_CIRCLE):
        angle = 2 * math.pi * place / _CORNERS_OF_A_CIRCLE
        a, b = rx * math.cos(angle), ry * math.sin(angle)
        points += x + a * cos - b * sin, y + a * sin + b * cos
    return tuple(points)


def turned(ring: Sequence[float], degrees: float, x: float, y: float) -> Polygon:
    """A polygon turned clockwise around ``(x, y)``."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    points: list[float] = []
    for px, py in zip(ring[::2], ring[1::2], strict=True):
        points += x + (px - x) * cos - (py - y) * sin, y + (px - x) * sin + (py - y) * cos
    return tuple(points)


def corners(x1: float, y1: float, x2: float, y2: float) -> Polygon:
    """A box as a polygon, clockwise from its upper left corner."""
    return x1, y1, x2, y1, x2, y2, x1, y2


def joined(rings: Sequence[Polygon]) -> Polygon:
    """Several polygons as one: from the first's start a seam without width leads to each other one and back.

    Where one lies within another, filling by turns of inside and outside (as COCO and most programs do) leaves it
    open: so holes stay holes.
    """
    first, *others = rings
    if not others:
        return first
    start = first[:2]
    points = [*first, *start]
    for ring in others:
        points += [*ring, *ring[:2], *start]
    return tuple(points)


def surface(ring: Polygon) -> float:
    """What a polygon encloses, in square pixels."""
    xs, ys = ring[::2], ring[1::2]
    return abs(sum(xs[i - 1] * ys[i] - xs[i] * ys[i - 1] for i in range(len(xs)))) / 2
