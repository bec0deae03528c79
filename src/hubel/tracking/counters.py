"""Counters of tracks that cross a line or are inside a zone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Fraction of a box's height by which a track must be away from the line to be on one side of it.
_MARGIN = 0.05
# Frames after which a missing track is forgotten, and between such cleanings.
_MAX_MISSING = 1000


@dataclass
class _Last:
    side: int
    x: float
    y: float
    frame: int


class LineCounter:
    """Counts tracks whose feet, the middle of the box's lower side, cross a line between two points.

    Seen from the first point towards the second, ``in`` counts tracks that cross to the left, ``out`` those that cross
    to the right, as supervision's ``LineZone`` does. A track that jitters on the line counts once: to be on a side, it
    must be farther from the line than 5 % of its height.

    Args:
        name: of the line.
        start: x, y in pixels.
        end: x, y in pixels.

    Attributes:
        into: tracks that crossed to the left.
        out: tracks that crossed to the right.
    """

    def __init__(self, name: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.name, self.start, self.end = name, start, end
        self.into = self.out = 0
        self._last: dict[int, _Last] = {}
        self._frame = 0
        self._along = np.subtract(end, start)
        self._length = float(np.hypot(*self._along))

    def update(self, ids: np.ndarray, boxes: np.ndarray) -> None:
        """Count the tracks of the next frame.

        Args:
            ids: int64 (N,).
            boxes: (N, 4), x1, y1, x2, y2.
        """
        self._frame += 1
        x, y = (boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]
        dx, dy = self._along / self._length
        # y points down, so positive distances are to the right of the line.
        distance = dx * (y - self.start[1]) - dy * (x - self.start[0])
        clear = np.abs(distance) > _MARGIN * (boxes[:, 3] - boxes[:, 1])
        sides = np.sign(distance).astype(int)
        for i in clear.nonzero()[0].tolist():
            self._update_side(int(ids[i]), int(sides[i]), float(x[i]), float(y[i]))
        if self._frame % _MAX_MISSING == 0:
            old = self._frame - _MAX_MISSING
            self._last = {id_: last for id_, last in self._last.items() if last.frame > old}

    def _update_side(self, id_: int, side: int, x: float, y: float) -> None:
        last = self._last.get(id_)
        if last is not None and last.side != side and self._between(last, x, y):
            if side < 0:
                self.into += 1
            else:
                self.out += 1
        self._last[id_] = _Last(side, x, y, self._frame)

    def _between(self, last: _Last, x: float, y: float) -> bool:
        """Whether the motion from the last position crosses the line between its ends."""
        motion = np.array([x - last.x, y - last.y])
        across = self._along[0] * motion[1] - self._along[1] * motion[0]
        i = ((last.x - self.start[0]) * motion[1] - (last.y - self.start[1]) * motion[0]) / across
        return bool(0 <= i <= 1)

    def to_json(self) -> dict[str, object]:
        """``{"name", "in", "out"}``."""
        return {"name": self.name, "in": self.into, "out": self.out}


class ZoneCounter:
    """Counts tracks whose feet, the middle of the box's lower side, are inside a polygon.

    Args:
        name: of the zone.
        corners: x, y in pixels, three or more, in either direction; the polygon is closed.

    Attributes:
        inside: tracks in the zone in the last frame.
        most: largest number of tracks inside at once.
        entered: number of times that a track entered.
    """

    def __init__(self, name: str, corners: Sequence[tuple[float, float]]) -> None:
        self.name, self.corners = name, tuple(corners)
        self.inside = self.most = self.entered = 0
        self._within: set[int] = set()
        self._ever: set[int] = set()

    @property
    def tracks(self) -> int:
        """Number of different tracks that have been inside."""
        return len(self._ever)

    def update(self, ids: np.ndarray, boxes: np.ndarray) -> None:
        """Count the tracks of the next frame.

        Args:
            ids: int64 (N,).
            boxes: (N, 4), x1, y1, x2, y2.
        """
        inside = self.contains((boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3])
        here, elsewhere = set(ids[inside].tolist()), set(ids[~inside].tolist())
        self.inside, self.most = len(here), max(self.most, len(here))
        self.entered += len(here - self._within)
        self._ever |= here
        # A track that is missing in this frame keeps its state.
        self._within = (self._within | here) - elsewhere

    def contains(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Which points (N,) are inside: a ray to the left crosses an odd number of edges."""
        inside = np.zeros(len(x), bool)
        for (x1, y1), (x2, y2) in zip(self.corners, (*self.corners[1:], self.corners[0]), strict=True):
            if y1 != y2:
                inside ^= ((y1 > y) != (y2 > y)) & (x > x1 + (y - y1) * (x2 - x1) / (y2 - y1))
        return inside

    def to_json(self) -> dict[str, object]:
        """``{"name", "inside", "most", "entered", "tracks"}``."""
        counts = {"inside": self.inside, "most": self.most, "entered": self.entered, "tracks": self.tracks}
        return {"name": self.name, **counts}
