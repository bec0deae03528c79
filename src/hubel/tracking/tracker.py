"""What every tracker does, whatever it compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Appearance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Makes appearance vectors of a frame's objects: RGB uint8 (H, W, 3) and boxes (N, 4) in its pixels → float32 (N, D),
each of length 1."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """The tracks that a tracker reports for one frame, oldest first.

    Attributes:
        ids: int64 (M,), from 1; an id is never given twice.
        boxes: float64 (M, 4), x1, y1, x2, y2 in pixels.
        scores: float64 (M,), of the detections.
        labels: int64 (M,), of the detections.
        detections: int64 (M,), which of the frame's detections each track was matched with.
    """

    ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    detections: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


class Tracker(Protocol):
    """Follows objects from frame to frame.

    Attributes:
        name: as in :func:`~hubel.tracking.create_tracker`.
        needs_features: whether :meth:`update` wants appearance vectors.
    """

    name: str
    needs_features: bool

    def update(
        self,
        boxes: np.ndarray,
        scores: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        features: np.ndarray | None = None,
        *,
        elapsed: float = 1.0,
    ) -> Tracked:
        """Take the detections of the next frame; call it for frames without any, too.

        Args:
            boxes: (N, 4), x1, y1, x2, y2 in pixels. Boxes that are not finite or have no area are left out.
            scores: (N,), 0..1; 1 if not given.
            labels: (N,) whole numbers: objects of different classes are never one track; 0 if not given.
            features: float32 (N, D), each of length 1, where the tracker compares appearances.
            elapsed: time since the frame before, in units of the usual time between two frames: 2 where one was
                dropped.

        Raises:
            UsageError: an array has the wrong shape, features are missing, or ``elapsed`` is not positive.
        """
        ...
