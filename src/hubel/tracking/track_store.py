"""The tracks that live, as columns: one row a track, oldest first."""

from __future__ import annotations

import numpy as np

from hubel.errors import UsageError
from hubel.tracking.base import TrackUpdate
from hubel.tracking.detections import FrameDetections
from hubel.tracking.kalman import KalmanFilter, Motion
from hubel.tracking.sparse_iou import overlapping_pairs

Overlaps = tuple[np.ndarray, np.ndarray, np.ndarray]


class TrackStore:
    """What all trackers know of their tracks.

    Attributes:
        filter: their motion.
        ids: int64 (N,): 0 until a track is reported for the first time, so that ids have no gaps.
        labels: int64 (N,): classes.
        hits: int64 (N,): frames in which it was matched, the first included.
        missed: float64 (N,): time since it was matched last, in frames; 0 if that was now.
        time: of all frames taken, in frames.
    """

    def __init__(self, motion: Motion) -> None:
        self.filter = KalmanFilter(motion)
        self.ids = np.empty(0, np.int64)
        self.labels = np.empty(0, np.int64)
        self.hits = np.empty(0, np.int64)
        self.missed = np.empty(0)
        self.time = 0.0
        self._reported = 0

    def __len__(self) -> int:
        return len(self.ids)

    def advance(self, elapsed: float) -> None:
        """To the time of the next frame, in which no track has been matched yet.

        Raises:
            UsageError: ``elapsed`` is not more than 0.
        """
        if not 0 < elapsed < np.inf:
            raise UsageError(f"the time since the frame before is {elapsed}", "use a number above 0, in frames")
        self.time += elapsed
        self.filter.predict(elapsed)
        self.missed += elapsed

    def overlaps(self, tracks: np.ndarray | None, boxes: np.ndarray, observed: FrameDetections) -> Overlaps:
        """Pairs of tracks and detections of one class that overlap: their numbers, and the IoU.

        Args:
            tracks: which to look at; all if ``None``.
            boxes: (N, 4) of all tracks.
            observed: the detections.
        """
        rows, columns, iou = overlapping_pairs(boxes if tracks is None else boxes[tracks], observed.boxes)
        if tracks is not None:
            rows = tracks[rows]
        return self.of_one_class(rows, columns, iou, observed)

    def of_one_class(
        self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, observed: FrameDetections
    ) -> Overlaps:
        """Only the pairs whose track and detection are of one class."""
        same = self.labels[rows] == observed.labels[columns]
        return (rows, columns, values) if same.all() else (rows[same], columns[same], values[same])

    def match(self, tracks: np.ndarray, observed: FrameDetections, detections: np.ndarray) -> None:
        """Correct the motion of tracks (K,) by detections (K,), and count the hit."""
        self.filter.update(tracks, observed.boxes[detections])
        self.hits[tracks] += 1
        self.missed[tracks] = 0

    def begin(self, observed: FrameDetections, detections: np.ndarray) -> None:
        """A new track from each of some detections (K,)."""
        count = len(detections)
        self.filter.begin(observed.boxes[detections])
        self.ids = np.concatenate((self.ids, np.zeros(count, np.int64)))
        self.labels = np.concatenate((self.labels, observed.labels[detections]))
        self.hits = np.concatenate((self.hits, np.ones(count, np.int64)))
        self.missed = np.concatenate((self.missed, np.zeros(count)))

    def keep(self, alive: np.ndarray) -> None:
        """Drop the tracks that are not, bool (N,)."""
        self.filter.keep(alive)
        self.ids, self.labels = self.ids[alive], self.labels[alive]
        self.hits, self.missed = self.hits[alive], self.missed[alive]

    def report(
        self, tracks: np.ndarray, boxes: np.ndarray, observed: FrameDetections, detections: np.ndarray
    ) -> TrackUpdate:
        """Tracks (K,), ascending, at boxes (K, 4), matched with detections (K,); each has an id from now on."""
        new = tracks[self.ids[tracks] == 0]
        if len(new):
            self.ids[new] = np.arange(len(new)) + self._reported + 1
            self._reported += len(new)
        return TrackUpdate(
            self.ids[tracks],
            boxes,
            observed.scores[detections],
            self.labels[tracks],
            observed.detections[detections],
        )
