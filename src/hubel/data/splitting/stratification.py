"""A fair division of things that have several labels each."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np


def iterative_stratification(counts: np.ndarray, sizes: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """Deal groups out so that each part has its share of every label.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data", figure
    1): the rarest label is dealt out first, each of its groups to the part that lacks most of it; among equals to the
    part that lacks most pictures. There a group is a single thing; here it may be several that must stay together, and
    those with most of the label come first, while there is room for them.

    Args:
        counts: (N, K), how many pictures of each group have each label; every group has some.
        sizes: (N,), how many pictures a group has.
        shares: one a part; they sum to 1. A part whose share is 0 gets nothing.
        seed: with the order of the groups it alone decides.

    Returns:
        (N,) the part of each group.
    """
    dice = random.Random(seed)
    order = np.array(dice.sample(range(len(counts)), len(counts)), int)
    wanted = np.outer(shares, counts.sum(0))
    room = np.array(shares) * sizes.sum()
    part_of = np.full(len(counts), -1)
    while (part_of < 0).any():
        left = order[part_of[order] < 0]
        having = (counts[left] > 0).sum(0)
        label = min(np.flatnonzero(having).tolist(), key=lambda at: (having[at], at))
        dealt = left[counts[left, label] > 0]
        for group in dealt[np.argsort(-counts[dealt, label], kind="stable")].tolist():
            part = max(range(len(shares)), key=lambda at: (round(wanted[at, label], 9), round(room[at], 9), -at))
            part_of[group] = part
            wanted[part] -= counts[group]
            room[part] -= sizes[group]
    return part_of
