"""The true classes and each annotator's error rates, estimated together from the ratings alone.

Dawid and Skene 1979, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm" (Applied
Statistics 28, 20–28). The model: an item has class j with probability p_j, and annotator k then answers l with
probability π_jl^(k), independently of the others. Nothing is smoothed, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

_MAX_ITERATIONS = 1000
_TOLERANCE = 1e-7


@dataclass(frozen=True)
class Estimate:
    """Estimated classes and errors.

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

    Args:
        items: (R,), the item of each rating; each item has a rating, and may have several by one annotator.
        annotators: (R,), the annotator of each rating.
        classes: (R,), the answer.
        shape: number of items, annotators and classes.
    """
    number, people, kinds = shape
    answers = csr_array((np.ones(len(items)), (items, annotators * kinds + classes)), (number, people * kinds))
    votes = answers @ np.tile(np.eye(kinds), (people, 1))
    posteriors = votes / votes.sum(1, keepdims=True)
    for _ in range(_MAX_ITERATIONS):
        marginals, error_rates = _maximization(answers, posteriors, people)
        new = _expectation(answers, marginals, error_rates)
        change = float(np.abs(new - posteriors).max())
        posteriors = new
        if change < _TOLERANCE:
            break
    right = np.bincount(annotators, posteriors[items, classes], people)
    with np.errstate(invalid="ignore"):
        accuracies = right / np.bincount(annotators, minlength=people)
    return Estimate(posteriors, marginals, error_rates, accuracies)


def _maximization(answers: csr_array, posteriors: np.ndarray, people: int) -> tuple[np.ndarray, np.ndarray]:
    """Class frequencies and error rates that make the ratings most likely (paper, 2.3 and 2.4)."""
    kinds = posteriors.shape[1]
    counts = np.asarray(answers.T @ posteriors).reshape(people, kinds, kinds).transpose(0, 2, 1)
    totals = counts.sum(2, keepdims=True)
    return posteriors.mean(0), np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)


def _expectation(answers: csr_array, marginals: np.ndarray, error_rates: np.ndarray) -> np.ndarray:
    """Probability of each class of each item (paper, 2.5)."""
    people, kinds, _ = error_rates.shape
    with np.errstate(divide="ignore"):  # impossible is minus infinity
        logs = np.log(error_rates).transpose(0, 2, 1).reshape(people * kinds, kinds)
        joint = answers @ logs + np.log(marginals)
    likelihoods = np.exp(joint - joint.max(1, keepdims=True))
    posteriors: np.ndarray = likelihoods / likelihoods.sum(1, keepdims=True)
    return posteriors
