"""Which detection goes to which track: the matching of the greatest total weight."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

# Up to so many entries, one matrix is solved faster than it is taken apart.
_SMALL = 2500
# Each round settles most of what is left; in a crowd three leave a few clusters.
_ROUNDS = 3


def linear_assignment(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Of pairs that may be matched, those that give the greatest sum of weights, each row and column at most once.

    The Hungarian method's result, found faster where most rows know few columns. First, pairs are settled that are
    worth as much as the best that their row and their column could get elsewhere, together: some best matching has
    them, since it loses nothing if they are put in. The rest falls into connected components, each with a matrix of its
    own.

    Args:
        rows: int64 (K,), any numbers from 0.
        columns: int64 (K,); no pair is given twice.
        weights: float64 (K,), more than 0.

    Returns:
        int64: places in ``rows`` and ``columns`` of the chosen pairs.
    """
    if len(rows) < 2:
        return np.arange(len(rows))
    height, width = int(rows.max()) + 1, int(columns.max()) + 1
    if height * width <= _SMALL:
        return _solve(rows, columns, weights, height, width)
    chosen = []
    left = np.arange(len(rows))
    for _ in range(_ROUNDS):
        settled = _dominant(rows[left], columns[left], weights[left], height, width)
        if not len(settled):
            break
        chosen.append(left[settled])
        taken_rows, taken_columns = np.zeros(height, bool), np.zeros(width, bool)
        taken_rows[rows[chosen[-1]]] = True
        taken_columns[columns[chosen[-1]]] = True
        left = left[~(taken_rows[rows[left]] | taken_columns[columns[left]])]
    chosen.extend(_by_components(rows, columns, weights, left))
    return np.concatenate(chosen)


def _solve(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, height: int, width: int) -> np.ndarray:
    """The best matching by one matrix, in which pairs that were not given are worth nothing."""
    from scipy.optimize import linear_sum_assignment

    places = np.full((height, width), -1)
    places[rows, columns] = np.arange(len(rows))
    matrix = np.zeros((height, width))
    matrix[rows, columns] = weights
    chosen = places[linear_sum_assignment(matrix, maximize=True)]
    return chosen[chosen >= 0]


def _dominant(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pairs that are worth at least the best other pair of their row and the best other of their column together."""
    best_of_row, best_of_column = np.zeros(height), np.zeros(width)
    order = weights.argsort()
    # Of equal places the last assignment counts: the greatest weight, and which pair it is.
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
    """The best matching of the pairs at places ``left``, one component of their graph after the other."""
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
