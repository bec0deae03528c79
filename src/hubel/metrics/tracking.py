"""Metrics of tracks: HOTA, CLEAR and identity, equal to those of TrackEval, MOTChallenge's tool."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np
from scipy.optimize import linear_sum_assignment

from hubel.boxes import iou

DISTRACTORS = (2, 7, 8, 12)
"""Person on a vehicle, static person, distractor, reflection: detecting them is neither right nor wrong."""

MOT20_DISTRACTORS = (*DISTRACTORS, 6)
"""MOT20 adds vehicles without a motor."""

ALPHAS = np.arange(0.05, 0.99, 0.05)
"""HOTA's localization thresholds, minimum IoU of a match; its metrics are means over them."""

_PEDESTRIAN = 1
_MIN_IOU = 0.5
_EPSILON = np.finfo(float).eps
# Bonus for the track of the previous frame, larger than any overlap.
_KEEP = 1000.0
# In tables: fractions in per cent, and counts.
_FRACTIONS = ("HOTA", "DetA", "AssA", "MOTA", "MOTP", "IDF1")
_COUNTS = ("IDSW", "Frag", "FP", "FN", "MT", "ML")


@dataclass(frozen=True)
class Boxes:
    """All boxes of a file.

    Attributes:
        frames: int64 (N,), from 1, ascending.
        ids: int64 (N,), unique within a frame.
        boxes: float64 (N, 4), x1, y1, x2, y2.
    """

    frames: np.ndarray
    ids: np.ndarray
    boxes: np.ndarray

    def only(self, kept: np.ndarray) -> Boxes:
        """A selection, bool (N,)."""
        return Boxes(self.frames[kept], self.ids[kept], self.boxes[kept])


def apply_motchallenge_rules(
    truth: Boxes, counted: np.ndarray, classes: np.ndarray, tracked: Boxes, distractors: tuple[int, ...] = DISTRACTORS
) -> tuple[Boxes, Boxes]:
    """Select the true and the tracked boxes that MOTChallenge compares.

    Tracked boxes whose best match (one to one, IoU of at least 0.5) is a distractor are left out, as are true boxes
    that are not counted or are not pedestrians. Ground truth without classes, as in 2015, only has the flag.

    Args:
        truth: all true boxes.
        counted: bool (N,), the flag of the ground truth.
        classes: int64 (N,), -1 where there are none.
    """
    if not (classes > 0).any():
        return truth.only(counted), tracked
    compared = np.ones(len(tracked.ids), bool)
    distracting = np.isin(classes, distractors)
    last = int(truth.frames[-1]) if len(truth.frames) else 0
    for first, end, start, stop in _bounds(truth, tracked, last):
        if not distracting[first:end].any() or start == stop:
            continue
        overlap = iou(truth.boxes[first:end], tracked.boxes[start:stop])
        overlap[overlap < _MIN_IOU - _EPSILON] = 0
        rows, columns = linear_sum_assignment(overlap, maximize=True)
        ignored = (overlap[rows, columns] > _EPSILON) & distracting[first:end][rows]
        compared[start + columns[ignored]] = False
    return truth.only(counted & (classes == _PEDESTRIAN)), tracked.only(compared)


def _bounds(truth: Boxes, tracked: Boxes, frames: int) -> np.ndarray:
    """First and last row of each frame in both sets of boxes: (frames, 4)."""
    numbers = np.arange(1, frames + 2)
    true, track = truth.frames.searchsorted(numbers), tracked.frames.searchsorted(numbers)
    bounds: np.ndarray = np.stack((true[:-1], true[1:], track[:-1], track[1:]), axis=1)
    return bounds


class Sequence:
    """True and tracked boxes of a sequence, with their IoU, frame by frame.

    Args:
        frames: number of frames; at least that of the last box.

    Attributes:
        truth_ids: number of objects.
        tracked_ids: number of tracks.
        per_frame: for each frame, indices of its objects (G,) and tracks (T,), and their IoU (G, T).
    """

    def __init__(self, name: str, truth: Boxes, tracked: Boxes, frames: int | None = None) -> None:
        self.name = name
        self.frames = max(frames or 0, *(int(each.frames[-1]) for each in (truth, tracked) if len(each.frames)), 0)
        objects, true_indices = np.unique(truth.ids, return_inverse=True)
        tracks, track_indices = np.unique(tracked.ids, return_inverse=True)
        self.truth_ids, self.tracked_ids = len(objects), len(tracks)
        self.true_boxes, self.tracked_boxes = len(truth.ids), len(tracked.ids)
        self.per_frame = []
        for first, end, start, stop in _bounds(truth, tracked, self.frames):
            overlap = iou(truth.boxes[first:end], tracked.boxes[start:stop])
            self.per_frame.append((true_indices[first:end], track_indices[start:stop], overlap))


@dataclass(frozen=True)
class Hota:
    """Higher order tracking accuracy (Luiten et al. 2021, arXiv 2009.07736): (19,) each, by :data:`ALPHAS`.

    Attributes:
        matched: true positives, with ``missed`` false negatives and ``false`` false positives.
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
        accuracy: np.ndarray = self.matched / np.maximum(1, self.matched + self.missed + self.false)
        return accuracy

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
    tracks = sequence.tracked_ids
    if not (sequence.truth_ids and tracks):
        zeros = np.zeros(len(ALPHAS))
        return Hota(zeros, zeros + sequence.true_boxes, zeros + sequence.tracked_boxes, zeros, zeros + 1)
    # Number of frames of each object and of each track.
    in_truth = np.bincount(np.concatenate([each[0] for each in sequence.per_frame]), minlength=sequence.truth_ids)
    in_tracks = np.bincount(np.concatenate([each[1] for each in sequence.per_frame]), minlength=tracks)
    # Global alignment of each object with each track, 0..1: (objects, tracks) (equation 7).
    together = np.zeros((sequence.truth_ids, tracks))
    for true, tracked, overlap in sequence.per_frame:
        all_of_both = overlap.sum(axis=0)[None] + overlap.sum(axis=1)[:, None] - overlap
        share = np.divide(overlap, all_of_both, out=np.zeros_like(overlap), where=all_of_both > _EPSILON)
        together[true[:, None], tracked] += share
    alignment = together / (in_truth[:, None] + in_tracks[None] - together)
    pairs, overlaps = [np.empty(0, np.int64)], [np.empty(0)]
    for true, tracked, overlap in sequence.per_frame:
        if len(true) and len(tracked):
            rows, columns = linear_sum_assignment(alignment[true[:, None], tracked] * overlap, maximize=True)
            pairs.append(true[rows] * tracks + tracked[columns])
            overlaps.append(overlap[rows, columns])
    pair, pair_iou = np.concatenate(pairs), np.concatenate(overlaps)
    matched, association, located = np.zeros((3, len(ALPHAS)))
    for i, alpha in enumerate(ALPHAS):
        good = pair_iou >= alpha - _EPSILON
        names, times = np.unique(pair[good], return_counts=True)
        either = in_truth[names // tracks] + in_tracks[names % tracks] - times
        matched[i], located[i] = good.sum(), pair_iou[good].sum()
        association[i] = (times * times / np.maximum(1, either)).sum() / max(1, matched[i])
    localization = np.maximum(1e-10, located) / np.maximum(1e-10, matched)
    return Hota(matched, sequence.true_boxes - matched, sequence.tracked_boxes - matched, association, localization)


def _combine_hota(parts: list[Hota]) -> Hota:
    """Sums of counts, and accuracies weighted by the matches."""
    names = ("matched", "missed", "false")
    matched, missed, false = (np.sum([getattr(part, name) for part in parts], axis=0) for name in names)
    association = np.sum([part.association * part.matched for part in parts], axis=0) / np.maximum(1, matched)
    located = np.sum([part.localization * part.matched for part in parts], axis=0)
    localization = np.maximum(1e-10, located) / np.maximum(1e-10, matched)
    return Hota(matched, missed, false, association, localization)


@dataclass(frozen=True)
class Clear:
    """Counts of the CLEAR metrics (Bernardin and Stiefelhagen 2008, doi 10.1155/2008/246309) as in MOTChallenge.

    Attributes:
        matched: true positives, with ``missed`` false negatives and ``false`` false positives.
        switches: matches of an object with another track than its last match, however long ago.
        fragments: number of times that matches of an object resume after unmatched frames.
        mostly_tracked: objects matched in more than 80 % of their frames.
        partly_tracked: objects matched in 20 % to 80 % of their frames.
        mostly_lost: objects matched in less than 20 % of their frames.
        overlap: sum of the IoU of the matches.
    """

    matched: int
    missed: int
    false: int
    switches: int
    fragments: int
    mostly_tracked: int
    partly_tracked: int
    mostly_lost: int
    overlap: float

    def metrics(self) -> dict[str, float]:
        """Metrics by MOTChallenge's names; MOTP is a mean IoU, higher is better."""
        true = self.matched + self.missed
        return {
            "MOTA": (self.matched - self.false - self.switches) / max(1, true),
            "MOTP": self.overlap / max(1, self.matched),
            "Recall": self.matched / max(1, true),
            "Precision": self.matched / max(1, self.matched + self.false),
            "FP": self.false,
            "FN": self.missed,
            "IDSW": self.switches,
            "Frag": self.fragments,
            "MT": self.mostly_tracked,
            "PT": self.partly_tracked,
            "ML": self.mostly_lost,
        }


def clear(sequence: Sequence) -> Clear:
    """Score a sequence: matches have an IoU of at least 0.5; those of the previous frame have precedence."""
    count = sequence.truth_ids
    last, previous = np.full((2, count), -1)
    seen, matched_in, begun = np.zeros((3, count), np.int64)
    matches, overlap_sum, switches = 0, 0.0, 0
    for true, tracked, overlap in sequence.per_frame:
        seen[true] += 1
        if not (len(true) and len(tracked)):
            # As in the official tool, objects then count as matched until the next frame with boxes of both.
            continue
        weight = _KEEP * (tracked[None] == previous[true][:, None]) + overlap
        weight[overlap < _MIN_IOU - _EPSILON] = 0
        rows, columns = linear_sum_assignment(weight, maximize=True)
        good = weight[rows, columns] > _EPSILON
        objects, tracks = true[rows[good]], tracked[columns[good]]
        switches += int(((last[objects] >= 0) & (last[objects] != tracks)).sum())
        matched_in[objects] += 1
        begun[objects[previous[objects] < 0]] += 1
        previous[:] = -1
        previous[objects] = last[objects] = tracks
        matches += len(objects)
        overlap_sum += float(overlap[rows[good], columns[good]].sum())
    fraction = matched_in[seen > 0] / seen[seen > 0]
    mostly, partly = int((fraction > 0.8).sum()), int(((fraction >= 0.2) & (fraction <= 0.8)).sum())
    return Clear(
        matched=matches,
        missed=sequence.true_boxes - matches,
        false=sequence.tracked_boxes - matches,
        switches=switches,
        fragments=int((begun[begun > 0] - 1).sum()),
        mostly_tracked=mostly,
        partly_tracked=partly,
        mostly_lost=count - mostly - partly,
        overlap=overlap_sum,
    )


@dataclass(frozen=True)
class Identity:
    """Counts of the identity metrics (Ristani et al. 2016, arXiv 1609.01775).

    Attributes:
        matched: true boxes that the track assigned to their object covers.
    """

    matched: int
    true: int
    tracked: int

    def metrics(self) -> dict[str, float]:
        """IDF1, IDP and IDR, 0..1 (equations 11 to 13)."""
        return {
            "IDF1": 2 * self.matched / max(1, self.true + self.tracked),
            "IDP": self.matched / max(1, self.tracked),
            "IDR": self.matched / max(1, self.true),
        }


def identity(sequence: Sequence) -> Identity:
    """Match objects and tracks one to one over a sequence, for the most boxes with an IoU of at least 0.5."""
    together = np.zeros((sequence.truth_ids, sequence.tracked_ids), np.int64)
    for true, tracked, overlap in sequence.per_frame:
        rows, columns = (overlap >= _MIN_IOU).nonzero()
        together[true[rows], tracked[columns]] += 1
    matched = int(together[linear_sum_assignment(together, maximize=True)].sum())
    return Identity(matched, sequence.true_boxes, sequence.tracked_boxes)


Counts = TypeVar("Counts", Clear, Identity)


def _sum_counts(kind: type[Counts], parts: Iterable[Counts]) -> Counts:
    return kind(*(sum(getattr(part, field.name) for part in parts) for field in fields(kind)))


@dataclass(frozen=True)
class SequenceScores:
    """Metrics of one sequence, or of several together.

    Attributes:
        objects: number of true ids.
        tracks: number of tracked ids.
    """

    name: str
    frames: int
    objects: int
    tracks: int
    hota: Hota
    clear: Clear
    identity: Identity

    def metrics(self) -> dict[str, float]:
        """Fractions 0..1, and counts, by name."""
        return {**self.hota.metrics(), **self.clear.metrics(), **self.identity.metrics()}

    def to_json(self) -> dict[str, Any]:
        """``{"name", "frames", "objects", "tracks", "metrics"}``."""
        sizes = {"frames": self.frames, "objects": self.objects, "tracks": self.tracks}
        return {"name": self.name, **sizes, "metrics": self.metrics()}


@dataclass(frozen=True)
class TrackingScores:
    """Metrics of each of several sequences, and of all together."""

    sequences: tuple[SequenceScores, ...]
    together: SequenceScores

    def to_json(self) -> dict[str, Any]:
        """``{"metrics", "per_sequence"}``."""
        rows = [scores.to_json() for scores in self.sequences]
        return {"metrics": self.together.metrics(), "per_sequence": rows}

    def table(self) -> str:
        """A table in plain text, fractions in per cent."""
        rows = [*self.sequences, self.together] if len(self.sequences) > 1 else list(self.sequences)
        width = max(len(row.name) for row in rows)
        lines = [" ".join([" " * width, *(f"{name:>6}" for name in (*_FRACTIONS, *_COUNTS))])]
        for row in rows:
            metrics = row.metrics()
            fractions = [f"{100 * metrics[name]:6.2f}" for name in _FRACTIONS]
            counts = [f"{metrics[name]:6.0f}" for name in _COUNTS]
            lines.append(" ".join([f"{row.name:{width}}", *fractions, *counts]))
        return "\n".join(lines)


def score_sequences(sequences: Iterable[Sequence]) -> TrackingScores:
    """Score sequences one after the other, with one in memory at a time."""
    rows = tuple(
        SequenceScores(s.name, s.frames, s.truth_ids, s.tracked_ids, hota(s), clear(s), identity(s)) for s in sequences
    )
    together = SequenceScores(
        "together",
        sum(row.frames for row in rows),
        sum(row.objects for row in rows),
        sum(row.tracks for row in rows),
        _combine_hota([row.hota for row in rows]),
        _sum_counts(Clear, [row.clear for row in rows]),
        _sum_counts(Identity, [row.identity for row in rows]),
    )
    return TrackingScores(rows, together)
