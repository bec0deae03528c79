"""DeepSORT: SORT with a deep association metric (Wojke et al. 2017, arXiv 1703.07402)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.errors import UsageError
from hubel.tracking.appearance import FeatureBank
from hubel.tracking.assignment import linear_assignment
from hubel.tracking.base import TrackUpdate, at_least, fraction
from hubel.tracking.detections import FrameDetections, observe
from hubel.tracking.kalman import GATE, HeightMotion
from hubel.tracking.sparse_iou import Pairs, covered_shares, pairs_within
from hubel.tracking.track_store import TrackStore

# So that what is at the very limit is still within it, for all rounding.
_MARGIN = 1e-5


@dataclass(frozen=True)
class DeepSortParameters:
    """DeepSORT's parameters; the defaults are the paper's.

    Attributes:
        max_age: frames that a track lives on without a match (A_max).
        n_init: matches in a row that confirm a new track, its first sight among them.
        nn_budget: appearance vectors that are kept of a track (L_k).
        max_cosine_distance: largest distance of appearances of a match (t⁽²⁾).
        gate: largest squared Mahalanobis distance of a match (t⁽¹⁾).
        motion_weight: of the Mahalanobis distance in the cost (λ in equation 5); the paper's experiments have 0, and
            motion only excludes.
        max_iou_distance: largest 1 - IoU of a match where appearance is not compared.
        nearest_only: match by appearance only with the track that a detection resembles most, of those whose gates let
            it through. Not in the paper, whose cascade gives it to the one seen last: when one of two people who cross
            comes out first, ids are swapped (benchmarks/rendered_crossings.py measures it).
        max_overlap: largest share of its box that another detection may cover for a vector to be kept: what is covered
            shows somebody else. Not in the paper, which keeps all, as 1 does.
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
    """Follows boxes by their motion and their appearance, through occlusions of up to ``max_age`` frames.

    Confirmed tracks are matched by appearance among the detections that their motion allows, those that were seen last
    first (the matching cascade, Listing 1). What is left, of tracks that are new or were seen in the frame before, is
    matched by overlap.

    Args:
        parameters: of the method.
    """

    name = "deepsort"
    needs_features = True
    Parameters = DeepSortParameters

    def __init__(self, parameters: DeepSortParameters | None = None) -> None:
        self.parameters = parameters or DeepSortParameters()
        self._tracks = TrackStore(HeightMotion())
        self._confirmed = np.empty(0, bool)
        self._galleries: FeatureBank | None = None

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
        observed = observe(boxes, scores, labels, features)
        self._check(observed)
        tracks = self._tracks
        tracks.advance(elapsed)
        detection_of = np.full(len(tracks), -1)
        free = np.ones(len(observed), bool)
        self._match_by_appearance(observed, elapsed, detection_of, free)
        self._match_by_overlap(observed, elapsed, detection_of, free)
        matched = (detection_of >= 0).nonzero()[0]
        tracks.match(matched, observed, detection_of[matched])
        self._confirmed |= tracks.hits >= self.parameters.n_init
        detection_of = np.concatenate((detection_of, self._begin(observed, free)))
        self._remember(observed, detection_of)
        seen = ((detection_of >= 0) & self._confirmed).nonzero()[0]
        reported = tracks.report(seen, tracks.filter.boxes(seen), observed, detection_of[seen])
        self._prune(detection_of >= 0)
        return reported

    def _check(self, observed: FrameDetections) -> None:
        if not len(observed):
            return
        if observed.features is None:
            raise UsageError(
                "deepsort compares appearances, and there are none",
                "give features with the boxes, or use sort or bytetrack",
            )
        length = observed.features.shape[1]
        if self._galleries is None:
            self._galleries = FeatureBank(self.parameters.nn_budget, length)
        if self._galleries.length != length:
            message = f"features have {length} numbers, those before had {self._galleries.length}"
            raise UsageError(message, "make all by one network")

    def _match_by_appearance(
        self, observed: FrameDetections, elapsed: float, detection_of: np.ndarray, free: np.ndarray
    ) -> None:
        """The matching cascade: fills in ``detection_of`` and takes what is matched out of ``free``."""
        confirmed = (self._confirmed & (self._tracks.missed <= self.parameters.max_age)).nonzero()[0]
        if not (len(confirmed) and len(observed)):
            return
        rows, columns, costs = self._appearance_costs(confirmed, observed)
        rules = self.parameters
        limit = rules.motion_weight * rules.gate + (1 - rules.motion_weight) * rules.max_cosine_distance + _MARGIN
        ages = self._tracks.missed[rows]
        for age in np.unique(ages):
            places = ((ages == age) & free[columns]).nonzero()[0]
            chosen = places[linear_assignment(rows[places], columns[places], limit - costs[places])]
            detection_of[rows[chosen]] = columns[chosen]
            free[columns[chosen]] = False

    def _appearance_costs(
        self, confirmed: np.ndarray, observed: FrameDetections
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs of tracks and detections that both gates let through, and their cost (equations 5 and 6)."""
        rules, tracks = self.parameters, self._tracks
        seen = tracks.filter.motion.observe(observed.boxes)
        rows, columns = self._gate(confirmed, seen)
        distances = tracks.filter.squared_distances(rows, seen[columns])
        inside = distances <= rules.gate
        rows, columns, distances = tracks.of_one_class(rows[inside], columns[inside], distances[inside], observed)
        assert self._galleries is not None and observed.features is not None
        appearance = self._galleries.distances(rows, observed.features[columns])
        alike = appearance <= rules.max_cosine_distance
        rows, columns, distances, appearance = rows[alike], columns[alike], distances[alike], appearance[alike]
        costs = rules.motion_weight * distances + (1 - rules.motion_weight) * appearance
        if not rules.nearest_only:
            return rows, columns, costs
        nearest = np.full(len(observed), np.inf)
        np.minimum.at(nearest, columns, costs)
        best = costs <= nearest[columns]
        return rows[best], columns[best], costs[best]

    def _gate(self, confirmed: np.ndarray, seen: np.ndarray) -> Pairs:
        """Pairs whose centres are so near in x alone that the gate may be open."""
        filter_ = self._tracks.filter
        predicted = filter_.position[confirmed]
        total = filter_.state[2, confirmed, 0] + filter_.motion.measurement(predicted)[:, 0]
        reach = np.sqrt(self.parameters.gate * total)
        rows, columns = pairs_within(predicted[:, 0] - reach, predicted[:, 0] + reach, seen[:, 0])
        return confirmed[rows], columns

    def _match_by_overlap(
        self, observed: FrameDetections, elapsed: float, detection_of: np.ndarray, free: np.ndarray
    ) -> None:
        """New tracks, and those that were seen in the frame before but not recognized."""
        tracks = self._tracks
        may = (detection_of < 0) & (~self._confirmed | (tracks.missed <= elapsed))
        candidates, left = may.nonzero()[0], free.nonzero()[0]
        if not (len(candidates) and len(left)):
            return
        rows, columns, iou = tracks.overlaps(candidates, tracks.filter.boxes(), observed.only(left))
        least = 1 - self.parameters.max_iou_distance
        near = (iou >= least).nonzero()[0]
        chosen = near[linear_assignment(rows[near], columns[near], iou[near] - least + _MARGIN)]
        detection_of[rows[chosen]] = left[columns[chosen]]
        free[left[columns[chosen]]] = False

    def _begin(self, observed: FrameDetections, free: np.ndarray) -> np.ndarray:
        """Tracks for the detections that have none; returns these."""
        born = free.nonzero()[0]
        if len(born):
            self._tracks.begin(observed, born)
            self._confirmed = np.concatenate((self._confirmed, np.full(len(born), self.parameters.n_init <= 1)))
            assert self._galleries is not None
            self._galleries.begin(len(born))
        return born

    def _remember(self, observed: FrameDetections, detection_of: np.ndarray) -> None:
        """What the tracks look like in this frame."""
        if not len(observed):
            return
        assert self._galleries is not None and observed.features is not None
        new = self._tracks.hits == 1
        alone = covered_shares(observed.boxes) <= self.parameters.max_overlap + _MARGIN
        seen = ((detection_of >= 0) & (new | alone[detection_of])).nonzero()[0]
        if len(seen):
            self._galleries.add(seen, observed.features[detection_of[seen]])

    def _prune(self, matched: np.ndarray) -> None:
        """Drop new tracks that were missed, and confirmed ones that have been missed for too long."""
        alive = (self._tracks.missed <= self.parameters.max_age) & (self._confirmed | matched)
        if alive.all():
            return
        self._tracks.keep(alive)
        self._confirmed = self._confirmed[alive]
        if self._galleries is not None:
            self._galleries.keep(alive)
