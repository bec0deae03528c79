"""The sparse matching and the sparse overlaps against SciPy's and torchvision's dense ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torchvision.ops import box_iou

from hubel.tracking.assignment import covered_fractions, linear_assignment, overlapping_pairs, pairs_within


def crowd(rng: np.random.Generator, count: int, side: float) -> np.ndarray:
    corner = rng.uniform(0, side, (count, 2))
    return np.concatenate((corner, corner + rng.uniform(20, 60, (count, 2)) * [1, 2]), axis=1)


SIZES = [(0, 5), (5, 0), (1, 1), (7, 4), (60, 50), (400, 300)]


@pytest.mark.parametrize(("rows", "columns"), SIZES)
@pytest.mark.parametrize("spread", [(1, 1), (1, 30), (30, 1)])
def test_overlaps_are_those_of_all_pairs(rows: int, columns: int, spread: tuple[float, float]) -> None:
    rng = np.random.default_rng(rows)
    scale = np.array([*spread, *spread])
    a, b = crowd(rng, rows, 600) * scale, crowd(rng, columns, 600) * scale
    found = overlapping_pairs(a, b)
    dense = box_iou(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    sparse = np.zeros((rows, columns))
    sparse[found[0], found[1]] = found[2]
    assert len(found[0]) == (dense > 0).sum()
    np.testing.assert_allclose(sparse, dense, rtol=1e-12)


def test_covered_shares() -> None:
    """A quarter of the first lies in the second, which is half covered by it; the third is alone."""
    boxes = np.array([[0.0, 0, 40, 40], [30, 0, 50, 40], [100, 0, 110, 10]])
    np.testing.assert_allclose(covered_fractions(boxes), [0.25, 0.5, 0], rtol=1e-12)
    assert len(covered_fractions(np.empty((0, 4)))) == 0


@pytest.mark.parametrize(("rows", "columns"), SIZES)
def test_pairs_within_are_those_of_all_pairs(rows: int, columns: int) -> None:
    rng = np.random.default_rng(columns)
    low, values = rng.uniform(0, 100, rows), rng.uniform(0, 100, columns)
    high = low + rng.uniform(0, 5, rows)
    inside = (low[:, None] <= values) & (values <= high[:, None])
    found = pairs_within(low, high, values)
    assert set(zip(*map(list, found), strict=True)) == set(zip(*inside.nonzero(), strict=True))
    assert (np.diff(found[0]) >= 0).all()


def best_total(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray) -> float:
    matrix = np.zeros((rows.max() + 1, columns.max() + 1))
    matrix[rows, columns] = weights
    return float(matrix[linear_sum_assignment(matrix, maximize=True)].sum())


@pytest.mark.parametrize("count", [3, 40, 300, 1500])
@pytest.mark.parametrize("crowding", [0.3, 1.0, 3.0])
def test_the_matching_is_worth_as_much_as_scipys(count: int, crowding: float) -> None:
    """From hardly any overlaps to one tangle; and no row or column twice."""
    rng = np.random.default_rng(count)
    side = 60 * np.sqrt(count / crowding)
    boxes = crowd(rng, count, side)
    rows, columns, iou = overlapping_pairs(boxes, boxes + rng.normal(0, 6, boxes.shape) * [1, 1, 0.2, 0.2])
    chosen = linear_assignment(rows, columns, iou)
    assert len(set(rows[chosen])) == len(set(columns[chosen])) == len(chosen)
    assert iou[chosen].sum() == pytest.approx(best_total(rows, columns, iou), rel=1e-12)


def test_equal_weights_do_not_count_twice() -> None:
    rng = np.random.default_rng(0)
    rows, columns = (rng.random((80, 80)) < 0.05).nonzero()
    weights = rng.integers(1, 3, len(rows)).astype(float)
    chosen = linear_assignment(rows, columns, weights)
    assert len(set(rows[chosen])) == len(set(columns[chosen])) == len(chosen)
    assert weights[chosen].sum() == best_total(rows, columns, weights)


def test_nothing_to_match() -> None:
    none = np.empty(0, np.int64)
    assert len(linear_assignment(none, none, np.empty(0))) == 0
