"""The Kalman filters of SORT and DeepSORT, for all tracks at once.

Both papers observe four numbers of a box and let each change at a constant velocity of its own; initial covariance,
process noise and measurement noise are diagonal. Then no two of the four ever become correlated, and the filter with
7 × 7 or 8 × 8 matrices *is* four filters with 2 × 2 matrices, without approximation. The state of N tracks is their
position, velocity, and the three different entries of the 2 × 2 covariances, (N, 4) each.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

GATE = 9.487729036781154
"""0.95 quantile of χ² with four degrees of freedom: the gate of squared Mahalanobis distances (DeepSORT, t⁽¹⁾)."""


class Motion(Protocol):
    """Parametrization of a box by four numbers, and their noise; variances broadcast to (N, 4).

    Attributes:
        positive: index of the number that must stay above 0.
    """

    positive: int

    def observe(self, boxes: np.ndarray) -> np.ndarray:
        """The four numbers of boxes (N, 4), x1, y1, x2, y2."""
        ...

    def boxes(self, positions: np.ndarray) -> np.ndarray:
        """Boxes (N, 4) of the four numbers."""
        ...

    def initial(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Variances of position and velocity of new tracks."""
        ...

    def process(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Variances of position and velocity that one time step adds."""
        ...

    def measurement(self, positions: np.ndarray) -> np.ndarray:
        """Variances of the observation."""
        ...


class AreaMotion:
    """SORT's: centre x, y, area and aspect (width / height); the aspect has no velocity.

    Bewley et al. 2016, arXiv 1602.00763, section 3.2; the noise, which the paper leaves out, is that of its published
    code.
    """

    positive = 2
    _INITIAL = np.full(4, 10.0), np.array([1e4, 1e4, 1e4, 0.0])
    _PROCESS = np.ones(4), np.array([1e-2, 1e-2, 1e-4, 0.0])
    _MEASUREMENT = np.array([1.0, 1.0, 10.0, 10.0])

    def observe(self, boxes: np.ndarray) -> np.ndarray:
        """See :class:`Motion`."""
        sides = boxes[:, 2:] - boxes[:, :2]
        observed = np.empty_like(boxes)
        observed[:, :2] = boxes[:, :2] + sides / 2
        observed[:, 2] = sides[:, 0] * sides[:, 1]
        observed[:, 3] = sides[:, 0] / sides[:, 1]
        return observed

    def boxes(self, positions: np.ndarray) -> np.ndarray:
        """See :class:`Motion`."""
        # Area and aspect stay above 0: predict() ensures it, and updates lie between prediction and observation.
        width = np.sqrt(positions[:, 2] * positions[:, 3])
        return _corners(positions, width, positions[:, 2] / width)

    def initial(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Motion`."""
        return self._INITIAL

    def process(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Motion`."""
        return self._PROCESS

    def measurement(self, positions: np.ndarray) -> np.ndarray:
        """See :class:`Motion`."""
        return self._MEASUREMENT


def _corners(centres: np.ndarray, width: np.ndarray, height: np.ndarray) -> np.ndarray:
    boxes = np.empty((len(width), 4))
    boxes[:, 2] = width
    boxes[:, 3] = height
    boxes[:, 2:] /= 2
    np.subtract(centres[:, :2], boxes[:, 2:], out=boxes[:, :2])
    boxes[:, 2:] += centres[:, :2]
    return boxes


class HeightMotion:
    """DeepSORT's: centre x, y, aspect (width / height) and height, with noise in proportion to the height.

    Wojke et al. 2017, arXiv 1703.07402, section 2.1; standard deviations of 1/20 of the height for positions and 1/160
    for velocities, and fixed ones for the aspect. ByteTrack uses the same.
    """

    positive = 3
    _HEIGHT = np.array([1.0, 1.0, 0.0, 1.0])
    _ASPECT = 1 - _HEIGHT
    # Variances are the squared height times the first, plus the second; of position and velocity, (2, 1, 4).
    _INITIAL = (
        np.array([[_HEIGHT * (2 / 20) ** 2], [_HEIGHT * (10 / 160) ** 2]]),
        np.array([[_ASPECT * 1e-2**2], [_ASPECT * 1e-5**2]]),
    )
    _PROCESS = (
        np.array([[_HEIGHT / 20**2], [_HEIGHT / 160**2]]),
        np.array([[_ASPECT * 1e-2**2], [_ASPECT * 1e-5**2]]),
    )
    _MEASUREMENT = _HEIGHT / 20**2, _ASPECT * 1e-1**2

    def observe(self, boxes: np.ndarray) -> np.ndarray:
        """See :class:`Motion`."""
        sides = boxes[:, 2:] - boxes[:, :2]
        observed = np.empty_like(boxes)
        observed[:, :2] = boxes[:, :2] + sides / 2
        observed[:, 2] = sides[:, 0] / sides[:, 1]
        observed[:, 3] = sides[:, 1]
        return observed

    def boxes(self, positions: np.ndarray) -> np.ndarray:
        """See :class:`Motion`."""
        return _corners(positions, positions[:, 2] * positions[:, 3], positions[:, 3])

    def initial(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Motion`."""
        position, velocity = _affine(positions, self._INITIAL)
        return position, velocity

    def process(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See :class:`Motion`."""
        position, velocity = _affine(positions, self._PROCESS)
        return position, velocity

    def measurement(self, positions: np.ndarray) -> np.ndarray:
        """See :class:`Motion`."""
        return _affine(positions, self._MEASUREMENT)


def _affine(positions: np.ndarray, variances: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    of_squared_height, fixed = variances
    variance: np.ndarray = positions[:, 3:] ** 2 * of_squared_height
    variance += fixed
    return variance


class KalmanFilter:
    """Kalman filters of N tracks.

    Attributes:
        motion: parametrization of the boxes.
        state: float64 (5, N, 4): position, velocity, variance of the position, covariance of the two, variance of the
            velocity. Velocities are per time step, the usual time between two frames.
    """

    def __init__(self, motion: Motion) -> None:
        self.motion = motion
        self.state = np.empty((5, 0, 4))

    def __len__(self) -> int:
        return self.state.shape[1]

    @property
    def position(self) -> np.ndarray:
        """(N, 4), as the motion observes boxes."""
        return self.state[0]

    @property
    def velocity(self) -> np.ndarray:
        """(N, 4), the same per time step."""
        return self.state[1]

    def boxes(self, tracks: np.ndarray | None = None) -> np.ndarray:
        """x1, y1, x2, y2 in pixels of some tracks, int64 (K,), or of all: (K, 4)."""
        return self.motion.boxes(self.state[0] if tracks is None else self.state[0, tracks])

    def covariance(self) -> np.ndarray:
        """(N, 8, 8): of the four positions, then of the four velocities."""
        full = np.zeros((len(self), 8, 8))
        i = np.arange(4)
        full[:, i, i] = self.state[2]
        full[:, i, i + 4] = full[:, i + 4, i] = self.state[3]
        full[:, i + 4, i + 4] = self.state[4]
        return full

    def start(self, boxes: np.ndarray) -> None:
        """Append tracks at boxes (K, 4), with velocity 0."""
        new = np.zeros((5, len(boxes), 4))
        new[0] = self.motion.observe(boxes)
        new[2], new[4] = self.motion.initial(new[0])
        self.state = np.concatenate((self.state, new), axis=1)

    def prune(self, alive: np.ndarray) -> None:
        """Keep only the tracks that are alive, bool (N,)."""
        self.state = self.state[:, alive]

    def predict(self, elapsed: float = 1.0) -> None:
        """Predict all tracks.

        A whole number of steps at once equals as many single steps. Where the area or the height would become negative,
        its velocity is set to 0 first.

        Args:
            elapsed: time steps, more than 0.
        """
        if not len(self):
            return
        position, velocity, variance, covariance, velocity_variance = self.state
        of_position, of_velocity = self.motion.process(position)
        size = self.motion.positive
        shrinking = position[:, size] + elapsed * velocity[:, size] <= 0
        if shrinking.any():
            velocity[shrinking, size] = 0
        position += elapsed * velocity
        variance += elapsed * covariance
        covariance += elapsed * velocity_variance
        variance += elapsed * covariance
        variance += elapsed * of_position
        velocity_variance += elapsed * of_velocity
        if elapsed != 1:
            # Effect of each step's velocity noise on the final position: Σ i and Σ i² for i below elapsed.
            covariance += elapsed * (elapsed - 1) / 2 * of_velocity
            variance += elapsed * (elapsed - 1) * (2 * elapsed - 1) / 6 * of_velocity

    def update(self, tracks: np.ndarray, boxes: np.ndarray) -> None:
        """Update tracks with observations.

        For a scalar observation, Joseph's form of the variance is gain times noise, which avoids cancellation.

        Args:
            tracks: int64 (K,), unique.
            boxes: (K, 4), observed.
        """
        if not len(tracks):
            return
        state = self.state[:, tracks]
        noise = self.motion.measurement(state[0])
        covariance = state[3]
        gains = state[2:4] / (state[2] + noise)  # of the position and of the velocity
        state[:2] += gains * (self.motion.observe(boxes) - state[0])
        state[4] -= gains[1] * covariance
        state[2:4] = gains * noise
        self.state[:, tracks] = state

    def squared_distances(self, tracks: np.ndarray, observed: np.ndarray) -> np.ndarray:
        """Squared Mahalanobis distance of each observation from the prediction of its track (DeepSORT, equation 1).

        Args:
            tracks: int64 (K,).
            observed: (K, 4), by :meth:`Motion.observe`.

        Returns:
            (K,); compare with :data:`GATE`.
        """
        position = self.state[0, tracks]
        total = self.state[2, tracks] + self.motion.measurement(position)
        distances: np.ndarray = ((observed - position) ** 2 / total).sum(axis=1)
        return distances
