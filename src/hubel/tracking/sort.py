"""SORT: simple online and realtime tracking (Bewley et al. 2016, arXiv 1602.00763)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.tracking.assignment import linear_assignment
from hubel.tracking.base import FrameDetections, Tracker, TrackUpdate, at_least, fraction
from hubel.tracking.kalman import AreaMotion


@dataclass(frozen=True)
class SortParameters:
    """SORT's parameters; the defaults are the paper's.

    Attributes:
        max_age: frames that a track survives without a match (T_Lost, section 3.4).
        min_hits: consecutive matches before a track is reported.
        iou_threshold: minimum IoU of a match (IOU_min, section 3.3).
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


class Sort(Tracker):
    """Tracks boxes by motion alone: a Kalman filter predicts, the Hungarian method matches by IoU."""

    name = "sort"
    Parameters = SortParameters
    _motion = AreaMotion

    def _update(self, detections: FrameDetections, elapsed: float) -> TrackUpdate:
        tracks, settings = self._tracks, self.parameters
        tracks.predict(elapsed)
        rows, columns, iou = tracks.overlaps(None, tracks.filter.boxes(), detections)
        # The threshold is applied after the assignment, as for the paper's results.
        chosen = linear_assignment(rows, columns, iou)
        chosen = chosen[iou[chosen] >= settings.iou_threshold]
        tracks.detection[rows[chosen]] = columns[chosen]
        tracks.match(detections)
        tracks.start(detections, np.ones(len(detections), bool))
        reported = tracks.detection >= 0
        if tracks.time > settings.min_hits:  # in the first frames, all are reported
            enough = tracks.streak >= settings.min_hits
            reported &= enough if settings.reconfirm else enough | (tracks.ids > 0)
        seen = reported.nonzero()[0]
        emitted = tracks.emit(seen, tracks.filter.boxes(seen), detections)
        tracks.prune(tracks.missed <= settings.max_age)
        return emitted
