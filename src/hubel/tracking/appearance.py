"""Appearance of tracks: stored embeddings, and colour histograms."""

from __future__ import annotations

from itertools import pairwise

import numpy as np


class FeatureBank:
    """The last ``budget`` appearance vectors of each track (DeepSORT, section 2.2: R_k and L_k), of ``length`` D."""

    def __init__(self, budget: int, length: int) -> None:
        self.length, self._budget = length, budget
        self._vectors = np.empty((0, budget, length), np.float32)
        self._counts = np.empty(0, np.int64)
        # Row of each track in the two arrays above; rows of dropped tracks are reused.
        self._rows = np.empty(0, np.int64)
        self._free = np.empty(0, np.int64)

    def start(self, tracks: int) -> None:
        """Append tracks without vectors."""
        if tracks > len(self._free):
            self._grow(tracks)
        rows, self._free = self._free[:tracks], self._free[tracks:]
        self._counts[rows] = 0
        self._rows = np.concatenate((self._rows, rows))

    def _grow(self, tracks: int) -> None:
        old = len(self._vectors)
        new = max(2 * old, old + tracks, 16)
        # Memory that is never written is never allocated: short tracks use little of their rows.
        vectors = np.empty((new, *self._vectors.shape[1:]), np.float32)
        for row, count in enumerate(self._counts):
            vectors[row, :count] = self._vectors[row, :count]
        self._vectors = vectors
        self._counts = np.concatenate((self._counts, np.zeros(new - old, np.int64)))
        self._free = np.concatenate((self._free, np.arange(old, new)))

    def prune(self, alive: np.ndarray) -> None:
        """Keep only the tracks that are alive, bool (N,)."""
        self._free = np.concatenate((self._free, self._rows[~alive]))
        self._rows = self._rows[alive]

    def add(self, tracks: np.ndarray, vectors: np.ndarray) -> None:
        """Store a vector (K, D) of each of K tracks (K,); beyond the budget the oldest is replaced."""
        rows = self._rows[tracks]
        self._vectors[rows, self._counts[rows] % self._budget] = vectors
        self._counts[rows] += 1

    def distances(self, tracks: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Smallest cosine distance of a unit vector to the stored ones of a track (equation 2), 0..2: float32 (K,).

        Args:
            tracks: int64 (K,), ascending.
            vectors: float32 (K, D).
        """
        similarity = np.empty(len(tracks), np.float32)
        names, first = np.unique(tracks, return_index=True)
        rows = self._rows[names]
        counts = np.minimum(self._counts[rows], self._budget).tolist()
        bounds = pairwise([*first.tolist(), len(tracks)])
        # One product per track: a single one would copy a track's vectors for each candidate.
        for row, count, (start, end) in zip(rows.tolist(), counts, bounds, strict=True):
            similarity[start:end] = (self._vectors[row, :count] @ vectors[start:end].T).max(axis=0)
        return 1 - similarity


_STRIPES = 4
_BINS = 6
# Colours of clothes are near grey: stretched differences spread them over more bins.
_STRETCH = 2.5


def column_weights(width: int) -> np.ndarray:
    """Weight of each column of a crop, 0..1: float32 (width,). Objects fill the middle, background the sides."""
    positions = (np.arange(width) + 0.5) / width
    return np.minimum(1, 3.2 * np.minimum(positions, 1 - positions)).astype(np.float32)


def stripe_colours(crops: np.ndarray) -> np.ndarray:
    """Colour histograms of four horizontal stripes: red - green, yellow - blue, lightness, in 6³ bins.

    Crops are RGB, uint8 (N, H, W, 3), H a multiple of 4. The square roots of the histograms are returned, float32
    (N, 4 · 216), so that products of vectors are Bhattacharyya coefficients; each has length 1.
    """
    count, height, width, _ = crops.shape
    red, green, blue = (crops[..., channel].astype(np.float32) for channel in range(3))
    axes = (
        128 + _STRETCH * (red - green) / 2,
        128 + _STRETCH * (red + green - 2 * blue) / 4,
        (red + green + blue) / 3,
    )
    first, second, third = (np.clip(axis * (_BINS / 256), 0, _BINS - 1).astype(np.int64) for axis in axes)
    stripe = np.arange(count * _STRIPES).reshape(count, _STRIPES, 1, 1)
    bins = ((first * _BINS + second) * _BINS + third).reshape(count, _STRIPES, height // _STRIPES, width)
    indices = bins + stripe * _BINS**3
    weights = np.broadcast_to(column_weights(width), indices.shape)
    sums = np.bincount(indices.ravel(), weights.ravel(), count * _STRIPES * _BINS**3)
    histograms: np.ndarray = np.sqrt(sums.reshape(count, _STRIPES * _BINS**3))
    histograms /= np.linalg.norm(histograms, axis=1, keepdims=True)
    return histograms.astype(np.float32)
