"""Pairs of boxes that overlap or are close, and the one-to-one matching of such pairs with the greatest weight."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hubel import boxes

# Up to this many pairs, comparing all of them is faster than sorting.
_FEW = 2048
# Up to this many entries, one matrix is solved faster than its components.
_SMALL = 2500
# Each round matches most of what is left; in a crowd, a few clusters remain after three.
_ROUNDS = 3


def pairs_within(lowest: np.ndarray, highest: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (i, j) with ``lowest[i] <= values[j] <= highest[i]``, ordered by i: int64 (K,) and (K,)."""
    if len(lowest) * len(values) <= _FEW:
        inside = (values >= lowest[:, None]) & (values <= highest[:, None])
        found = inside.nonzero()
        return found[0], found[1]
    order = values.argsort()
    rows, columns = boxes.interval_pairs(lowest, highest, values[order])
    return rows, order[columns]


def overlapping_pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All overlapping pairs of boxes, with their IoU, in O(N √N) for N objects of constant density.

    Returns:
        Rows of ``a`` (N, 4) and of ``b`` (M, 4), int64 (K,) each, and the IoU, more than 0, (K,).
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


def linear_assignment(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The pairs with the greatest sum of weights that contain each row and column at most once.

    The result of the Hungarian method, computed faster where most rows have few candidate columns. First, pairs are
    matched that weigh at least as much as the best other pairs of their row and of their column together: some optimal
    matching contains them. The rest falls into connected components, each with its own matrix.

    Args:
        rows: int64 (K,).
        columns: int64 (K,); pairs are unique.
        weights: float64 (K,), more than 0.

    Returns:
        Indices of the chosen pairs.
    """
    if len(rows) < 2:
        return np.arange(len(rows))
    height, width = int(rows.max()) + 1, int(columns.max()) + 1
    if height * width <= _SMALL:
        return _solve(rows, columns, weights, height, width)
    chosen = []
    left = np.arange(len(rows))
    for _ in range(_ROUNDS):
        dominant = _dominant(rows[left], columns[left], weights[left], height, width)
        if not len(dominant):
            break
        chosen.append(left[dominant])
        taken_rows, taken_columns = np.zeros(height, bool), np.zeros(width, bool)
        taken_rows[rows[chosen[-1]]] = True
        taken_columns[columns[chosen[-1]]] = True
        left = left[~(taken_rows[rows[left]] | taken_columns[columns[left]])]
    chosen.extend(_by_components(rows, columns, weights, left))
    return np.concatenate(chosen)


def _solve(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, height: int, width: int) -> np.ndarray:
    """The best matching by one matrix, in which all other pairs weigh 0."""
    from scipy.optimize import linear_sum_assignment

    indices = np.full((height, width), -1)
    indices[rows, columns] = np.arange(len(rows))
    matrix = np.zeros((height, width))
    matrix[rows, columns] = weights
    chosen: np.ndarray = indices[linear_sum_assignment(matrix, maximize=True)]
    return chosen[chosen >= 0]


def _dominant(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pairs that weigh at least as much as the best other pairs of their row and of their column together."""
    best_of_row, best_of_column = np.zeros(height), np.zeros(width)
    order = weights.argsort()
    # Of several assignments to an element the last one holds: that of the greatest weight.
    first_of_row, first_of_column = np.full(height, -1), np.full(width, -1)
    first_of_row[rows[order]] = order
    first_of_column[columns[order]] = order
    rest = order[first_of_row[rows[order]] != order]
    best_of_row[rows[rest]] = weights[rest]
    rest = order[first_of_column[columns[order]] != order]
    best_of_column[columns[rest]] = weights[rest]
    candidates = first_of_row[first_of_row >= 0]
    candidates = candidates[first_of_column[columns[candidates]] == candidates]
    elsewhere = best_of_row[rows[candidates]] + best_of_column[columns[candidates]]
    dominant: np.ndarray = candidates[weights[candidates] >= elsewhere]
    return dominant


def _by_components(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, left: np.ndarray) -> list[np.ndarray]:
    """The best matching of the pairs ``left``, one connected component after the other."""
    if not len(left):
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    row_names, row = np.unique(rows[left], return_inverse=True)
    column_names, column = np.unique(columns[left], return_inverse=True)
    height, width = len(row_names), len(column_names)
    if height * width <= _SMALL:
        return [left[_solve(row, column, weights[left], height, width)]]
    graph = coo_array((np.ones(len(left), bool), (row, column + height)), shape=(height + width,) * 2)
    count, of_node = connected_components(graph, directed=False)
    component = of_node[row]
    order = component.argsort(kind="stable")
    bounds = component[order].searchsorted(np.arange(count + 1))
    chosen = []
    for first, last in pairwise(bounds.tolist()):
        part = order[first:last]
        if last - first == 1:
            chosen.append(left[part])
            continue
        _, own_row = np.unique(row[part], return_inverse=True)
        _, own_column = np.unique(column[part], return_inverse=True)
        size = int(own_row.max()) + 1, int(own_column.max()) + 1
        chosen.append(left[part[_solve(own_row, own_column, weights[left[part]], *size)]])
    return chosen
