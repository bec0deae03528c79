"""Metrics of tracks: HOTA, CLEAR and identity, equal to those of TrackEval, MOTChallenge's tool."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from hubel.metrics.tracking.clear import MIN_IOU, Clear, clear, combine_clear
from hubel.metrics.tracking.hota import Hota, combine_hota, hota
from hubel.metrics.tracking.sequence import Sequence, apply_motchallenge_rules

__all__ = ["Sequence", "SequenceScores", "TrackingScores", "apply_motchallenge_rules", "score_sequences"]

# In tables: fractions in per cent, and counts.
_FRACTIONS = ("HOTA", "DetA", "AssA", "MOTA", "MOTP", "IDF1")
_COUNTS = ("IDSW", "Frag", "FP", "FN", "MT", "ML")


@dataclass(frozen=True)
class SequenceScores:
    """Metrics of one sequence, or of several together.

    Attributes:
        name: of the sequence.
        frames: number of frames.
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
    """Metrics of several sequences.

    Attributes:
        sequences: of each one.
        together: of all.
    """

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
    rows = tuple(_score(sequence) for sequence in sequences)
    together = SequenceScores(
        "together",
        sum(row.frames for row in rows),
        sum(row.objects for row in rows),
        sum(row.tracks for row in rows),
        combine_hota([row.hota for row in rows]),
        combine_clear([row.clear for row in rows]),
        combine_identity([row.identity for row in rows]),
    )
    return TrackingScores(rows, together)


def _score(sequence: Sequence) -> SequenceScores:
    sizes = sequence.frames, sequence.truth_ids, sequence.tracked_ids
    return SequenceScores(sequence.name, *sizes, hota(sequence), clear(sequence), identity(sequence))


@dataclass(frozen=True)
class Identity:
    """Counts of the identity metrics (Ristani et al. 2016, arXiv 1609.01775).

    Attributes:
        matched: true boxes that the track assigned to their object covers.
        true: true boxes.
        tracked: tracked boxes.
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
        rows, columns = (overlap >= MIN_IOU).nonzero()
        together[true[rows], tracked[columns]] += 1
    matched = int(together[linear_sum_assignment(together, maximize=True)].sum())
    return Identity(matched, sequence.true_boxes, sequence.tracked_boxes)


def combine_identity(parts: Many[Identity]) -> Identity:
    """Identity of several sequences together: sums of the counts."""
    return Identity(*(sum(getattr(part, name) for part in parts) for name in ("matched", "true", "tracked")))
