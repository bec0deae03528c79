"""DeepSORT: SORT with a deep association metric (Wojke et al. 2017, arXiv 1703.07402)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.errors import UsageError
from hubel.tracking.appearance import FeatureBank
from hubel.tracking.assignment import linear_assignment
from hubel.tracking.base import TrackUpdate, at_least, fraction
from hubel.tracking.kalman import GATE, HeightMotion
from hubel.tracking.sparse_iou import Pairs, covered_fractions, pairs_within
from hubel.tracking.track_store import FrameDetections, TrackStore, validate

# Values at a limit are within it, whatever the rounding.
_MARGIN = 1e-5


@dataclass(frozen=True)
class DeepSortParameters:
    """DeepSORT's parameters; the defaults are the paper's.

    Attributes:
        max_age: frames that a track survives without a match (A_max).
        n_init: consecutive matches that confirm a new track, its first detection included.
        nn_budget: appearance vectors stored per track (L_k).
        max_cosine_distance: largest distance of appearances of a match (t⁽²⁾).
        gate: largest squared Mahalanobis distance of a match (t⁽¹⁾).
        motion_weight: of the Mahalanobis distance in the cost (λ in equation 5); 0 in the paper's experiments, where
            motion is only a gate.
        max_iou_distance: largest 1 - IoU of a match by overlap.
        nearest_only: match a detection by appearance only with the most similar track within the gates. Not in the
            paper, whose cascade prefers the track that was matched last: when one of two people who cross reappears
            first, ids are swapped (benchmarks/rendered_crossings.py measures it).
        max_overlap: a vector is stored only if no other detection covers more than this fraction of the box, which then
            shows someone else. Not in the paper, which stores all, as 1 does.
    """

    max_age: float = 30
    n_init: int = 3
    nn_budget: int = 100
    max_cosine_distance: float = 0.2
    gate: float = GATE
    motion_weight: float = 0.0
    max_iou_distance: float = 0.7
    nearest_only: bool = True
    max_overlap: float = 0.3

    def __post_init__(self) -> None:
        at_least("max_age", self.max_age, 0)
        for name in ("n_init", "nn_budget"):
            at_least(name, getattr(self, name), 1)
        at_least("gate", self.gate, 0)
        if not 0 <= self.max_cosine_distance <= 2:
            raise UsageError(f"max_cosine_distance is {self.max_cosine_distance}", "use a number from 0 to 2")
        for name in ("motion_weight", "max_iou_distance", "max_overlap"):
            fraction(name, getattr(self, name))


class DeepSort:
    """Tracks boxes by motion and appearance, through occlusions of up to ``max_age`` frames.

    Confirmed tracks are matched by appearance with the detections within their motion gate, the most recently matched
    tracks first (the matching cascade, Listing 1). Then new tracks, and those that were matched in the previous frame,
    are matched by overlap.

    Args:
        parameters: the defaults are the paper's.
    """

    name = "deepsort"
    needs_features = True
    Parameters = DeepSortParameters

    def __init__(self, parameters: DeepSortParameters | None = None) -> None:
        self.parameters = parameters or DeepSortParameters()
        self._tracks = TrackStore(HeightMotion())
        self._confirmed = np.empty(0, bool)
        self._features: FeatureBank | None = None

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
        detections = validate(boxes, scores, labels, features)
        self._check(detections)
        tracks = self._tracks
        tracks.predict(elapsed)
        detection_of = np.full(len(tracks), -1)
        free = np.ones(len(detections), bool)
        self._match_by_appearance(detections, elapsed, detection_of, free)
        self._match_by_overlap(detections, elapsed, detection_of, free)
        matched = (detection_of >= 0).nonzero()[0]
        tracks.match(matched, detections, detection_of[matched])
        self._confirmed |= tracks.hits >= self.parameters.n_init
        detection_of = np.concatenate((detection_of, self._start(detections, free)))
        self._store_features(detections, detection_of)
        seen = ((detection_of >= 0) & self._confirmed).nonzero()[0]
        emitted = tracks.emit(seen, tracks.filter.boxes(seen), detections, detection_of[seen])
        self._prune(detection_of >= 0)
        return emitted

    def _check(self, detections: FrameDetections) -> None:
        if not len(detections):
            return
        if detections.features is None:
            raise UsageError(
                "deepsort needs appearance features",
                "pass features with the boxes, or use sort or bytetrack",
            )
        length = detections.features.shape[1]
        if self._features is None:
            self._features = FeatureBank(self.parameters.nn_budget, length)
        if self._features.length != length:
            message = f"features have length {length}, previous ones {self._features.length}"
            raise UsageError(message, "use the same network for all frames")

    def _match_by_appearance(
        self, detections: FrameDetections, elapsed: float, detection_of: np.ndarray, free: np.ndarray
    ) -> None:
        """The matching cascade; updates ``detection_of`` and ``free``."""
        confirmed = (self._confirmed & (self._tracks.missed <= self.parameters.max_age)).nonzero()[0]
        if not (len(confirmed) and len(detections)):
            return
        rows, columns, costs = self._appearance_costs(confirmed, detections)
        weight = self.parameters.motion_weight
        limit = weight * self.parameters.gate + (1 - weight) * self.parameters.max_cosine_distance + _MARGIN
        ages = self._tracks.missed[rows]
        for age in np.unique(ages):
            pairs = ((ages == age) & free[columns]).nonzero()[0]
            chosen = pairs[linear_assignment(rows[pairs], columns[pairs], limit - costs[pairs])]
            detection_of[rows[chosen]] = columns[chosen]
            free[columns[chosen]] = False

    def _appearance_costs(
        self, confirmed: np.ndarray, detections: FrameDetections
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of tracks and detections within both gates, and their cost (equations 5 and 6)."""
        settings, tracks = self.parameters, self._tracks
        seen = tracks.filter.motion.observe(detections.boxes)
        rows, columns = self._gate(confirmed, seen)
        distances = tracks.filter.squared_distances(rows, seen[columns])
        inside = distances <= settings.gate
        rows, columns, distances = tracks.of_one_class(rows[inside], columns[inside], distances[inside], detections)
        assert self._features is not None and detections.features is not None
        appearance = self._features.distances(rows, detections.features[columns])
        alike = appearance <= settings.max_cosine_distance
        rows, columns, distances, appearance = rows[alike], columns[alike], distances[alike], appearance[alike]
        costs = settings.motion_weight * distances + (1 - settings.motion_weight) * appearance
        if not settings.nearest_only:
            return rows, columns, costs
        nearest = np.full(len(detections), np.inf)
        np.minimum.at(nearest, columns, costs)
        best = costs <= nearest[columns]
        return rows[best], columns[best], costs[best]

    def _gate(self, confirmed: np.ndarray, seen: np.ndarray) -> Pairs:
        """Pairs whose distance in x alone does not exclude them."""
        filter_ = self._tracks.filter
        predicted = filter_.position[confirmed]
        total = filter_.state[2, confirmed, 0] + filter_.motion.measurement(predicted)[:, 0]
        reach = np.sqrt(self.parameters.gate * total)
        rows, columns = pairs_within(predicted[:, 0] - reach, predicted[:, 0] + reach, seen[:, 0])
        return confirmed[rows], columns

    def _match_by_overlap(
        self, detections: FrameDetections, elapsed: float, detection_of: np.ndarray, free: np.ndarray
    ) -> None:
        """Match new tracks, and those of the previous frame, by IoU."""
        tracks = self._tracks
        may = (detection_of < 0) & (~self._confirmed | (tracks.missed <= elapsed))
        candidates, left = may.nonzero()[0], free.nonzero()[0]
        if not (len(candidates) and len(left)):
            return
        rows, columns, iou = tracks.overlaps(candidates, tracks.filter.boxes(), detections.only(left))
        least = 1 - self.parameters.max_iou_distance
        near = (iou >= least).nonzero()[0]
        chosen = near[linear_assignment(rows[near], columns[near], iou[near] - least + _MARGIN)]
        detection_of[rows[chosen]] = left[columns[chosen]]
        free[left[columns[chosen]]] = False

    def _start(self, detections: FrameDetections, free: np.ndarray) -> np.ndarray:
        """Start tracks from the unmatched detections and return these."""
        new = free.nonzero()[0]
        if len(new):
            self._tracks.start(detections, new)
            self._confirmed = np.concatenate((self._confirmed, np.full(len(new), self.parameters.n_init <= 1)))
            assert self._features is not None
            self._features.start(len(new))
        return new

    def _store_features(self, detections: FrameDetections, detection_of: np.ndarray) -> None:
        if not len(detections):
            return
        assert self._features is not None and detections.features is not None
        first = self._tracks.hits == 1
        alone = covered_fractions(detections.boxes) <= self.parameters.max_overlap + _MARGIN
        seen = ((detection_of >= 0) & (first | alone[detection_of])).nonzero()[0]
        if len(seen):
            self._features.add(seen, detections.features[detection_of[seen]])

    def _prune(self, matched: np.ndarray) -> None:
        """Drop unmatched new tracks, and confirmed ones that were unmatched for too long."""
        alive = (self._tracks.missed <= self.parameters.max_age) & (self._confirmed | matched)
        if alive.all():
            return
        self._tracks.prune(alive)
        self._confirmed = self._confirmed[alive]
        if self._features is not None:
            self._features.prune(alive)
