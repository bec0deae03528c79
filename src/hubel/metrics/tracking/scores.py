"""All figures of sequences, each and together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hubel.metrics.tracking.clear import Clear, clear, combined_clear
from hubel.metrics.tracking.hota import Hota, combined_hota, hota
from hubel.metrics.tracking.identity import Identity, combined_identity, identity
from hubel.metrics.tracking.sequence import Sequence

# name → digits after the point; shares in per cent.
_SHARES = ("HOTA", "DetA", "AssA", "MOTA", "MOTP", "IDF1")
_COUNTS = ("IDSW", "Frag", "FP", "FN", "MT", "ML")


@dataclass(frozen=True)
class SequenceScores:
    """The figures of one sequence, or of several together.

    Attributes:
        name: of the sequence.
        frames: how many it has.
        objects: true ids.
        tracks: tracked ids.
    """

    name: str
    frames: int
    objects: int
    tracks: int
    hota: Hota
    clear: Clear
    identity: Identity

    def figures(self) -> dict[str, float]:
        """By name: fractions 0..1, and counts."""
        return {**self.hota.figures(), **self.clear.figures(), **self.identity.figures()}

    def to_json(self) -> dict[str, Any]:
        """``{"name", "frames", "objects", "tracks", "metrics"}``."""
        sizes = {"frames": self.frames, "objects": self.objects, "tracks": self.tracks}
        return {"name": self.name, **sizes, "metrics": self.figures()}


@dataclass(frozen=True)
class TrackingScores:
    """The figures of sequences.

    Attributes:
        sequences: of each.
        together: of all.
    """

    sequences: tuple[SequenceScores, ...]
    together: SequenceScores

    def to_json(self) -> dict[str, Any]:
        """``{"metrics", "per_sequence"}``."""
        rows = [scores.to_json() for scores in self.sequences]
        return {"metrics": self.together.figures(), "per_sequence": rows}

    def table(self) -> str:
        """As a person reads it, shares in per cent."""
        rows = [*self.sequences, self.together] if len(self.sequences) > 1 else list(self.sequences)
        width = max(len(row.name) for row in rows)
        lines = [" ".join([" " * width, *(f"{name:>6}" for name in (*_SHARES, *_COUNTS))])]
        for row in rows:
            figures = row.figures()
            shares = [f"{100 * figures[name]:6.2f}" for name in _SHARES]
            counts = [f"{figures[name]:6.0f}" for name in _COUNTS]
            lines.append(" ".join([f"{row.name:{width}}", *shares, *counts]))
        return "\n".join(lines)


def score_sequences(sequences: Iterable[Sequence]) -> TrackingScores:
    """Score sequences, each in memory only while it is its turn."""
    rows = tuple(_score(sequence) for sequence in sequences)
    together = SequenceScores(
        "together",
        sum(row.frames for row in rows),
        sum(row.objects for row in rows),
        sum(row.tracks for row in rows),
        combined_hota([row.hota for row in rows]),
        combined_clear([row.clear for row in rows]),
        combined_identity([row.identity for row in rows]),
    )
    return TrackingScores(rows, together)


def _score(sequence: Sequence) -> SequenceScores:
    sizes = sequence.frames, sequence.truth_ids, sequence.tracked_ids
    return SequenceScores(sequence.name, *sizes, hota(sequence), clear(sequence), identity(sequence))
