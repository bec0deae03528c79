"""ByteTrack: every detection box is associated (Zhang et al. 2021, arXiv 2110.06864)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.tracking.assignment import linear_assignment, overlapping_pairs
from hubel.tracking.base import FrameDetections, Tracker, TrackUpdate, at_least, fraction
from hubel.tracking.kalman import HeightMotion

# From the published code, not the paper: lowest score of a box; margin above track_thresh to start a track; cost limit
# of unconfirmed tracks; IoU above which an active and a lost track are duplicates.
_LOWEST = 0.1
_START_MARGIN = 0.1
_UNCONFIRMED_THRESH = 0.7
_DUPLICATE_IOU = 0.85


@dataclass(frozen=True)
class ByteTrackParameters:
    """ByteTrack's parameters; the defaults are the paper's, section 4.1, and its code's.

    Attributes:
        track_thresh: minimum score of a high-score detection (τ).
        match_thresh: largest cost, 1 - IoU · score, of a match with a high-score detection.
        second_thresh: largest cost, 1 - IoU, of a match with a low-score detection.
        track_buffer: frames that a lost track is kept.
    """

    track_thresh: float = 0.6
    match_thresh: float = 0.8
    second_thresh: float = 0.5
    track_buffer: float = 30

    def __post_init__(self) -> None:
        for name in ("track_thresh", "match_thresh", "second_thresh"):
            fraction(name, getattr(self, name))
        at_least("track_buffer", self.track_buffer, 0)


class ByteTrack(Tracker):
    """Tracks boxes by motion; low-score detections are matched with the tracks that high-score ones leave unmatched.

    The order is that of Algorithm 1: high-score boxes with all confirmed tracks, low-score boxes with those that were
    matched in the previous frame, remaining high-score boxes with unconfirmed tracks. The reported box of a track is
    that of its detection.
    """

    name = "bytetrack"
    Parameters = ByteTrackParameters
    _motion = HeightMotion

    def _update(self, detections: FrameDetections, elapsed: float) -> TrackUpdate:
        settings, tracks = self.parameters, self._tracks
        first_frame = tracks.time == 0
        lost = tracks.missed > 0
        # The height of a lost track is not extrapolated: no velocity.
        tracks.filter.state[1, lost, 3] = 0
        tracks.predict(elapsed)
        self._match(detections, lost)
        tracks.match(detections)
        tracks.confirmed |= tracks.detection >= 0
        tracks.start(detections, detections.scores >= settings.track_thresh + _START_MARGIN, confirmed=first_frame)
        matched = tracks.detection >= 0
        alive = (tracks.missed <= settings.track_buffer) & (tracks.confirmed | matched)
        alive &= ~self._duplicate_tracks(alive)
        seen = (matched & tracks.confirmed & alive).nonzero()[0]
        emitted = tracks.emit(seen, detections.boxes[tracks.detection[seen]], detections)
        tracks.prune(alive)
        return emitted

    def _match(self, detections: FrameDetections, lost: np.ndarray) -> None:
        settings, tracks = self.parameters, self._tracks
        high = detections.scores >= settings.track_thresh
        low = ~high & (detections.scores > _LOWEST)
        rows, columns, iou = tracks.overlaps(None, tracks.filter.boxes(), detections)
        fused = iou * np.where(high, detections.scores, 1.0)[columns]
        rounds = (
            (tracks.confirmed, high, settings.match_thresh),
            (tracks.confirmed & ~lost, low, settings.second_thresh),
            (~tracks.confirmed, high, _UNCONFIRMED_THRESH),
        )
        free = np.ones(len(detections), bool)
        for of_tracks, of_detections, limit in rounds:
            if not (of_tracks.any() and of_detections.any()):
                continue
            allowed = of_tracks[rows] & (tracks.detection[rows] < 0) & (of_detections & free)[columns]
            # Weight of a pair: how far its cost, 1 - IoU, is below the limit.
            pairs = (allowed & (fused > 1 - limit)).nonzero()[0]
            chosen = pairs[linear_assignment(rows[pairs], columns[pairs], fused[pairs] - (1 - limit))]
            tracks.detection[rows[chosen]] = columns[chosen]
            free[columns[chosen]] = False

    def _duplicate_tracks(self, alive: np.ndarray) -> np.ndarray:
        """Of a matched and a lost track with nearly the same box, the one with the shorter life."""
        tracks = self._tracks
        seen = (alive & tracks.confirmed & (tracks.missed == 0)).nonzero()[0]
        lost = (alive & (tracks.missed > 0)).nonzero()[0]
        duplicates = np.zeros(len(tracks), bool)
        if len(seen) and len(lost):
            boxes = tracks.filter.boxes()
            rows, columns, iou = overlapping_pairs(boxes[seen], boxes[lost])
            rows, columns = seen[rows], lost[columns]
            same = (iou > _DUPLICATE_IOU) & (tracks.labels[rows] == tracks.labels[columns])
            rows, columns = rows[same], columns[same]
            lived = tracks.time - tracks.missed - tracks.started
            duplicates[np.where(lived[rows] > lived[columns], columns, rows)] = True
        return duplicates
