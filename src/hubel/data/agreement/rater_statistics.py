"""Statistics of a table of ratings: kappa, alpha, and Dawid and Skene's estimate of the truth and of everyone's errors.

Dawid and Skene 1979, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm" (Applied
Statistics 28, 20–28). The model: an item has class j with probability p_j, and annotator k then answers l with
probability π_jl^(k), independently of the others. Nothing is smoothed, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import softmax

UNRATED = -1
"""Instead of a class: the annotator did not rate the item."""

_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-7


def cohen_kappa(one: np.ndarray, other: np.ndarray) -> float:
    """Cohen's kappa (1960, "A coefficient of agreement for nominal scales"), -1..1.

    ``(p_o - p_e) / (1 - p_e)``: the fraction of items on which two annotators agree, compared with the fraction on
    which they would if each assigned the classes as often as before, but at random. 1 if they always agree, 0 if as
    often as by chance; NaN if no item was rated by both, or both use only one class, so that chance explains all.
    Ratings are (N,) classes from 0; items with :data:`UNRATED` are left out.
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

    1 if all agree, 0 if as often as by chance, negative if they contradict each other; NaN if no item was rated twice,
    or all have one class. Items with a single rating do not count. Ratings are (N, A), items by annotators: classes
    from 0, or :data:`UNRATED`.
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


@dataclass(frozen=True)
class Estimate:
    """Dawid and Skene's estimate.

    Attributes:
        posteriors: (N, K), probability of each class of each item; rows sum to 1.
        marginals: (K,), frequency of each class (the paper's p_j).
        error_rates: (A, K, K), by annotator, true class, answer (the paper's π_jl^(k)); zeros in rows of classes that
            the annotator never met.
        accuracies: (A,), fraction of an annotator's ratings that are right, by the posteriors; NaN without any.
    """

    posteriors: np.ndarray
    marginals: np.ndarray
    error_rates: np.ndarray
    accuracies: np.ndarray


def dawid_skene(
    items: np.ndarray, annotators: np.ndarray, classes: np.ndarray, shape: tuple[int, int, int]
) -> Estimate:
    """Estimate classes and errors by expectation maximization, starting from the fractions of votes (paper, 3.1).

    The R ratings are given by their item, annotator and class, (R,) each; each item has one, and may have several by
    one annotator. ``shape`` is the number of items, annotators and classes.
    """
    number, people, kinds = shape
    answers = csr_array((np.ones(len(items)), (items, annotators * kinds + classes)), (number, people * kinds))
    votes = answers @ np.tile(np.eye(kinds), (people, 1))
    posteriors = votes / votes.sum(1, keepdims=True)
    for _ in range(_MAX_ITERATIONS):
        # Maximization: the class frequencies and error rates that make the ratings most likely (paper, 2.3 and 2.4).
        counts = np.asarray(answers.T @ posteriors).reshape(people, kinds, kinds).transpose(0, 2, 1)
        totals = counts.sum(2, keepdims=True)
        marginals = posteriors.mean(0)
        error_rates = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
        # Expectation: the probability of each class of each item (paper, 2.5).
        with np.errstate(divide="ignore"):  # impossible is minus infinity
            logs = np.log(error_rates).transpose(0, 2, 1).reshape(people * kinds, kinds)
            joint = answers @ logs + np.log(marginals)
        before, posteriors = posteriors, softmax(joint, axis=1)
        if np.abs(posteriors - before).max() < _TOLERANCE:
            break
    right = np.bincount(annotators, posteriors[items, classes], people)
    with np.errstate(invalid="ignore"):
        accuracies = right / np.bincount(annotators, minlength=people)
    return Estimate(posteriors, marginals, error_rates, accuracies)
