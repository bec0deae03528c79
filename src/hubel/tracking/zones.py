"""Counting tracks inside an area."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


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
