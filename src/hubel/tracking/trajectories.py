"""Paths of tracks, and counters of the tracks that cross a line or are inside a zone.

A track is where its feet are: in the middle of the lower side of its box. Memory does not grow with the number of
frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

# Largest number of stored points per path; beyond it, every second one is dropped.
_POINTS = 64
# Fraction of a box's height by which a track must be away from the line to be on one side of it.
_MARGIN = 0.05
# Frames after which a missing track is forgotten, and between such cleanings.
_MAX_MISSING = 1000


def _feet(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]


@dataclass
class TrackPath:
    """A track from its first frame to its last.

    Attributes:
        name: of its class.
        first: number of the first frame in which it was reported; ``last`` of the last one.
        first_time: of that frame, in seconds; ``None`` without a video.
        frames: number of frames in which it was reported.
        length: of the path of its feet, in pixels.
        points: of the path, evenly spaced in time: frame, x, y.
    """

    id: int
    name: str
    first: int
    last: int
    first_time: float | None
    last_time: float | None
    frames: int = 0
    length: float = 0.0
    points: list[tuple[int, float, float]] = field(default_factory=list)
    _every: int = 1
    _end: tuple[float, float] | None = None

    def extend(self, frame: int, time: float | None, x: float, y: float) -> None:
        """Add the position of the feet in the next frame."""
        if self._end is not None:
            self.length += float(np.hypot(x - self._end[0], y - self._end[1]))
        self.last, self.last_time, self._end = frame, time, (x, y)
        if self.frames % self._every == 0:
            self.points.append((frame, round(x, 1), round(y, 1)))
        self.frames += 1
        if len(self.points) == _POINTS:
            self.points = self.points[::2]
            self._every *= 2

    def ends(self) -> tuple[tuple[int, float, float], tuple[int, float, float]]:
        """The first and the last point: frame, x, y."""
        assert self._end is not None
        x, y = self._end
        return self.points[0], (self.last, round(x, 1), round(y, 1))

    def to_json(self) -> dict[str, Any]:
        """``{"id", "name", "first", "last", "first_time", "last_time", "frames", "length", "path"}``."""
        end = self.ends()[1]
        points = self.points if self.points[-1][0] == self.last else [*self.points, end]
        names = ("id", "name", "first", "last", "first_time", "last_time", "frames")
        row = {name: getattr(self, name) for name in names}
        return {**row, "length": round(self.length, 1), "path": [list(point) for point in points]}


class TrackTable:
    """The paths of all tracks, by id."""

    def __init__(self) -> None:
        self._paths: dict[int, TrackPath] = {}

    def __len__(self) -> int:
        return len(self._paths)

    def rows(self) -> list[TrackPath]:
        """All paths, in the order of their first frames."""
        return list(self._paths.values())

    def update(
        self, frame: int, time: float | None, ids: np.ndarray, names: tuple[str, ...], boxes: np.ndarray
    ) -> None:
        """Add the tracks of a frame: ids (N,), names of their classes, boxes (N, 4); ``time`` in seconds."""
        x, y = _feet(boxes)
        for id_, name, *point in zip(ids.tolist(), names, x.tolist(), y.tolist(), strict=True):
            path = self._paths.get(id_)
            if path is None:
                path = self._paths[id_] = TrackPath(id_, name, frame, frame, time, time)
            path.extend(frame, time, *point)


class _Last(NamedTuple):
    side: int
    x: float
    y: float
    frame: int


class LineCounter:
    """Counts tracks that cross a line between two points.

    Seen from the first point towards the second, ``in`` counts tracks that cross to the left, ``out`` those that cross
    to the right, as supervision's ``LineZone`` does. A track that jitters on the line counts once: to be on a side, it
    must be farther from the line than 5 % of its height.

    Args:
        start: x, y in pixels, as ``end``.

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
        """Count the tracks of the next frame: ids (N,), boxes (N, 4)."""
        self._frame += 1
        x, y = _feet(boxes)
        dx, dy = self._along / self._length
        # y points down, so positive distances are to the right of the line.
        distance = dx * (y - self.start[1]) - dy * (x - self.start[0])
        clear = np.abs(distance) > _MARGIN * (boxes[:, 3] - boxes[:, 1])
        sides = np.sign(distance).astype(int)
        for i in clear.nonzero()[0].tolist():
            id_, now = int(ids[i]), _Last(int(sides[i]), float(x[i]), float(y[i]), self._frame)
            last = self._last.get(id_)
            if last is not None and last.side != now.side and self._crossed(last, now):
                self.into += now.side < 0
                self.out += now.side > 0
            self._last[id_] = now
        if self._frame % _MAX_MISSING == 0:
            old = self._frame - _MAX_MISSING
            self._last = {id_: last for id_, last in self._last.items() if last.frame > old}

    def _crossed(self, last: _Last, now: _Last) -> bool:
        """The way between two positions, on either side of the line, meets it between its ends."""
        motion = np.array([now.x - last.x, now.y - last.y])
        across = self._along[0] * motion[1] - self._along[1] * motion[0]
        i = ((last.x - self.start[0]) * motion[1] - (last.y - self.start[1]) * motion[0]) / across
        return bool(0 <= i <= 1)

    def to_json(self) -> dict[str, object]:
        """``{"name", "in", "out"}``."""
        return {"name": self.name, "in": self.into, "out": self.out}


class ZoneCounter:
    """Counts tracks inside a polygon.

    Args:
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
        """Count the tracks of the next frame: ids (N,), boxes (N, 4)."""
        inside = self.contains(*_feet(boxes))
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
        return {name: getattr(self, name) for name in ("name", "inside", "most", "entered", "tracks")}
