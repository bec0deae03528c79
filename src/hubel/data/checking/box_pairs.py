"""Boxes of one picture that are nearly one another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hubel.data.annotations.records import Box, LabelledObject

SAME_BOX = 0.95
"""Intersection over union above which two boxes are of one object."""

_LONGEST_WALK = 300
"""Boxes that begin at about the same x and are compared; more only in forged files."""


def overlap(a: Box, b: Box) -> float:
    """Intersection over union, 0..1; 0 for boxes without area."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    if shared == 0:
        return 0.0
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def overlaps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """:func:`overlap` of each box of (N, 4) with each of (M, 4): (N, M)."""
    sides = np.minimum(one[:, None, 2:], other[None, :, 2:]) - np.maximum(one[:, None, :2], other[None, :, :2])
    shared = sides.clip(min=0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None] - shared
    ratios: np.ndarray = np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)
    return ratios


def doubled(objects: Sequence[LabelledObject]) -> Iterator[tuple[int, int, float]]:
    """Places of an object and of one before it whose boxes are nearly the same, and their overlap.

    Of several that are, an object of the same class is named first. Crowds are left out: they lie over objects.
    """
    places = [at for at, thing in enumerate(objects) if not thing.crowd]
    places.sort(key=lambda at: objects[at].box[0])
    best: dict[int, tuple[bool, float, int]] = {}
    for number, at in enumerate(places):
        box = objects[at].box
        # Where an overlap is above 0.95, left edges differ by less than a nineteenth of either width.
        reach = (box[2] - box[0]) * (1 / SAME_BOX - 1)
        for other in reversed(places[max(0, number - _LONGEST_WALK) : number]):
            if box[0] - objects[other].box[0] > reach:
                break
            if (share := overlap(box, objects[other].box)) > SAME_BOX:
                first, second = sorted((at, other))
                found = (objects[first].label == objects[second].label, share, first)
                best[second] = max(best.get(second, found), found)
    for second, (_, share, first) in sorted(best.items()):
        yield second, first, share


def equal(a: Box, b: Box) -> bool:
    """Whether no edge of two boxes is half a pixel or more apart."""
    return all(abs(one - other) < 0.5 for one, other in zip(a, b, strict=True))
