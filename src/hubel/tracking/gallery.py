"""What tracks have looked like lately."""

from __future__ import annotations

import numpy as np

# Rows of a new gallery; it doubles until it has room for all it keeps.
_FIRST = 8


class Gallery:
    """The last appearance vectors of one track (DeepSORT, section 2.2: R_k).

    Args:
        budget: how many are kept, L_k.
    """

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._vectors = np.empty((0, 0), np.float32)
        self._count = 0

    def add(self, vector: np.ndarray) -> None:
        """Keep a vector, float32 (D,), of length 1; the oldest goes if there are too many."""
        if self._count < self._budget and self._count == len(self._vectors):
            grown = np.empty((min(max(_FIRST, 2 * self._count), self._budget), len(vector)), np.float32)
            grown[: self._count] = self._vectors.reshape(self._count, -1) if self._count else 0
            self._vectors = grown
        self._vectors[self._count % self._budget] = vector
        self._count += 1

    def distances(self, vectors: np.ndarray) -> np.ndarray:
        """Smallest cosine distance, 0..2, of each vector (K, D) to any that is kept (equation 2): (K,)."""
        kept = self._vectors[: min(self._count, self._budget)]
        distances: np.ndarray = 1 - (kept @ vectors.T).max(axis=0)
        return distances
