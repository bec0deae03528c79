"""Higher order tracking accuracy (Luiten et al. 2021, arXiv 2009.07736)."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from hubel.metrics.tracking.sequence import Sequence

ALPHAS = np.arange(0.05, 0.99, 0.05)
"""Localization thresholds, least IoU of a match; the metrics are means over them."""

_EPSILON = np.finfo(float).eps


@dataclass(frozen=True)
class Hota:
    """Counts and metrics at each of the 19 thresholds, (19,) each.

    Attributes:
        matched: true positives.
        missed: false negatives.
        false: false positives.
        association: AssA, 0..1 (equation 13).
        localization: LocA, mean IoU of the matches.
    """

    matched: np.ndarray
    missed: np.ndarray
    false: np.ndarray
    association: np.ndarray
    localization: np.ndarray

    @property
    def detection(self) -> np.ndarray:
        """DetA, 0..1 (equation 12)."""
        return self.matched / np.maximum(1, self.matched + self.missed + self.false)

    def metrics(self) -> dict[str, float]:
        """HOTA and its parts, averaged over the thresholds."""
        hota = np.sqrt(self.detection * self.association)
        parts = {"HOTA": hota, "DetA": self.detection, "AssA": self.association, "LocA": self.localization}
        return {name: float(values.mean()) for name, values in parts.items()}


def hota(sequence: Sequence) -> Hota:
    """Score a sequence.

    In each frame, true and tracked boxes are matched once, to maximize the sum of their IoU, weighted by the global
    alignment of object and track; each threshold then selects from these pairs.
    """
    truth, tracks = sequence.truth_ids, sequence.tracked_ids
    if not (truth and tracks):
        zeros = np.zeros(len(ALPHAS))
        missed, false = zeros + sequence.true_boxes, zeros + sequence.tracked_boxes
        return Hota(zeros, missed, false, zeros, zeros + 1)
    in_truth, in_tracks = _frames_of_ids(sequence)
    alignment = _alignment(sequence, in_truth, in_tracks)
    pairs, overlaps = [], []
    for true, tracked, overlap in sequence.per_frame:
        if len(true) and len(tracked):
            rows, columns = linear_sum_assignment(alignment[true[:, None], tracked] * overlap, maximize=True)
            pairs.append(true[rows] * tracks + tracked[columns])
            overlaps.append(overlap[rows, columns])
    pair, iou = (np.concatenate(parts) if parts else np.empty(0) for parts in (pairs, overlaps))
    matched, association, located = (np.zeros(len(ALPHAS)) for _ in range(3))
    for i, alpha in enumerate(ALPHAS):
        counts = iou >= alpha - _EPSILON
        names, times = np.unique(pair[counts].astype(np.int64), return_counts=True)
        together = in_truth[names // tracks] + in_tracks[names % tracks] - times
        matched[i], located[i] = counts.sum(), iou[counts].sum()
        association[i] = (times * times / np.maximum(1, together)).sum() / max(1, matched[i])
    localization = np.maximum(1e-10, located) / np.maximum(1e-10, matched)
    return Hota(matched, sequence.true_boxes - matched, sequence.tracked_boxes - matched, association, localization)


def _frames_of_ids(sequence: Sequence) -> tuple[np.ndarray, np.ndarray]:
    """Number of frames of each object and of each track."""
    true = np.concatenate([true for true, _, _ in sequence.per_frame])
    tracked = np.concatenate([tracked for _, tracked, _ in sequence.per_frame])
    return np.bincount(true, minlength=sequence.truth_ids), np.bincount(tracked, minlength=sequence.tracked_ids)


def _alignment(sequence: Sequence, in_truth: np.ndarray, in_tracks: np.ndarray) -> np.ndarray:
    """Global alignment of each object with each track, 0..1: (objects, tracks) (equation 7)."""
    together = np.zeros((sequence.truth_ids, sequence.tracked_ids))
    for true, tracked, overlap in sequence.per_frame:
        all_of_both = overlap.sum(axis=0)[None] + overlap.sum(axis=1)[:, None] - overlap
        share = np.divide(overlap, all_of_both, out=np.zeros_like(overlap), where=all_of_both > _EPSILON)
        together[true[:, None], tracked] += share
    alignment: np.ndarray = together / (in_truth[:, None] + in_tracks[None] - together)
    return alignment


def combine_hota(parts: Many[Hota]) -> Hota:
    """HOTA of several sequences together: sums of counts, and accuracies weighted by the matches."""
    matched = np.sum([part.matched for part in parts], axis=0)
    association = np.sum([part.association * part.matched for part in parts], axis=0) / np.maximum(1, matched)
    located = np.sum([part.localization * part.matched for part in parts], axis=0)
    localization = np.maximum(1e-10, located) / np.maximum(1e-10, matched)
    missed, false = (np.sum([getattr(part, name) for part in parts], axis=0) for name in ("missed", "false"))
    return Hota(matched, missed, false, association, localization)
