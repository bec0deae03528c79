"""The Kalman filters of SORT and DeepSORT, for all tracks at once.

Both papers observe four numbers of a box and let each change at a constant velocity of its own; initial covariance,
process noise and measurement noise are diagonal. Then no two of the four ever become correlated, and the filter with
7 × 7 or 8 × 8 matrices *is* four filters with 2 × 2 matrices, without approximation. The state of N tracks is their
position, velocity, and the three different entries of the 2 × 2 covariances, (N, 4) each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

GATE = 9.487729036781154
"""0.95 quantile of χ² with four degrees of freedom: the gate of squared Mahalanobis distances (DeepSORT, t⁽¹⁾)."""

Noise = tuple[np.ndarray | None, np.ndarray]
"""Variances that broadcast to (N, 4): the squared height of the box times the first, plus the second."""


class Motion(ABC):
    """A box as four numbers, the first two its centre x and y, and their noise.

    Attributes:
        positive: index of the number that must stay above 0.
        initial: variances of position and velocity of new tracks, (2, 1, 4).
        process: variances of position and velocity that one time step adds, (2, 1, 4).
        measurement: variances of the observation.
    """

    positive: int
    initial: Noise
    process: Noise
    measurement: Noise

    def observe(self, boxes: np.ndarray) -> np.ndarray:
        """The four numbers of boxes (N, 4), x1, y1, x2, y2."""
        sizes = boxes[:, 2:] - boxes[:, :2]
        observed = np.empty_like(boxes)
        observed[:, :2] = boxes[:, :2] + sizes / 2
        observed[:, 2], observed[:, 3] = self._shape(sizes[:, 0], sizes[:, 1])
        return observed

    def boxes(self, positions: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) of the four numbers."""
        boxes = np.empty((len(positions), 4))
        boxes[:, 2], boxes[:, 3] = self._size(positions[:, 2], positions[:, 3])
        boxes[:, 2:] /= 2
        np.subtract(positions[:, :2], boxes[:, 2:], out=boxes[:, :2])
        boxes[:, 2:] += positions[:, :2]
        return boxes

    @abstractmethod
    def _shape(self, width: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The third and the fourth number."""

    @abstractmethod
    def _size(self, third: np.ndarray, fourth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Width and height."""


class AreaMotion(Motion):
    """SORT's: centre x, y, area and aspect (width / height); the aspect has no velocity.

    Bewley et al. 2016, arXiv 1602.00763, section 3.2; the noise, which the paper leaves out, is that of its published
    code.
    """

    positive = 2
    initial = None, np.array([[[10.0, 10.0, 10.0, 10.0]], [[1e4, 1e4, 1e4, 0.0]]])
    process = None, np.array([[[1.0, 1.0, 1.0, 1.0]], [[1e-2, 1e-2, 1e-4, 0.0]]])
    measurement = None, np.array([1.0, 1.0, 10.0, 10.0])

    def _shape(self, width: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return width * height, width / height

    def _size(self, third: np.ndarray, fourth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # Area and aspect stay above 0: predict() ensures it, and updates lie between prediction and observation.
        width = np.sqrt(third * fourth)
        return width, third / width


_HEIGHT = np.array([1.0, 1.0, 0.0, 1.0])
_ASPECT = 1 - _HEIGHT


class HeightMotion(Motion):
    """DeepSORT's: centre x, y, aspect (width / height) and height, with noise in proportion to the height.

    Wojke et al. 2017, arXiv 1703.07402, section 2.1; standard deviations of 1/20 of the height for positions and 1/160
    for velocities, and fixed ones for the aspect. ByteTrack uses the same.
    """

    positive = 3
    initial = (
        np.array([[_HEIGHT * (2 / 20) ** 2], [_HEIGHT * (10 / 160) ** 2]]),
        np.array([[_ASPECT * 1e-2**2], [_ASPECT * 1e-5**2]]),
    )
    process = (
        np.array([[_HEIGHT / 20**2], [_HEIGHT / 160**2]]),
        np.array([[_ASPECT * 1e-2**2], [_ASPECT * 1e-5**2]]),
    )
    measurement = _HEIGHT / 20**2, _ASPECT * 1e-1**2

    def _shape(self, width: np.ndarray, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return width / height, height

    def _size(self, third: np.ndarray, fourth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return third * fourth, fourth


def _variances(noise: Noise, positions: np.ndarray) -> np.ndarray:
    of_squared_height, fixed = noise
    if of_squared_height is None:
        return fixed
    variances: np.ndarray = positions[:, 3:] ** 2 * of_squared_height
    variances += fixed
    return variances


class KalmanFilter:
    """Kalman filters of N tracks.

    Attributes:
        state: float64 (5, N, 4): position, velocity, variance of the position, covariance of the two, variance of the
            velocity. Velocities are per time step, the usual time between two frames.
    """

    def __init__(self, motion: Motion) -> None:
        self.motion = motion
        self.state = np.empty((5, 0, 4))

    def boxes(self, tracks: np.ndarray | None = None) -> np.ndarray:
        """x1, y1, x2, y2 in pixels of some tracks, int64 (K,), or of all: (K, 4)."""
        return self.motion.boxes(self.state[0] if tracks is None else self.state[0, tracks])

    def start(self, boxes: np.ndarray) -> None:
        """Append tracks at boxes (K, 4), with velocity 0."""
        new = np.zeros((5, len(boxes), 4))
        new[0] = self.motion.observe(boxes)
        new[2], new[4] = _variances(self.motion.initial, new[0])
        self.state = np.concatenate((self.state, new), axis=1)

    def prune(self, alive: np.ndarray) -> None:
        """Keep only the tracks that are alive, bool (N,)."""
        self.state = self.state[:, alive]

    def predict(self, elapsed: float = 1.0) -> None:
        """Predict all tracks, ``elapsed`` time steps ahead.

        A whole number of steps at once equals as many single steps. Where the area or the height would become negative,
        its velocity is set to 0 first.
        """
        position, velocity, variance, covariance, velocity_variance = self.state
        if not len(position):
            return
        of_position, of_velocity = _variances(self.motion.process, position)

        def times_elapsed(change: np.ndarray) -> np.ndarray:
            return change if elapsed == 1 else elapsed * change

        size = self.motion.positive
        shrinking = position[:, size] + times_elapsed(velocity[:, size]) <= 0
        if shrinking.any():
            velocity[shrinking, size] = 0
        position += times_elapsed(velocity)
        variance += times_elapsed(covariance)
        covariance += times_elapsed(velocity_variance)
        variance += times_elapsed(covariance)
        variance += times_elapsed(of_position)
        velocity_variance += times_elapsed(of_velocity)
        if elapsed != 1:
            # Effect of each step's velocity noise on the final position: Σ i and Σ i² for i below elapsed.
            covariance += elapsed * (elapsed - 1) / 2 * of_velocity
            variance += elapsed * (elapsed - 1) * (2 * elapsed - 1) / 6 * of_velocity

    def update(self, tracks: np.ndarray, boxes: np.ndarray) -> None:
        """Update tracks, int64 (K,), unique, with observed boxes (K, 4).

        For a scalar observation, Joseph's form of the variance is gain times noise, which avoids cancellation.
        """
        if not len(tracks):
            return
        state = self.state[:, tracks]
        noise = _variances(self.motion.measurement, state[0])
        covariance = state[3]
        gains = state[2:4] / (state[2] + noise)  # of the position and of the velocity
        state[:2] += gains * (self.motion.observe(boxes) - state[0])
        state[4] -= gains[1] * covariance
        state[2:4] = gains * noise
        self.state[:, tracks] = state

    def predicted(self, tracks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Observations to expect of tracks, int64 (K,), and their variances: (K, 4) each."""
        position = self.state[0, tracks]
        return position, self.state[2, tracks] + _variances(self.motion.measurement, position)

    def squared_distances(self, tracks: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of each observation (K, 4) from the prediction of its track (K,): (K,).

        Equation 1 of DeepSORT; compare with :data:`GATE`. :meth:`Motion.observe` makes the observations.
        """
        position, variance = self.predicted(tracks)
        distances: np.ndarray = ((observed - position) ** 2 / variance).sum(axis=1)
        return distances
