"""DeepSORT: SORT with a deep association metric (Wojke et al. 2017, arXiv 1703.07402)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.errors import UsageError
from hubel.tracking.appearance import FeatureBank
from hubel.tracking.assignment import covered_fractions, linear_assignment, pairs_within
from hubel.tracking.base import FrameDetections, Tracker, TrackUpdate, at_least, fraction
from hubel.tracking.kalman import GATE, HeightMotion

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


class DeepSort(Tracker):
    """Tracks boxes by motion and appearance, through occlusions of up to ``max_age`` frames.

    Confirmed tracks are matched by appearance with the detections within their motion gate, the most recently matched
    tracks first (the matching cascade, Listing 1). Then new tracks, and those that were matched in the previous frame,
    are matched by overlap.
    """

    name = "deepsort"
    needs_features = True
    Parameters = DeepSortParameters
    _motion = HeightMotion

    _bank: FeatureBank | None = None

    def _update(self, detections: FrameDetections, elapsed: float) -> TrackUpdate:
        settings, tracks = self.parameters, self._tracks
        if len(detections):
            self._check(detections.features)
        tracks.predict(elapsed)
        free = np.ones(len(detections), bool)
        self._match_by_appearance(detections, free)
        self._match_by_overlap(detections, elapsed, free)
        tracks.match(detections)
        tracks.confirmed |= tracks.hits >= settings.n_init
        started = tracks.start(detections, free, confirmed=settings.n_init <= 1)
        matched = tracks.detection >= 0
        # Unmatched new tracks, and confirmed ones that were unmatched for too long, are dropped.
        alive = (tracks.missed <= settings.max_age) & (tracks.confirmed | matched)
        seen = (matched & tracks.confirmed).nonzero()[0]
        emitted = tracks.emit(seen, tracks.filter.boxes(seen), detections)
        if self._bank is not None:
            self._bank.start(started)
            self._store_features(self._bank, detections)
            if not alive.all():
                self._bank.prune(alive)
        tracks.prune(alive)
        return emitted

    def _check(self, features: np.ndarray | None) -> None:
        if features is None:
            raise UsageError(
                "deepsort needs appearance features",
                "pass features with the boxes, or use sort or bytetrack",
            )
        length = features.shape[1]
        if self._bank is None:
            self._bank = FeatureBank(self.parameters.nn_budget, length)
        if self._bank.length != length:
            message = f"features have length {length}, previous ones {self._bank.length}"
            raise UsageError(message, "use the same network for all frames")

    def _match_by_appearance(self, detections: FrameDetections, free: np.ndarray) -> None:
        """The matching cascade; updates ``free``."""
        settings, tracks = self.parameters, self._tracks
        confirmed = (tracks.confirmed & (tracks.missed <= settings.max_age)).nonzero()[0]
        if not (len(confirmed) and len(detections)):
            return
        rows, columns, costs = self._appearance_costs(confirmed, detections)
        weight = settings.motion_weight
        limit = weight * settings.gate + (1 - weight) * settings.max_cosine_distance + _MARGIN
        ages = tracks.missed[rows]
        for age in np.unique(ages):
            pairs = ((ages == age) & free[columns]).nonzero()[0]
            chosen = pairs[linear_assignment(rows[pairs], columns[pairs], limit - costs[pairs])]
            tracks.detection[rows[chosen]] = columns[chosen]
            free[columns[chosen]] = False

    def _appearance_costs(
        self, confirmed: np.ndarray, detections: FrameDetections
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of tracks and detections within both gates, and their cost (equations 5 and 6)."""
        settings, tracks = self.parameters, self._tracks
        seen = tracks.filter.motion.observe(detections.boxes)
        # First the pairs whose distance in x alone does not exclude them.
        predicted, variance = tracks.filter.predicted(confirmed)
        x, reach = predicted[:, 0], np.sqrt(settings.gate * variance[:, 0])
        rows, columns = pairs_within(x - reach, x + reach, seen[:, 0])
        rows = confirmed[rows]
        distances = tracks.filter.squared_distances(rows, seen[columns])
        inside = (distances <= settings.gate) & (tracks.labels[rows] == detections.labels[columns])
        rows, columns, distances = rows[inside], columns[inside], distances[inside]
        assert self._bank is not None and detections.features is not None
        appearance = self._bank.distances(rows, detections.features[columns])
        costs = settings.motion_weight * distances + (1 - settings.motion_weight) * appearance
        alike = appearance <= settings.max_cosine_distance
        rows, columns, costs = rows[alike], columns[alike], costs[alike]
        if not settings.nearest_only:
            return rows, columns, costs
        nearest = np.full(len(detections), np.inf)
        np.minimum.at(nearest, columns, costs)
        best = costs <= nearest[columns]
        return rows[best], columns[best], costs[best]

    def _match_by_overlap(self, detections: FrameDetections, elapsed: float, free: np.ndarray) -> None:
        """Match new tracks, and those of the previous frame, by IoU; updates ``free``."""
        tracks = self._tracks
        may = (tracks.detection < 0) & (~tracks.confirmed | (tracks.missed <= elapsed))
        candidates, left = may.nonzero()[0], free.nonzero()[0]
        if not (len(candidates) and len(left)):
            return
        rows, columns, iou = tracks.overlaps(candidates, tracks.filter.boxes(), detections.only(left))
        least = 1 - self.parameters.max_iou_distance
        near = (iou >= least).nonzero()[0]
        chosen = near[linear_assignment(rows[near], columns[near], iou[near] - least + _MARGIN)]
        tracks.detection[rows[chosen]] = left[columns[chosen]]
        free[left[columns[chosen]]] = False

    def _store_features(self, bank: FeatureBank, detections: FrameDetections) -> None:
        """Store the vectors of new tracks, and of those whose box no other detection covers."""
        if not len(detections):
            return
        tracks = self._tracks
        assert detections.features is not None
        alone = covered_fractions(detections.boxes) <= self.parameters.max_overlap + _MARGIN
        seen = ((tracks.detection >= 0) & ((tracks.hits == 1) | alone[tracks.detection])).nonzero()[0]
        if len(seen):
            bank.add(seen, detections.features[tracks.detection[seen]])
