"""How much boxes overlap, as arrays: what scores are made from, without torch."""

from __future__ import annotations

import numpy as np


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of each box of ``a`` (N, 4) with each of ``b`` (M, 4): (N, M) in float64, 0..1."""
    a, b = _rows(a), _rows(b)
    shared = _shared(a, b)
    return shared / np.maximum(_areas(a)[:, None] + _areas(b)[None] - shared, 1e-12)


def ioa(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The share of each box of ``a`` (N, 4) that lies in each of ``b`` (M, 4): (N, M), 0..1; COCO's rule for crowds."""
    a, b = _rows(a), _rows(b)
    return _shared(a, b) / np.maximum(_areas(a)[:, None], 1e-12)


def _rows(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(boxes, np.float64).reshape(-1, 4)


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared: np.ndarray = sides.clip(0).prod(-1)
    return shared


def _areas(boxes: np.ndarray) -> np.ndarray:
    areas: np.ndarray = (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return areas
