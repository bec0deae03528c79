"""Agreement beyond chance: Cohen's kappa of two annotators, Krippendorff's alpha of any number."""

from __future__ import annotations

import numpy as np

UNRATED = -1
"""In place of a class: this annotator did not rate this thing."""


def cohen_kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa (1960, "A coefficient of agreement for nominal scales"), -1..1.

    ``(p_o - p_e) / (1 - p_e)``: the share of things on which two agree, against the share on which they would if each
    gave out the classes as often as before, but blindly.

    Args:
        one: (N,) classes from 0; :data:`UNRATED` where there is none, and such things are left out.
        other: (N,) likewise.

    Returns:
        1 where they always agree, 0 where they do as often as by chance; NaN where nothing was rated by both, or both
        know one class only, so that chance alone explains everything.
    """
    both = (one >= 0) & (other >= 0)
    one, other = one[both], other[both]
    if not len(one):
        return float("nan")
    classes = int(max(one.max(), other.max())) + 1
    shares = (np.bincount(values, minlength=classes) / len(values) for values in (one, other))
    expected = float(np.multiply(*shares).sum())
    if expected == 1:
        return float("nan")
    return (float((one == other).mean()) - expected) / (1 - expected)


def krippendorff_alpha(ratings: np.ndarray) -> float:
    """Krippendorff's alpha for classes without order (2011, "Computing Krippendorff's Alpha-Reliability", section C).

    Any number of annotators, of whom any may have left things out; things that only one has rated do not count.

    Args:
        ratings: (N, A), things by annotators: classes from 0, or :data:`UNRATED`.

    Returns:
        1 where all agree, 0 where they do as often as by chance, below where they contradict each other; NaN where
        nothing was rated twice, or with one class only.
    """
    counts = _counts(ratings)
    together = counts.sum(1)
    counts, together = counts[together >= 2], together[together >= 2]
    if not len(counts):
        return float("nan")
    # The matrix of coincidences: within each thing every rating is paired with every other, each with the same weight.
    weighted = counts / (together - 1)[:, None]
    coincidences = weighted.T @ counts - np.diag(weighted.sum(0))
    totals = coincidences.sum(0)
    number = totals.sum()
    chance = number**2 - (totals**2).sum()
    if chance == 0:
        return float("nan")
    return float(1 - (number - 1) * (number - np.trace(coincidences)) / chance)


def _counts(ratings: np.ndarray) -> np.ndarray:
    """How often each thing got each class: (N, K)."""
    things, annotators = np.nonzero(ratings >= 0)
    classes = ratings[things, annotators]
    counts = np.zeros((len(ratings), int(classes.max()) + 1 if len(classes) else 1))
    np.add.at(counts, (things, classes), 1)
    return counts
