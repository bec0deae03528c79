"""ByteTrack: every detection box is associated (Zhang et al. 2021, arXiv 2110.06864)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.tracking.assignment import linear_assignment
from hubel.tracking.base import TrackUpdate, at_least, fraction
from hubel.tracking.detections import FrameDetections, observe
from hubel.tracking.kalman import HeightMotion
from hubel.tracking.sparse_iou import overlapping_pairs
from hubel.tracking.track_store import TrackStore

# Of the published code, not of the paper: least score of any box; how much surer than track_thresh a box must be to
# begin a track; cost limit of tracks that have been seen once; IoU from which a living and a lost track are the same.
_LOWEST = 0.1
_SURER = 0.1
_UNCONFIRMED_THRESH = 0.7
_SAME = 0.85


@dataclass(frozen=True)
class ByteTrackParameters:
    """ByteTrack's parameters; the defaults are the paper's, section 4.1, and its code's.

    Attributes:
        track_thresh: score from which a detection is a sure one (τ).
        match_thresh: largest cost, 1 - IoU · score, of a match with a sure one.
        second_thresh: largest cost, 1 - IoU, of a match with an unsure one.
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
    """Follows boxes by their motion; detections of a low score go to tracks that the sure ones have left over.

    Boxes are matched in Algorithm 1's order: sure ones with all tracks, unsure ones with those of the tracks that were
    seen in the frame before, sure ones that are left with tracks that have been seen once. A track is reported with the
    box of its detection.

    Args:
        parameters: of the method.
    """

    name = "bytetrack"
    needs_features = False
    Parameters = ByteTrackParameters

    def __init__(self, parameters: ByteTrackParameters | None = None) -> None:
        self.parameters = parameters or ByteTrackParameters()
        self._tracks = TrackStore(HeightMotion())
        self._confirmed = np.empty(0, bool)
        self._began = np.empty(0)

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
        tracks, first_frame = self._tracks, self._tracks.time == 0
        lost = tracks.missed > 0
        # A lost track's height stays as it is: nobody has seen it change.
        tracks.filter.velocity[lost, 3] = 0
        tracks.advance(elapsed)
        detection_of = self._match(observed, lost)
        matched = (detection_of >= 0).nonzero()[0]
        tracks.match(matched, observed, detection_of[matched])
        self._confirmed[matched] = True
        detection_of = np.concatenate((detection_of, self._begin(observed, detection_of, first_frame)))
        alive = (tracks.missed <= self.parameters.track_buffer) & (
            self._confirmed | (tracks.hits == 1) & (tracks.missed == 0)
        )
        alive &= ~self._duplicate_tracks(alive)
        seen = ((detection_of >= 0) & self._confirmed & alive).nonzero()[0]
        reported = tracks.report(seen, observed.boxes[detection_of[seen]], observed, detection_of[seen])
        if not alive.all():
            tracks.keep(alive)
            self._confirmed, self._began = self._confirmed[alive], self._began[alive]
        return reported

    def _match(self, observed: FrameDetections, lost: np.ndarray) -> np.ndarray:
        """The detection of each track, -1 for none."""
        rules, tracks = self.parameters, self._tracks
        detection_of = np.full(len(tracks), -1)
        predicted = tracks.filter.boxes()
        sure = observed.scores >= rules.track_thresh
        unsure = ~sure & (observed.scores > _LOWEST)
        rows, columns, iou = tracks.overlaps(None, predicted, observed)
        fused = iou * np.where(sure, observed.scores, 1.0)[columns]
        rounds = (
            (self._confirmed, sure, rules.match_thresh),
            (self._confirmed & ~lost, unsure, rules.second_thresh),
            (~self._confirmed, sure, _UNCONFIRMED_THRESH),
        )
        free = np.ones(len(observed), bool)
        for of_tracks, of_detections, limit in rounds:
            if not (of_tracks.any() and of_detections.any()):
                continue
            may = of_tracks[rows] & (detection_of[rows] < 0) & (of_detections & free)[columns]
            # Costs 1 - IoU up to the limit: what a match spares, compared with leaving both alone.
            places = (may & (fused > 1 - limit)).nonzero()[0]
            chosen = places[linear_assignment(rows[places], columns[places], fused[places] - (1 - limit))]
            detection_of[rows[chosen]] = columns[chosen]
            free[columns[chosen]] = False
        return detection_of

    def _begin(self, observed: FrameDetections, detection_of: np.ndarray, first_frame: bool) -> np.ndarray:
        """Tracks for sure detections that have none; returns these. Those of the first frame count at once."""
        free = observed.scores >= self.parameters.track_thresh + _SURER
        free[detection_of[detection_of >= 0]] = False
        born = free.nonzero()[0]
        if len(born):
            self._tracks.begin(observed, born)
            self._confirmed = np.concatenate((self._confirmed, np.full(len(born), first_frame)))
            self._began = np.concatenate((self._began, np.full(len(born), self._tracks.time)))
        return born

    def _duplicate_tracks(self, alive: np.ndarray) -> np.ndarray:
        """Of a track that is seen and a lost one at the same place, the one that has lived shorter."""
        tracks = self._tracks
        seen = (alive & self._confirmed & (tracks.missed == 0)).nonzero()[0]
        lost = (alive & (tracks.missed > 0)).nonzero()[0]
        doubles = np.zeros(len(tracks), bool)
        if not (len(seen) and len(lost)):
            return doubles
        boxes = tracks.filter.boxes()
        rows, columns, iou = overlapping_pairs(boxes[seen], boxes[lost])
        same = iou > _SAME
        if not same.any():
            return doubles
        rows, columns = seen[rows[same]], lost[columns[same]]
        same_class = tracks.labels[rows] == tracks.labels[columns]
        rows, columns = rows[same_class], columns[same_class]
        lived = tracks.time - tracks.missed - self._began
        longer = lived[rows] > lived[columns]
        doubles[np.where(longer, columns, rows)] = True
        return doubles
