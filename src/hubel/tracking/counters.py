"""Counting tracks that cross a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Of a box's height: so far from the line a track has to be to count as on one side of it.
_MARGIN = 0.05
# Frames after which a track that has not been seen is forgotten, and between such cleanings.
_FORGOTTEN = 1000


@dataclass
class _Last:
    side: int
    x: float
    y: float
    frame: int


class LineCounter:
    """Counts tracks whose feet, the middle of the box's lower side, cross a line between two points.

    Who stands at the first point and looks at the second has a left and a right: ``in`` counts tracks that come to the
    left, ``out`` those that come to the right, as supervision's ``LineZone`` does. A track that trembles on the line
    counts once: it is on a side only when it is farther away from the line than 5 % of its height.

    Args:
        name: of the line.
        start: x, y in pixels.
        end: x, y in pixels.

    Attributes:
        into: tracks that have come in.
        out: tracks that have gone out.
    """

    def __init__(self, name: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.name, self.start, self.end = name, start, end
        self.into = self.out = 0
        self._last: dict[int, _Last] = {}
        self._frame = 0
        self._along = np.subtract(end, start)
        self._length = float(np.hypot(*self._along))

    def update(self, ids: np.ndarray, boxes: np.ndarray) -> None:
        """Take the tracks of the next frame.

        Args:
            ids: int64 (N,).
            boxes: (N, 4), x1, y1, x2, y2.
        """
        self._frame += 1
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]
        dx, dy = self._along / self._length
        # y points down: to the right of somebody who looks along x is where y grows.
        distance = dx * (y - self.start[1]) - dy * (x - self.start[0])
        settled = np.abs(distance) > _MARGIN * (boxes[:, 3] - boxes[:, 1])
        sides = np.sign(distance).astype(int)
        for place in settled.nonzero()[0].tolist():
            self._settle(int(ids[place]), int(sides[place]), float(x[place]), float(y[place]))
        if self._frame % _FORGOTTEN == 0:
            old = self._frame - _FORGOTTEN
            self._last = {id_: last for id_, last in self._last.items() if last.frame > old}

    def _settle(self, id_: int, side: int, x: float, y: float) -> None:
        last = self._last.get(id_)
        if last is not None and last.side != side and self._between(last, x, y):
            if side < 0:
                self.into += 1
            else:
                self.out += 1
        self._last[id_] = _Last(side, x, y, self._frame)

    def _between(self, last: _Last, x: float, y: float) -> bool:
        """Whether the way from where a track was leads between the line's ends."""
        way = np.array([x - last.x, y - last.y])
        across = self._along[0] * way[1] - self._along[1] * way[0]
        place = ((last.x - self.start[0]) * way[1] - (last.y - self.start[1]) * way[0]) / across
        return bool(0 <= place <= 1)

    def to_json(self) -> dict[str, object]:
        """``{"name", "in", "out"}``."""
        return {"name": self.name, "in": self.into, "out": self.out}


class ZoneCounter:
    """Counts tracks whose feet, the middle of the box's lower side, are inside a polygon.

    Args:
        name: of the zone.
        corners: x, y in pixels, three or more, in either direction; the last is joined with the first.

    Attributes:
        inside: tracks in it in the last frame.
        most: the most at once.
        entered: times that a track was inside that was not in the frame before in which it was seen.
    """

    def __init__(self, name: str, corners: Sequence[tuple[float, float]]) -> None:
        self.name, self.corners = name, tuple(corners)
        self.inside = self.most = self.entered = 0
        self._within: set[int] = set()
        self._ever: set[int] = set()

    @property
    def tracks(self) -> int:
        """How many different tracks have been inside."""
        return len(self._ever)

    def update(self, ids: np.ndarray, boxes: np.ndarray) -> None:
        """Take the tracks of the next frame.

        Args:
            ids: int64 (N,).
            boxes: (N, 4), x1, y1, x2, y2.
        """
        inside = self.contains((boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3])
        here, elsewhere = set(ids[inside].tolist()), set(ids[~inside].tolist())
        self.inside, self.most = len(here), max(self.most, len(here))
        self.entered += len(here - self._within)
        self._ever |= here
        # Who is not seen stays where it was.
        self._within = (self._within | here) - elsewhere

    def contains(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Whether points (N,) are inside: a ray to the left crosses an odd number of sides."""
        inside = np.zeros(len(x), bool)
        for (x1, y1), (x2, y2) in zip(self.corners, (*self.corners[1:], self.corners[0]), strict=True):
            if y1 != y2:
                inside ^= ((y1 > y) != (y2 > y)) & (x > x1 + (y - y1) * (x2 - x1) / (y2 - y1))
        return inside

    def to_json(self) -> dict[str, object]:
        """``{"name", "inside", "most", "entered", "tracks"}``."""
        counts = {"inside": self.inside, "most": self.most, "entered": self.entered, "tracks": self.tracks}
        return {"name": self.name, **counts}
