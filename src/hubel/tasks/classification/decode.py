"""From a classifier's raw scores to named classes, in NumPy: whatever engine has computed them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hubel.results import ClassScore


def probabilities(scores: np.ndarray) -> np.ndarray:
    """Softmax of raw scores: float32 (N, classes), each row of sum 1."""
    scores = scores.astype(np.float32, copy=False)
    powers: np.ndarray = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def top_k(probabilities: np.ndarray, names: Sequence[str], top: int) -> tuple[ClassScore, ...]:
    """The ``top`` most probable classes of one image, best first; ties go to the lower index.

    Args:
        probabilities: (classes,), 0..1.
        names: of all classes.
        top: how many at most.
    """
    order = np.argsort(-probabilities, kind="stable")[:top]
    return tuple(ClassScore(int(index), names[index], float(probabilities[index])) for index in order)
