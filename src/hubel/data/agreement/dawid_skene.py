"""The true classes and each annotator's errors, estimated together from nothing but the ratings.

Dawid and Skene 1979, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm" (Applied
Statistics 28, 20–28). The model: a thing is of class j with probability p_j, and annotator k then says l with
probability π_jl^(k), whatever the others say. Nothing is smoothed, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

_MOST_ROUNDS = 1000
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Estimate:
    """What the ratings say.

    Attributes:
        posteriors: (N, K), how probable each class of each thing is; rows sum to 1.
        marginals: (K,), how frequent each class is (the paper's p_j).
        error_rates: (A, K, K), by annotator, true class, class said (the paper's π_jl^(k)); zeros in rows of classes
            that the annotator never met.
        accuracies: (A,), the share of an annotator's ratings that are right, by the posteriors; NaN without any.
    """

    posteriors: np.ndarray
    marginals: np.ndarray
    error_rates: np.ndarray
    accuracies: np.ndarray


def dawid_skene(
    things: np.ndarray, annotators: np.ndarray, classes: np.ndarray, shape: tuple[int, int, int]
) -> Estimate:
    """Estimate classes and errors by expectation maximization, from the shares of votes on (the paper's 3.1).

    Args:
        things: (R,), of each rating, what was rated; every thing has a rating, and may have several by one annotator.
        annotators: (R,), who rated it.
        classes: (R,), what was said.
        shape: how many things, annotators and classes there are.
    """
    number, people, kinds = shape
    said = csr_array((np.ones(len(things)), (things, annotators * kinds + classes)), (number, people * kinds))
    votes = said @ np.tile(np.eye(kinds), (people, 1))
    posteriors = votes / votes.sum(1, keepdims=True)
    for _ in range(_MOST_ROUNDS):
        marginals, error_rates = _maximized(said, posteriors, people)
        new = _expected(said, marginals, error_rates)
        moved = float(np.abs(new - posteriors).max())
        posteriors = new
        if moved < _TOLERANCE:
            break
    right = np.bincount(annotators, posteriors[things, classes], people)
    with np.errstate(invalid="ignore"):
        accuracies = right / np.bincount(annotators, minlength=people)
    return Estimate(posteriors, marginals, error_rates, accuracies)


def _maximized(said: csr_array, posteriors: np.ndarray, people: int) -> tuple[np.ndarray, np.ndarray]:
    """The class frequencies and error rates that make the ratings most likely (the paper's 2.3 and 2.4)."""
    kinds = posteriors.shape[1]
    counts = np.asarray(said.T @ posteriors).reshape(people, kinds, kinds).transpose(0, 2, 1)
    totals = counts.sum(2, keepdims=True)
    return posteriors.mean(0), np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)


def _expected(said: csr_array, marginals: np.ndarray, error_rates: np.ndarray) -> np.ndarray:
    """The probability of each class of each thing (the paper's 2.5)."""
    people, kinds, _ = error_rates.shape
    with np.errstate(divide="ignore"):  # impossible is minus infinity
        logs = np.log(error_rates).transpose(0, 2, 1).reshape(people * kinds, kinds)
        joint = said @ logs + np.log(marginals)
    shares = np.exp(joint - joint.max(1, keepdims=True))
    posteriors: np.ndarray = shares / shares.sum(1, keepdims=True)
    return posteriors
