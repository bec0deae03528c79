"""The batched filters against filterpy's, which multiply matrices; and whether they last."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from filterpy_motion import correct, covariance, deepsort_matrices, predict, sort_matrices
from hubel.tracking.kalman import GATE, AreaMotion, HeightMotion, KalmanFilter

MOTIONS = {"sort": AreaMotion, "deepsort": HeightMotion}


def walking_boxes(rng: np.random.Generator, tracks: int, frames: int) -> np.ndarray:
    """(frames, tracks, 4)."""
    centre = rng.uniform(100, 900, (tracks, 2)) + np.cumsum(rng.normal(0, 4, (frames, tracks, 2)), axis=0)
    height = (
        80
        + 10 * np.sin(np.arange(frames)[:, None] / 9 + rng.uniform(0, 6, tracks))
        + rng.normal(0, 2, (frames, tracks))
    )
    half = np.stack((0.2 * height + rng.normal(0, 0.5, height.shape), height / 2), axis=-1)
    return np.concatenate((centre - half, centre + half), axis=-1)


@pytest.mark.parametrize("name", MOTIONS)
def test_equals_filterpy_step_by_step(name: str) -> None:
    rng = np.random.default_rng(3)
    boxes = walking_boxes(rng, tracks=6, frames=150)
    motion = MOTIONS[name]()
    batched = KalmanFilter(motion)
    batched.start(boxes[0])
    make = sort_matrices if name == "sort" else deepsort_matrices
    matrices = [make(observed) for observed in motion.observe(boxes[0])]
    size = matrices[0].dim_x
    for frame in range(1, len(boxes)):
        batched.predict()
        seen = rng.random(6) < 0.7
        batched.update(seen.nonzero()[0], boxes[frame, seen])
        for track, matrix in enumerate(matrices):
            predict(name, matrix)
            if seen[track]:
                correct(name, matrix, motion.observe(boxes[frame])[track])
            state = np.concatenate((batched.state[0, track], batched.state[1, track]))[:size]
            np.testing.assert_allclose(state, matrix.x[:, 0], rtol=1e-9, atol=1e-9)
            np.testing.assert_allclose(covariance(batched)[track, :size, :size], matrix.P, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", MOTIONS)
def test_a_shrinking_box_stays_a_box(name: str) -> None:
    """As filterpy with the rule that a step below nothing sets the size's velocity to 0."""
    motion = MOTIONS[name]()
    batched = KalmanFilter(motion)
    first, second = np.array([[100.0, 100, 140, 200]]), np.array([[110.0, 125, 130, 175]])
    batched.start(first)
    matrix = (sort_matrices if name == "sort" else deepsort_matrices)(motion.observe(first)[0])
    for step in range(40):
        batched.predict()
        predict(name, matrix)
        if step == 0:
            batched.update(np.array([0]), second)
            correct(name, matrix, motion.observe(second)[0])
        np.testing.assert_allclose(batched.state[0, 0], matrix.x[:4, 0], rtol=1e-9)
        x1, y1, x2, y2 = batched.boxes()[0]
        assert x1 < x2 and y1 < y2


@pytest.mark.parametrize("steps", [2, 3, 7])
@pytest.mark.parametrize("name", MOTIONS)
def test_several_steps_at_once_are_as_many_single_ones(name: str, steps: int) -> None:
    """For DeepSORT with the noise of the height at the start, which single steps would follow as it changes."""
    motion = MOTIONS[name]()
    batched = KalmanFilter(motion)
    boxes = walking_boxes(np.random.default_rng(0), tracks=1, frames=6)
    matrix = None
    for frame in boxes:
        if matrix is None:
            batched.start(frame)
            matrix = (sort_matrices if name == "sort" else deepsort_matrices)(motion.observe(frame)[0])
            continue
        batched.predict()
        predict(name, matrix)
        batched.update(np.array([0]), frame)
        correct(name, matrix, motion.observe(frame)[0])
    batched.predict(steps)
    predict(name, matrix)
    for _ in range(steps - 1):
        matrix.predict()  # with the same noise again
    size = matrix.dim_x
    state = np.concatenate((batched.state[0, 0], batched.state[1, 0]))[:size]
    np.testing.assert_allclose(state, matrix.x[:, 0], rtol=1e-9)
    np.testing.assert_allclose(covariance(batched)[0, :size, :size], matrix.P, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("elapsed", [0.05, 0.5, 1.7, 40.0])
def test_any_time_between_frames_leaves_a_covariance(elapsed: float) -> None:
    for kind in MOTIONS.values():
        batched = KalmanFilter(kind())
        batched.start(walking_boxes(np.random.default_rng(1), tracks=3, frames=1)[0])
        for _ in range(5):
            batched.predict(elapsed)
            batched.update(np.array([0, 2]), walking_boxes(np.random.default_rng(2), tracks=2, frames=1)[0])
        observable = [0, 1, 2, 3, 4, 5, 6] + ([7] if kind is HeightMotion else [])
        assert (np.linalg.eigvalsh(covariance(batched)[:, observable][:, :, observable]) > 0).all()


@pytest.mark.parametrize("name", MOTIONS)
def test_stays_positive_definite_for_100_000_steps(name: str) -> None:
    rng = np.random.default_rng(5)
    batched = KalmanFilter(MOTIONS[name]())
    boxes = walking_boxes(rng, tracks=2, frames=1)[0]
    batched.start(boxes)
    for step in range(100_000):
        batched.predict()
        # One track is seen in every frame; the other not for a long time now and then, and then again.
        seen = np.array([0, 1]) if step % 1000 < 900 else np.array([0])
        batched.update(seen, boxes[seen] + np.sin(step))
    size = 7 if name == "sort" else 8
    found = covariance(batched)[:, :size, :size]
    assert np.isfinite(batched.state).all()
    assert (np.linalg.eigvalsh(found) > 0).all()
    # The steady state solves the Riccati equation: filterpy's after 4,000 steps of the same is there, too.
    matrix = (sort_matrices if name == "sort" else deepsort_matrices)(batched.motion.observe(boxes)[0])
    for step in range(96_000, 100_000):
        predict(name, matrix)
        correct(name, matrix, batched.motion.observe(boxes + np.sin(step))[0])
    np.testing.assert_allclose(found[0], matrix.P, rtol=1e-4, atol=1e-7)


def test_the_gate_is_the_quantile_of_the_paper() -> None:
    assert pytest.approx(chi2.ppf(0.95, 4), abs=1e-12) == GATE
    assert round(GATE, 4) == 9.4877


def test_squared_distances_are_mahalanobis() -> None:
    boxes = walking_boxes(np.random.default_rng(7), tracks=3, frames=2)
    motion = HeightMotion()
    batched = KalmanFilter(motion)
    batched.start(boxes[0])
    batched.predict()
    observed = motion.observe(boxes[1])
    found = batched.squared_distances(np.arange(3), observed)
    for track in range(3):
        matrix = deepsort_matrices(motion.observe(boxes[0])[track])
        predict("deepsort", matrix)
        std = matrix.x[3, 0] / 20
        spread = matrix.P[:4, :4] + np.diag([std, std, 1e-1, std]) ** 2
        apart = observed[track] - matrix.x[:4, 0]
        np.testing.assert_allclose(found[track], apart @ np.linalg.inv(spread) @ apart, rtol=1e-9)
