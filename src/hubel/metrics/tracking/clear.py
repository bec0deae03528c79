"""The CLEAR metrics (Bernardin and Stiefelhagen 2008, doi 10.1155/2008/246309), as MOTChallenge computes them."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, fields

import numpy as np
from scipy.optimize import linear_sum_assignment

from hubel.metrics.tracking.sequence import Sequence

MIN_IOU = 0.5
_EPSILON = np.finfo(float).eps
# Bonus for the track of the previous frame, larger than any overlap.
_KEEP = 1000.0


@dataclass(frozen=True)
class Clear:
    """Counts.

    Attributes:
        matched: true positives.
        missed: false negatives.
        false: false positives.
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
    last, previous = np.full(count, -1), np.full(count, -1)
    seen, matched_in, begun = (np.zeros(count, np.int64) for _ in range(3))
    matches, overlap_sum, switches = 0, 0.0, 0
    for true, tracked, overlap in sequence.per_frame:
        seen[true] += 1
        if not (len(true) and len(tracked)):
            # As in the official tool, objects then count as matched until the next frame with boxes of both.
            continue
        weight = _KEEP * (tracked[None] == previous[true][:, None]) + overlap
        weight[overlap < MIN_IOU - _EPSILON] = 0
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


def combine_clear(parts: Many[Clear]) -> Clear:
    """Metrics of several sequences together: sums of the counts."""
    return Clear(**{field.name: sum(getattr(part, field.name) for part in parts) for field in fields(Clear)})
