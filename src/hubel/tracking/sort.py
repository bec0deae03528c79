"""SORT: simple online and realtime tracking (Bewley et al. 2016, arXiv 1602.00763)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.tracking.assignment import linear_assignment
from hubel.tracking.base import TrackUpdate, at_least, fraction
from hubel.tracking.detections import FrameDetections, observe
from hubel.tracking.kalman import AreaMotion
from hubel.tracking.track_store import TrackStore


@dataclass(frozen=True)
class SortParameters:
    """SORT's parameters; the defaults are the paper's.

    Attributes:
        max_age: frames that a track lives on without a match (T_Lost, section 3.4).
        min_hits: matches in a row before a track is reported.
        iou_threshold: least IoU of a match (IOU_min, section 3.3).
        reconfirm: report a track after a miss only when it has ``min_hits`` matches in a row again. The paper's results
            were made so. Without it, a track that has been reported once is reported whenever it is matched.
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
    """Follows boxes by their motion alone: a Kalman filter predicts, the Hungarian method matches by IoU.

    Args:
        parameters: of the method.
    """

    name = "sort"
    needs_features = False
    Parameters = SortParameters

    def __init__(self, parameters: SortParameters | None = None) -> None:
        self.parameters = parameters or SortParameters()
        self._tracks = TrackStore(AreaMotion())
        # Matches in a row, the first sight of a track not counted.
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
        observed = observe(boxes, scores, labels, None)
        tracks = self._tracks
        self._streak[tracks.missed > 0] = 0
        tracks.advance(elapsed)
        rows, columns = self._match(observed)
        tracks.match(rows, observed, columns)
        self._streak[rows] += 1
        detection_of = np.full(len(tracks), -1)
        detection_of[rows] = columns
        detection_of = np.concatenate((detection_of, self._begin(observed, columns)))
        seen = ((detection_of >= 0) & self._reportable()).nonzero()[0]
        reported = tracks.report(seen, tracks.filter.boxes(seen), observed, detection_of[seen])
        alive = tracks.missed <= self.parameters.max_age
        if not alive.all():
            tracks.keep(alive)
            self._streak = self._streak[alive]
        return reported

    def _match(self, observed: FrameDetections) -> tuple[np.ndarray, np.ndarray]:
        """Tracks and detections that belong together."""
        rows, columns, iou = self._tracks.overlaps(None, self._tracks.filter.boxes(), observed)
        # All overlaps compete; those below the threshold are then given up, not replaced (as in the paper's results).
        chosen = linear_assignment(rows, columns, iou)
        chosen = chosen[iou[chosen] >= self.parameters.iou_threshold]
        return rows[chosen], columns[chosen]

    def _begin(self, observed: FrameDetections, matched: np.ndarray) -> np.ndarray:
        """Tracks for the detections that have none; returns these."""
        free = np.ones(len(observed), bool)
        free[matched] = False
        born = free.nonzero()[0]
        if len(born):
            self._tracks.begin(observed, born)
            self._streak = np.concatenate((self._streak, np.zeros(len(born), np.int64)))
        return born

    def _reportable(self) -> np.ndarray:
        """Whether each track has been seen often enough; everything is while the sequence is young."""
        if self._tracks.time <= self.parameters.min_hits:
            return np.ones(len(self._tracks), bool)
        enough = self._streak >= self.parameters.min_hits
        return enough if self.parameters.reconfirm else enough | (self._tracks.ids > 0)
