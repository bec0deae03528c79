"""Colours of crops, as vectors."""

from __future__ import annotations

import numpy as np

_STRIPES = 4
_BINS = 6
# Clothes' colours are near grey: opponent differences are stretched so that the bins tell them apart.
_STRETCH = 2.5


def column_weights(width: int) -> np.ndarray:
    """How much each column of a crop counts, 0..1: float32 (width,). Objects fill the middle, ground the sides."""
    places = (np.arange(width) + 0.5) / width
    return np.minimum(1, 3.2 * np.minimum(places, 1 - places)).astype(np.float32)


def stripe_colours(crops: np.ndarray) -> np.ndarray:
    """Histograms of four horizontal stripes, in opponent colours (red - green, yellow - blue, lightness) of 6³ bins.

    Square roots are taken, so that products of vectors are Bhattacharyya coefficients.

    Args:
        crops: uint8 (N, H, W, 3), RGB, H a multiple of 4.

    Returns:
        float32 (N, 4 · 216), each of length 1.
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
    places = bins + stripe * _BINS**3
    weights = np.broadcast_to(column_weights(width), places.shape)
    sums = np.bincount(places.ravel(), weights.ravel(), count * _STRIPES * _BINS**3)
    histograms = np.sqrt(sums.reshape(count, _STRIPES * _BINS**3))
    return (histograms / np.linalg.norm(histograms, axis=1, keepdims=True)).astype(np.float32)
