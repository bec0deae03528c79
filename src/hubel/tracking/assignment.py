"""Linear assignment of detections to tracks: the matching with the greatest total weight."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

# Up to so many entries, one matrix is solved faster than its components.
_SMALL = 2500
# Each round matches most of what is left; in a crowd, a few clusters remain after three.
_ROUNDS = 3


def linear_assignment(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The pairs with the greatest sum of weights that contain each row and column at most once.

    The result of the Hungarian method, computed faster where most rows have few candidate columns. First, pairs are
    matched that weigh at least as much as the best other pairs of their row and of their column together: some optimal
    matching contains them. The rest falls into connected components, each with its own matrix.

    Args:
        rows: int64 (K,), from 0.
        columns: int64 (K,), from 0; pairs are unique.
        weights: float64 (K,), more than 0.

    Returns:
        int64, indices of the chosen pairs.
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
    chosen = indices[linear_sum_assignment(matrix, maximize=True)]
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
    return candidates[weights[candidates] >= elsewhere]


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
