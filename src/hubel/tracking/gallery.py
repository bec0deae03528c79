"""What tracks have looked like lately."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


class Galleries:
    """The last appearance vectors of each track (DeepSORT, section 2.2: R_k).

    Args:
        budget: how many are kept of a track, L_k.
        length: numbers in a vector, D.
    """

    def __init__(self, budget: int, length: int) -> None:
        self._budget = budget
        self._vectors = np.empty((0, budget, length), np.float32)
        self._counts = np.empty(0, np.int64)
        # Which row of the two above each track has; rows of tracks that have died are given to new ones.
        self._rows = np.empty(0, np.int64)
        self._free = np.empty(0, np.int64)

    @property
    def length(self) -> int:
        """Numbers in a vector."""
        return self._vectors.shape[2]

    def begin(self, tracks: int) -> None:
        """Append tracks of which nothing is known yet."""
        if tracks > len(self._free):
            self._grow(tracks)
        rows, self._free = self._free[:tracks], self._free[tracks:]
        self._counts[rows] = 0
        self._rows = np.concatenate((self._rows, rows))

    def _grow(self, tracks: int) -> None:
        old = len(self._vectors)
        new = max(2 * old, old + tracks, 16)
        # Memory that is never written costs nothing: short tracks take little of their rows.
        vectors = np.empty((new, *self._vectors.shape[1:]), np.float32)
        for row, count in enumerate(self._counts):
            vectors[row, :count] = self._vectors[row, :count]
        self._vectors = vectors
        self._counts = np.concatenate((self._counts, np.zeros(new - old, np.int64)))
        self._free = np.concatenate((self._free, np.arange(old, new)))

    def keep(self, alive: np.ndarray) -> None:
        """Drop the tracks that are not, bool (N,)."""
        self._free = np.concatenate((self._free, self._rows[~alive]))
        self._rows = self._rows[alive]

    def add(self, tracks: np.ndarray, vectors: np.ndarray) -> None:
        """Keep a vector of each of some tracks, int64 (K,) and float32 (K, D); the oldest of too many goes."""
        rows = self._rows[tracks]
        self._vectors[rows, self._counts[rows] % self._budget] = vectors
        self._counts[rows] += 1

    def distances(self, tracks: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Smallest cosine distance to any vector that is kept of a track (equation 2), 0..2.

        Args:
            tracks: int64 (K,), ascending.
            vectors: float32 (K, D), each of length 1.

        Returns:
            float32 (K,).
        """
        similarity = np.empty(len(tracks), np.float32)
        names, first = np.unique(tracks, return_index=True)
        rows = self._rows[names]
        counts = np.minimum(self._counts[rows], self._budget).tolist()
        bounds = pairwise([*first.tolist(), len(tracks)])
        # One product a track: all at once would first have to copy every gallery once a candidate.
        for row, count, (start, end) in zip(rows.tolist(), counts, bounds, strict=True):
            similarity[start:end] = (self._vectors[row, :count] @ vectors[start:end].T).max(axis=0)
        return 1 - similarity
