"""Agreement beyond chance: Cohen's kappa of two annotators, Krippendorff's alpha of any number."""

from __future__ import annotations

import numpy as np

UNRATED = -1
"""Instead of a class: the annotator did not rate the item."""


def cohen_kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa (1960, "A coefficient of agreement for nominal scales"), -1..1.

    ``(p_o - p_e) / (1 - p_e)``: the fraction of items on which two annotators agree, compared with the fraction on
    which they would if each assigned the classes as often as before, but at random.

    Args:
        one: (N,) classes from 0; items with :data:`UNRATED` are left out.
        other: (N,) the other annotator's.

    Returns:
        1 if they always agree, 0 if as often as by chance; NaN if no item was rated by both, or both use one class
        only, so that chance explains everything.
    """
    both = (one >= 0) & (other >= 0)
    one, other = one[both], other[both]
    if not len(one):
        return float("nan")
    classes = int(max(one.max(), other.max())) + 1
    fractions = (np.bincount(values, minlength=classes) / len(values) for values in (one, other))
    expected = float(np.multiply(*fractions).sum())
    if expected == 1:
        return float("nan")
    return (float((one == other).mean()) - expected) / (1 - expected)


def krippendorff_alpha(ratings: np.ndarray) -> float:
    """Krippendorff's alpha for nominal data (2011, "Computing Krippendorff's Alpha-Reliability", section C).

    Any number of annotators may have left out items; items with a single rating do not count.

    Args:
        ratings: (N, A), items by annotators: classes from 0, or :data:`UNRATED`.

    Returns:
        1 if all agree, 0 if as often as by chance, negative if they contradict each other; NaN if no item was rated
        twice, or all have one class.
    """
    items, annotators = np.nonzero(ratings >= 0)
    classes = ratings[items, annotators]
    counts = np.zeros((len(ratings), int(classes.max()) + 1 if len(classes) else 1))
    np.add.at(counts, (items, classes), 1)
    rated = counts.sum(1)
    counts, rated = counts[rated >= 2], rated[rated >= 2]
    if not len(counts):
        return float("nan")
    # The coincidence matrix: each rating of an item is paired with every other one, with equal weights.
    weighted = counts / (rated - 1)[:, None]
    coincidences = weighted.T @ counts - np.diag(weighted.sum(0))
    totals = coincidences.sum(0)
    number = totals.sum()
    chance = number**2 - (totals**2).sum()
    if chance == 0:
        return float("nan")
    return float(1 - (number - 1) * (number - np.trace(coincidences)) / chance)
