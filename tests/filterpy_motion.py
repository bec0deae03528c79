"""The papers' filters with filterpy's matrices, one track each."""

from __future__ import annotations

import numpy as np
from filterpy.kalman import KalmanFilter as MatrixFilter


def sort_matrices(observed: np.ndarray) -> MatrixFilter:
    """SORT's filter with the constants of its published results."""
    matrix = MatrixFilter(dim_x=7, dim_z=4)
    matrix.F, matrix.H = np.eye(7), np.eye(4, 7)
    matrix.F[[0, 1, 2], [4, 5, 6]] = 1
    matrix.x[:4, 0] = observed
    matrix.P = np.diag([10.0] * 4 + [10_000.0] * 3)
    matrix.Q = np.diag([1, 1, 1, 1, 0.01, 0.01, 0.0001])
    matrix.R = np.diag([1.0, 1, 10, 10])
    return matrix


def deepsort_matrices(observed: np.ndarray) -> MatrixFilter:
    matrix = MatrixFilter(dim_x=8, dim_z=4)
    matrix.F, matrix.H = np.eye(8), np.eye(4, 8)
    matrix.F[[0, 1, 2, 3], [4, 5, 6, 7]] = 1
    matrix.x[:4, 0] = observed
    height = observed[3]
    place, speed = height / 20, height / 160
    matrix.P = np.diag([2 * place, 2 * place, 1e-2, 2 * place, 10 * speed, 10 * speed, 1e-5, 10 * speed]) ** 2
    return matrix


def predict(name: str, matrix: MatrixFilter) -> None:
    if name == "sort":
        if matrix.x[2, 0] + matrix.x[6, 0] <= 0:
            matrix.x[6, 0] = 0
    else:
        place, speed = matrix.x[3, 0] / 20, matrix.x[3, 0] / 160
        matrix.Q = np.diag([place, place, 1e-2, place, speed, speed, 1e-5, speed]) ** 2
        if matrix.x[3, 0] + matrix.x[7, 0] <= 0:
            matrix.x[7, 0] = 0
    matrix.predict()


def correct(name: str, matrix: MatrixFilter, observed: np.ndarray) -> None:
    if name == "deepsort":
        place = matrix.x[3, 0] / 20
        matrix.R = np.diag([place, place, 1e-1, place]) ** 2
    matrix.update(observed)
