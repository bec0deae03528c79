"""Pairs of boxes that overlap or are close, found without comparing all pairs."""

from __future__ import annotations

import numpy as np

from hubel import boxes

# Up to so many pairs, comparing all of them is faster than sorting.
_FEW = 2048

Pairs = tuple[np.ndarray, np.ndarray]


def pairs_within(lowest: np.ndarray, highest: np.ndarray, values: np.ndarray) -> Pairs:
    """Pairs (i, j) with ``lowest[i] <= values[j] <= highest[i]``.

    Args:
        lowest: (N,).
        highest: (N,), not below ``lowest``.
        values: (M,).

    Returns:
        int64 (K,) and (K,), ordered by i.
    """
    if len(lowest) * len(values) <= _FEW:
        inside = (values >= lowest[:, None]) & (values <= highest[:, None])
        found = inside.nonzero()
        return found[0], found[1]
    order = values.argsort()
    ascending = values[order]
    first = ascending.searchsorted(lowest)
    counts = ascending.searchsorted(highest, side="right") - first
    rows = np.arange(len(lowest)).repeat(counts)
    ends = counts.cumsum()
    positions = np.arange(ends[-1] if len(ends) else 0) + (first - ends + counts).repeat(counts)
    return rows, order[positions]


def overlapping_pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All overlapping pairs of boxes, with their IoU, in O(N √N) for N objects of constant density.

    Args:
        a: (N, 4), x1, y1, x2, y2.
        b: (M, 4).

    Returns:
        int64 (K,) and (K,), rows of ``a`` and ``b``; float64 (K,), more than 0 up to 1.
    """
    if not (len(a) and len(b)):
        none = np.empty(0, np.int64)
        return none, none, np.empty(0)
    if len(a) * len(b) <= _FEW:
        matrix = boxes.iou(a, b)
        rows, columns = matrix.nonzero()
        return rows, columns, matrix[rows, columns]
    # Along the axis on which the boxes are spread out most, relative to their size.
    axis = int(np.ptp(b[:, 1]) * (b[:, 2] - b[:, 0]).mean() > np.ptp(b[:, 0]) * (b[:, 3] - b[:, 1]).mean())
    longest = (b[:, axis + 2] - b[:, axis]).max()
    rows, columns = pairs_within(a[:, axis] - longest, a[:, axis + 2], b[:, axis])
    other = 1 - axis
    near = (a[rows, other] < b[columns, other + 2]) & (b[columns, other] < a[rows, other + 2])
    rows, columns = rows[near], columns[near]
    iou = boxes.paired_iou(a[rows], b[columns])
    overlap = iou > 0
    return rows[overlap], columns[overlap], iou[overlap]


def covered_fractions(a: np.ndarray) -> np.ndarray:
    """Largest fraction of each box (N, 4) that another one covers: (N,), 0..1."""
    rows, columns, iou = overlapping_pairs(a, a)
    others = rows != columns
    rows, columns, iou = rows[others], columns[others], iou[others]
    area = boxes.area(a)
    fractions = np.zeros(len(a))
    # The intersection of two areas is IoU / (1 + IoU) of their sum.
    np.maximum.at(fractions, rows, iou / (1 + iou) * (area[rows] + area[columns]) / area[rows])
    return fractions
