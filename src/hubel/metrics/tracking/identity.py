"""Identity metrics (Ristani et al. 2016, arXiv 1609.01775): one track for each object, over the whole sequence."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from hubel.metrics.tracking.sequence import Sequence

LEAST_IOU = 0.5


@dataclass(frozen=True)
class Identity:
    """Counts.

    Attributes:
        matched: boxes of objects where the track that is theirs for the whole sequence is, too.
        true: true boxes.
        tracked: tracked boxes.
    """

    matched: int
    true: int
    tracked: int

    def figures(self) -> dict[str, float]:
        """IDF1, IDP and IDR, 0..1 (equations 11 to 13)."""
        return {
            "IDF1": 2 * self.matched / max(1, self.true + self.tracked),
            "IDP": self.matched / max(1, self.tracked),
            "IDR": self.matched / max(1, self.true),
        }


def identity(sequence: Sequence) -> Identity:
    """Score a sequence: objects and tracks are matched one to one for the most boxes with an IoU of 0.5 or more."""
    together = np.zeros((sequence.truth_ids, sequence.tracked_ids), np.int64)
    for true, tracked, overlap in sequence.per_frame:
        rows, columns = (overlap >= LEAST_IOU).nonzero()
        together[true[rows], tracked[columns]] += 1
    matched = int(together[linear_sum_assignment(together, maximize=True)].sum())
    return Identity(matched, sequence.true_boxes, sequence.tracked_boxes)


def combined_identity(parts: Many[Identity]) -> Identity:
    """Of several sequences together: counts add up."""
    return Identity(*(sum(getattr(part, name) for part in parts) for name in ("matched", "true", "tracked")))
