"""State that all trackers share: the detections of a frame, and the tracks as columns, oldest first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.errors import UsageError
from hubel.tracking.base import TrackUpdate
from hubel.tracking.kalman import KalmanFilter, Motion
from hubel.tracking.sparse_iou import overlapping_pairs

Overlaps = tuple[np.ndarray, np.ndarray, np.ndarray]

# Sizes whose products and ratios are finite and above 0.
_MIN_SIZE, _MAX_SIZE = 1e-100, 1e100


@dataclass(frozen=True, slots=True)
class FrameDetections:
    """The detections of one frame.

    Attributes:
        boxes: float64 (N, 4), x1, y1, x2, y2, finite, with an area.
        scores: float64 (N,).
        labels: int64 (N,).
        features: float32 (N, D), or ``None``.
        detections: int64 (N,), indices of the rows that the tracker was given.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    features: np.ndarray | None
    detections: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def only(self, kept: np.ndarray) -> FrameDetections:
        """A selection: bool (N,) or indices."""
        features = self.features[kept] if self.features is not None else None
        return FrameDetections(self.boxes[kept], self.scores[kept], self.labels[kept], features, self.detections[kept])


def validate(
    boxes: np.ndarray, scores: np.ndarray | None, labels: np.ndarray | None, features: np.ndarray | None
) -> FrameDetections:
    """Check the arguments of :meth:`~hubel.tracking.base.Tracker.update`.

    Detections with values that are not finite, or without an area, are left out.

    Raises:
        UsageError: an array has the wrong shape.
    """
    boxes = np.asarray(boxes, np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UsageError(f"boxes have the shape {boxes.shape}", "use (N, 4): x1, y1, x2, y2")
    count = len(boxes)
    scores = np.ones(count) if scores is None else np.asarray(scores, np.float64).reshape(-1)
    labels = np.zeros(count, np.int64) if labels is None else np.asarray(labels, np.int64).reshape(-1)
    for what, array in (("scores", scores), ("labels", labels), ("features", features)):
        if array is not None and len(array) != count:
            raise UsageError(f"there are {count} boxes, but {len(array)} {what}", "use one for each box")
    if features is not None:
        features = np.asarray(features, np.float32)
        if features.ndim != 2 and count:
            raise UsageError(f"features have the shape {features.shape}", "use (N, D), a vector for each box")
    detections = FrameDetections(boxes, scores, labels, features, np.arange(count))
    valid = _valid(detections)
    return detections if valid.all() else detections.only(valid)


def _valid(detections: FrameDetections) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # infinite corners
        sizes = detections.boxes[:, 2:] - detections.boxes[:, :2]
    valid = ((sizes > _MIN_SIZE) & (sizes < _MAX_SIZE)).all(axis=1) & np.isfinite(detections.scores)
    if detections.features is not None and len(detections):
        valid &= np.isfinite(detections.features).all(axis=1)
    return valid


class TrackStore:
    """Columns that all trackers keep of their N tracks.

    Attributes:
        filter: their motion.
        ids: int64 (N,): 0 until a track is reported for the first time, so that ids have no gaps.
        labels: int64 (N,): classes.
        hits: int64 (N,): matched frames, the first included.
        missed: float64 (N,): frames since the last match; 0 if matched in the current frame.
        time: frames since the start.
    """

    def __init__(self, motion: Motion) -> None:
        self.filter = KalmanFilter(motion)
        self.ids = np.empty(0, np.int64)
        self.labels = np.empty(0, np.int64)
        self.hits = np.empty(0, np.int64)
        self.missed = np.empty(0)
        self.time = 0.0
        self._emitted = 0

    def __len__(self) -> int:
        return len(self.ids)

    def predict(self, elapsed: float) -> None:
        """Predict the tracks at the time of the next frame.

        Raises:
            UsageError: ``elapsed`` is not more than 0.
        """
        if not 0 < elapsed < np.inf:
            raise UsageError(f"elapsed is {elapsed}", "use a number above 0, in frames")
        self.time += elapsed
        self.filter.predict(elapsed)
        self.missed += elapsed

    def overlaps(self, tracks: np.ndarray | None, boxes: np.ndarray, detections: FrameDetections) -> Overlaps:
        """Overlapping pairs of tracks and detections of one class: their indices, and the IoU.

        Args:
            tracks: indices of the tracks to compare; ``None``: all.
            boxes: (N, 4) of all tracks.
            detections: of the frame.
        """
        rows, columns, iou = overlapping_pairs(boxes if tracks is None else boxes[tracks], detections.boxes)
        if tracks is not None:
            rows = tracks[rows]
        return self.of_one_class(rows, columns, iou, detections)

    def of_one_class(
        self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray, detections: FrameDetections
    ) -> Overlaps:
        """The pairs whose track and detection have the same class."""
        same = self.labels[rows] == detections.labels[columns]
        return (rows, columns, values) if same.all() else (rows[same], columns[same], values[same])

    def match(self, tracks: np.ndarray, detections: FrameDetections, matched: np.ndarray) -> None:
        """Update the motion of tracks (K,) with the detections that they were matched with (K,); count the hits."""
        self.filter.update(tracks, detections.boxes[matched])
        self.hits[tracks] += 1
        self.missed[tracks] = 0

    def start(self, detections: FrameDetections, unmatched: np.ndarray) -> None:
        """Start a track from each of the given detections (K,)."""
        count = len(unmatched)
        self.filter.start(detections.boxes[unmatched])
        self.ids = np.concatenate((self.ids, np.zeros(count, np.int64)))
        self.labels = np.concatenate((self.labels, detections.labels[unmatched]))
        self.hits = np.concatenate((self.hits, np.ones(count, np.int64)))
        self.missed = np.concatenate((self.missed, np.zeros(count)))

    def prune(self, alive: np.ndarray) -> None:
        """Keep only the tracks that are alive, bool (N,)."""
        self.filter.prune(alive)
        self.ids, self.labels = self.ids[alive], self.labels[alive]
        self.hits, self.missed = self.hits[alive], self.missed[alive]

    def emit(
        self, tracks: np.ndarray, boxes: np.ndarray, detections: FrameDetections, matched: np.ndarray
    ) -> TrackUpdate:
        """Report tracks (K,), ascending, at boxes (K, 4), matched with detections (K,); new ones get an id."""
        new = tracks[self.ids[tracks] == 0]
        if len(new):
            self.ids[new] = np.arange(len(new)) + self._emitted + 1
            self._emitted += len(new)
        return TrackUpdate(
            self.ids[tracks],
            boxes,
            detections.scores[matched],
            self.labels[tracks],
            detections.detections[matched],
        )
