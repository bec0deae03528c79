"""ByteTrack: every detection box is associated (Zhang et al. 2021, arXiv 2110.06864)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.tracking.assignment import linear_assignment
from hubel.tracking.base import TrackUpdate, at_least, fraction
from hubel.tracking.kalman import HeightMotion
from hubel.tracking.sparse_iou import overlapping_pairs
from hubel.tracking.track_store import FrameDetections, TrackStore, validate

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
        track_thresh: least score of a high-score detection (τ).
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


class ByteTrack:
    """Tracks boxes by motion; low-score detections are matched with the tracks that high-score ones leave unmatched.

    The order is that of Algorithm 1: high-score boxes with all confirmed tracks, low-score boxes with those that were
    matched in the previous frame, remaining high-score boxes with unconfirmed tracks. The reported box of a track is
    that of its detection.

    Args:
        parameters: the defaults are the paper's.
    """

    name = "bytetrack"
    needs_features = False
    Parameters = ByteTrackParameters

    def __init__(self, parameters: ByteTrackParameters | None = None) -> None:
        self.parameters = parameters or ByteTrackParameters()
        self._tracks = TrackStore(HeightMotion())
        self._confirmed = np.empty(0, bool)
        self._started = np.empty(0)

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
        tracks, first_frame = self._tracks, self._tracks.time == 0
        lost = tracks.missed > 0
        # The height of a lost track is not extrapolated.
        tracks.filter.velocity[lost, 3] = 0
        tracks.predict(elapsed)
        detection_of = self._match(detections, lost)
        matched = (detection_of >= 0).nonzero()[0]
        tracks.match(matched, detections, detection_of[matched])
        self._confirmed[matched] = True
        detection_of = np.concatenate((detection_of, self._start(detections, detection_of, first_frame)))
        alive = (tracks.missed <= self.parameters.track_buffer) & (
            self._confirmed | (tracks.hits == 1) & (tracks.missed == 0)
        )
        alive &= ~self._duplicate_tracks(alive)
        seen = ((detection_of >= 0) & self._confirmed & alive).nonzero()[0]
        emitted = tracks.emit(seen, detections.boxes[detection_of[seen]], detections, detection_of[seen])
        if not alive.all():
            tracks.prune(alive)
            self._confirmed, self._started = self._confirmed[alive], self._started[alive]
        return emitted

    def _match(self, detections: FrameDetections, lost: np.ndarray) -> np.ndarray:
        """The detection of each track, -1 for none."""
        settings, tracks = self.parameters, self._tracks
        detection_of = np.full(len(tracks), -1)
        predicted = tracks.filter.boxes()
        high = detections.scores >= settings.track_thresh
        low = ~high & (detections.scores > _LOWEST)
        rows, columns, iou = tracks.overlaps(None, predicted, detections)
        fused = iou * np.where(high, detections.scores, 1.0)[columns]
        rounds = (
            (self._confirmed, high, settings.match_thresh),
            (self._confirmed & ~lost, low, settings.second_thresh),
            (~self._confirmed, high, _UNCONFIRMED_THRESH),
        )
        free = np.ones(len(detections), bool)
        for of_tracks, of_detections, limit in rounds:
            if not (of_tracks.any() and of_detections.any()):
                continue
            allowed = of_tracks[rows] & (detection_of[rows] < 0) & (of_detections & free)[columns]
            # Weight of a pair: how far its cost, 1 - IoU, is below the limit.
            pairs = (allowed & (fused > 1 - limit)).nonzero()[0]
            chosen = pairs[linear_assignment(rows[pairs], columns[pairs], fused[pairs] - (1 - limit))]
            detection_of[rows[chosen]] = columns[chosen]
            free[columns[chosen]] = False
        return detection_of

    def _start(self, detections: FrameDetections, detection_of: np.ndarray, first_frame: bool) -> np.ndarray:
        """Start tracks from unmatched high-score detections and return these; in the first frame they are confirmed."""
        free = detections.scores >= self.parameters.track_thresh + _START_MARGIN
        free[detection_of[detection_of >= 0]] = False
        new = free.nonzero()[0]
        if len(new):
            self._tracks.start(detections, new)
            self._confirmed = np.concatenate((self._confirmed, np.full(len(new), first_frame)))
            self._started = np.concatenate((self._started, np.full(len(new), self._tracks.time)))
        return new

    def _duplicate_tracks(self, alive: np.ndarray) -> np.ndarray:
        """Of a matched and a lost track with nearly the same box, the one with the shorter life."""
        tracks = self._tracks
        seen = (alive & self._confirmed & (tracks.missed == 0)).nonzero()[0]
        lost = (alive & (tracks.missed > 0)).nonzero()[0]
        duplicates = np.zeros(len(tracks), bool)
        if not (len(seen) and len(lost)):
            return duplicates
        boxes = tracks.filter.boxes()
        rows, columns, iou = overlapping_pairs(boxes[seen], boxes[lost])
        same = iou > _DUPLICATE_IOU
        if not same.any():
            return duplicates
        rows, columns = seen[rows[same]], lost[columns[same]]
        same_class = tracks.labels[rows] == tracks.labels[columns]
        rows, columns = rows[same_class], columns[same_class]
        lived = tracks.time - tracks.missed - self._started
        longer = lived[rows] > lived[columns]
        duplicates[np.where(longer, columns, rows)] = True
        return duplicates
