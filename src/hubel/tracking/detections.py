"""A frame's detections as a tracker takes them: checked, and without what is no box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hubel.errors import UsageError

# Sides whose products and ratios are still finite and above 0.
_SHORTEST, _LONGEST = 1e-100, 1e100


@dataclass(frozen=True, slots=True)
class FrameDetections:
    """The detections of one frame.

    Attributes:
        boxes: float64 (N, 4), x1, y1, x2, y2, finite, with an area.
        scores: float64 (N,).
        labels: int64 (N,).
        features: float32 (N, D), or ``None``.
        detections: int64 (N,), which of those handed over each is.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    features: np.ndarray | None
    detections: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def only(self, kept: np.ndarray) -> FrameDetections:
        """Some of them: bool (N,) or positions."""
        features = self.features[kept] if self.features is not None else None
        return FrameDetections(self.boxes[kept], self.scores[kept], self.labels[kept], features, self.detections[kept])


def observe(
    boxes: np.ndarray, scores: np.ndarray | None, labels: np.ndarray | None, features: np.ndarray | None
) -> FrameDetections:
    """Check what :meth:`~hubel.tracking.base.Tracker.update` was given.

    Boxes that are not finite or have no area, scores that are no number and features that are not finite are left out.

    Raises:
        UsageError: an array has the wrong shape.
    """
    boxes = np.asarray(boxes, np.float64)
    if boxes.size == 0:
        boxes = boxes.reshape(0, 4)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise UsageError(f"boxes have the shape {boxes.shape}", "use (N, 4): x1, y1, x2, y2")
    count = len(boxes)
    scores = np.ones(count) if scores is None else np.asarray(scores, np.float64).reshape(-1)
    labels = np.zeros(count, np.int64) if labels is None else np.asarray(labels, np.int64).reshape(-1)
    for what, array in (("scores", scores), ("labels", labels), ("features", features)):
        if array is not None and len(array) != count:
            raise UsageError(f"there are {count} boxes, but {len(array)} {what}", f"give {what} one for each box")
    if features is not None:
        features = np.asarray(features, np.float32)
        if features.ndim != 2 and count:
            raise UsageError(f"features have the shape {features.shape}", "use (N, D), a vector for each box")
    observed = FrameDetections(boxes, scores, labels, features, np.arange(count))
    fit = _fit(observed)
    return observed if fit.all() else observed.only(fit)


def _fit(observed: FrameDetections) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # infinite corners
        sides = observed.boxes[:, 2:] - observed.boxes[:, :2]
    fit = ((sides > _SHORTEST) & (sides < _LONGEST)).all(axis=1) & np.isfinite(observed.scores)
    if observed.features is not None and len(observed):
        fit &= np.isfinite(observed.features).all(axis=1)
    return fit
