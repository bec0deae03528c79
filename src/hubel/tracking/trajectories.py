"""A row for each track, in memory that does not grow with the number of frames."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Largest number of stored points per path; beyond it, every second one is dropped.
_POINTS = 64


@dataclass
class TrackPath:
    """A track from its first frame to its last.

    Attributes:
        id: of the track.
        name: of its class.
        first: number of the first frame in which it was reported.
        last: number of the last frame.
        first_time: time of the first frame in seconds; ``None`` without a video.
        last_time: time of the last frame.
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
        return {
            "id": self.id,
            "name": self.name,
            "first": self.first,
            "last": self.last,
            "first_time": self.first_time,
            "last_time": self.last_time,
            "frames": self.frames,
            "length": round(self.length, 1),
            "path": [list(point) for point in points],
        }


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
        """Add the tracks of a frame.

        Args:
            frame: number of the frame.
            time: of the frame in seconds, or ``None``.
            ids: int64 (N,).
            names: of the classes.
            boxes: (N, 4), x1, y1, x2, y2.
        """
        feet = ((boxes[:, 0] + boxes[:, 2]) / 2).tolist(), boxes[:, 3].tolist()
        for id_, name, x, y in zip(ids.tolist(), names, *feet, strict=True):
            path = self._paths.get(id_)
            if path is None:
                path = self._paths[id_] = TrackPath(id_, name, frame, frame, time, time)
            path.extend(frame, time, x, y)
