"""SORT: simple online and realtime tracking (Bewley et al. 2016, arXiv 1602.00763)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.tracking.assignment import linear_assignment
from hubel.tracking.base import TrackUpdate, at_least, fraction
from hubel.tracking.kalman import AreaMotion
from hubel.tracking.track_store import FrameDetections, TrackStore, validate


@dataclass(frozen=True)
class SortParameters:
    """SORT's parameters; the defaults are the paper's.

    Attributes:
        max_age: frames that a track survives without a match (T_Lost, section 3.4).
        min_hits: consecutive matches before a track is reported.
        iou_threshold: least IoU of a match (IOU_min, section 3.3).
        reconfirm: after a miss, report a track only after ``min_hits`` consecutive matches again, as in the paper's
            results. If ``False``, a track that was reported once is reported whenever it is matched.
    """

    max_age: float = 1
    min_hits: int = 3
    iou_threshold: float = 0.3
    reconfirm: bool = True

    def __post_init__(self) -> None:
        at_least("max_age", self.max_age, 0)
        at_least("min_hits", self.min_hits, 0)
        fraction("iou_threshold", self.iou_threshold)


class Sort:
    """Tracks boxes by motion alone: a Kalman filter predicts, the Hungarian method matches by IoU.

    Args:
        parameters: the defaults are the paper's.
    """

    name = "sort"
    needs_features = False
    Parameters = SortParameters

    def __init__(self, parameters: SortParameters | None = None) -> None:
        self.parameters = parameters or SortParameters()
        self._tracks = TrackStore(AreaMotion())
        # Consecutive matches after the first detection.
        self._streak = np.empty(0, np.int64)

    def update(
        self,
        boxes: np.ndarray,
        scores: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        features: np.ndarray | None = None,
        *,
        elapsed: float = 1.0,
    ) -> TrackUpdate:
        """See :class:`~hubel.tracking.base.Tracker`."""
        detections = validate(boxes, scores, labels, None)
        tracks = self._tracks
        self._streak[tracks.missed > 0] = 0
        tracks.predict(elapsed)
        rows, columns = self._match(detections)
        tracks.match(rows, detections, columns)
        self._streak[rows] += 1
        detection_of = np.full(len(tracks), -1)
        detection_of[rows] = columns
        detection_of = np.concatenate((detection_of, self._start(detections, columns)))
        seen = ((detection_of >= 0) & self._reportable()).nonzero()[0]
        emitted = tracks.emit(seen, tracks.filter.boxes(seen), detections, detection_of[seen])
        alive = tracks.missed <= self.parameters.max_age
        if not alive.all():
            tracks.prune(alive)
            self._streak = self._streak[alive]
        return emitted

    def _match(self, detections: FrameDetections) -> tuple[np.ndarray, np.ndarray]:
        """Matched tracks and detections."""
        rows, columns, iou = self._tracks.overlaps(None, self._tracks.filter.boxes(), detections)
        # The threshold is applied after the assignment, as for the paper's results.
        chosen = linear_assignment(rows, columns, iou)
        chosen = chosen[iou[chosen] >= self.parameters.iou_threshold]
        return rows[chosen], columns[chosen]

    def _start(self, detections: FrameDetections, matched: np.ndarray) -> np.ndarray:
        """Start tracks from the unmatched detections and return these."""
        free = np.ones(len(detections), bool)
        free[matched] = False
        new = free.nonzero()[0]
        if len(new):
            self._tracks.start(detections, new)
            self._streak = np.concatenate((self._streak, np.zeros(len(new), np.int64)))
        return new

    def _reportable(self) -> np.ndarray:
        """Tracks with enough hits (N,); all tracks in the first frames."""
        if self._tracks.time <= self.parameters.min_hits:
            return np.ones(len(self._tracks), bool)
        enough = self._streak >= self.parameters.min_hits
        return enough if self.parameters.reconfirm else enough | (self._tracks.ids > 0)
