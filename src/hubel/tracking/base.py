"""Shared by all trackers: interface, detections of a frame, state of the tracks, checks of parameters."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np

from hubel.errors import UsageError
from hubel.tracking.assignment import overlapping_pairs
from hubel.tracking.kalman import KalmanFilter, Motion

Appearance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Embeds the objects of a frame: RGB uint8 (H, W, 3) and boxes (N, 4) in its pixels → float32 (N, D), unit vectors."""

# Sizes whose products and ratios are finite and above 0.
_MIN_SIZE, _MAX_SIZE = 1e-100, 1e100

_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True)
class TrackUpdate:
    """Tracks of one frame, oldest first.

    Attributes:
        ids: int64 (M,), from 1; ids are never reused.
        boxes: float64 (M, 4), x1, y1, x2, y2 in pixels.
        scores: float64 (M,), of the detections.
        labels: int64 (M,), of the detections.
        detections: int64 (M,), index of the detection that each track was matched with.
    """

    ids: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    detections: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class FrameDetections:
    """The detections of one frame.

    Attributes:
        boxes: float64 (N, 4), x1, y1, x2, y2, finite, with an area.
        scores: float64 (N,).
        labels: int64 (N,).
        features: float32 (N, D), or ``None``.
        detections: int64 (N,), indices of the rows that the tracker was given.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    features: np.ndarray | None
    detections: np.ndarray

    def __len__(self) -> int:
        return len(self.boxes)

    def only(self, kept: np.ndarray) -> FrameDetections:
        """A selection: bool (N,) or indices."""
        features = self.features[kept] if self.features is not None else None
        return FrameDetections(self.boxes[kept], self.scores[kept], self.labels[kept], features, self.detections[kept])


class TrackStore:
    """Motion and columns of N tracks, oldest first.

    Attributes:
        ids: int64 (N,): 0 until a track is reported for the first time, so that ids have no gaps.
        labels: int64 (N,): classes.
        detection: int64 (N,): index of the detection that was matched in the current frame; -1 for none.
        hits: int64 (N,): matched frames, the first included.
        streak: int64 (N,): consecutive matches after the first detection.
        missed: float64 (N,): frames since the last match; 0 if matched in the current frame.
        started: float64 (N,): time of the first detection.
        confirmed: bool (N,): set by the trackers that report only confirmed tracks.
        time: frames since the start.
    """

    _COLUMNS = ("ids", "labels", "detection", "hits", "streak", "missed", "started", "confirmed")

    def __init__(self, motion: Motion) -> None:
        self.filter = KalmanFilter(motion)
        self.ids, self.labels, self.detection, self.hits, self.streak = np.empty((5, 0), np.int64)
        self.missed, self.started = np.empty((2, 0))
        self.confirmed = np.empty(0, bool)
        self.time = 0.0
        self._emitted = 0

    def __len__(self) -> int:
        return len(self.ids)

    def predict(self, elapsed: float) -> None:
        """Predict the tracks at the time of the next frame.

        Raises:
            UsageError: ``elapsed`` is not more than 0.
        """
        if not 0 < elapsed < np.inf:
            raise UsageError(f"elapsed is {elapsed}", "use a number above 0, in frames")
        self.time += elapsed
        self.filter.predict(elapsed)
        self.streak[self.missed > 0] = 0
        self.missed += elapsed
        self.detection[:] = -1

    def overlaps(
        self, tracks: np.ndarray | None, boxes: np.ndarray, detections: FrameDetections
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Overlapping pairs of tracks and detections of one class: their indices, and the IoU.

        ``boxes`` (N, 4) are those of all tracks; ``tracks`` selects those to compare, by index.
        """
        rows, columns, iou = overlapping_pairs(boxes if tracks is None else boxes[tracks], detections.boxes)
        if tracks is not None:
            rows = tracks[rows]
        same = self.labels[rows] == detections.labels[columns]
        return (rows, columns, iou) if same.all() else (rows[same], columns[same], iou[same])

    def match(self, detections: FrameDetections) -> None:
        """Update the motion of the tracks that have a :attr:`detection`; count the hits."""
        tracks = (self.detection >= 0).nonzero()[0]
        self.filter.update(tracks, detections.boxes[self.detection[tracks]])
        self.hits[tracks] += 1
        self.streak[tracks] += 1
        self.missed[tracks] = 0

    def start(self, detections: FrameDetections, may_start: np.ndarray, confirmed: bool = False) -> int:
        """Start tracks from the unmatched detections that may, bool (N,); return how many."""
        may_start[self.detection[self.detection >= 0]] = False
        new = may_start.nonzero()[0]
        count = len(new)
        if count:
            self.filter.start(detections.boxes[new])
            values = (0, detections.labels[new], new, 1, 0, 0, self.time, confirmed)
            for name, value in zip(self._COLUMNS, values, strict=True):
                column = getattr(self, name)
                longer = np.empty(len(column) + count, column.dtype)
                longer[:-count], longer[-count:] = column, value
                setattr(self, name, longer)
        return count

    def prune(self, alive: np.ndarray) -> None:
        """Keep only the tracks that are alive, bool (N,)."""
        if alive.all():
            return
        self.filter.prune(alive)
        for name in self._COLUMNS:
            setattr(self, name, getattr(self, name)[alive])

    def emit(self, tracks: np.ndarray, boxes: np.ndarray, detections: FrameDetections) -> TrackUpdate:
        """Report matched tracks (K,), ascending, at boxes (K, 4); new ones get an id."""
        new = tracks[self.ids[tracks] == 0]
        if len(new):
            self.ids[new] = np.arange(len(new)) + self._emitted + 1
            self._emitted += len(new)
        matched = self.detection[tracks]
        return TrackUpdate(
            self.ids[tracks], boxes, detections.scores[matched], self.labels[tracks], detections.detections[matched]
        )


class Tracker(ABC):
    """Tracks objects from frame to frame.

    Args:
        parameters: ``Parameters`` of the tracker; the defaults are the paper's.

    Attributes:
        name: as in :func:`~hubel.tracking.create_tracker`.
        needs_features: :meth:`update` requires appearance vectors.
        Parameters: a dataclass.
    """

    name: ClassVar[str]
    needs_features: ClassVar[bool] = False
    Parameters: ClassVar[Any]
    _motion: ClassVar[type[Motion]]

    def __init__(self, parameters: Any = None) -> None:
        self.parameters = parameters or self.Parameters()
        self._tracks = TrackStore(self._motion())

    def update(
        self,
        boxes: np.ndarray,
        scores: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        features: np.ndarray | None = None,
        *,
        elapsed: float = 1.0,
    ) -> TrackUpdate:
        """Process the detections of the next frame; call it for frames without detections too.

        Args:
            boxes: (N, 4), x1, y1, x2, y2 in pixels. Boxes that are not finite or have no area are ignored.
            scores: (N,), 0..1; ``None``: all 1.
            labels: (N,) integers: objects of different classes are never matched; ``None``: all 0.
            features: float32 (N, D), unit vectors, if the tracker compares appearances.
            elapsed: time since the previous frame, in frame intervals: 2 if a frame was dropped.

        Raises:
            UsageError: an array has the wrong shape, features are missing, or ``elapsed`` is not positive.
        """
        return self._update(_validate(boxes, scores, labels, features if self.needs_features else None), elapsed)

    @abstractmethod
    def _update(self, detections: FrameDetections, elapsed: float) -> TrackUpdate: ...


def _validate(
    boxes: np.ndarray, scores: np.ndarray | None, labels: np.ndarray | None, features: np.ndarray | None
) -> FrameDetections:
    """Check the arguments of :meth:`Tracker.update`; leave out what is not finite, and boxes without an area."""
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
            raise UsageError(f"{count} boxes, but {len(array)} {what}", "pass one per box")
    with np.errstate(invalid="ignore"):  # infinite corners
        sizes = boxes[:, 2:] - boxes[:, :2]
    valid = ((sizes > _MIN_SIZE) & (sizes < _MAX_SIZE)).all(axis=1) & np.isfinite(scores)
    if features is not None:
        features = np.asarray(features, np.float32)
        if features.ndim != 2 and count:
            raise UsageError(f"features have the shape {features.shape}", "use (N, D), a vector for each box")
        if count:
            valid &= np.isfinite(features).all(axis=1)
    detections = FrameDetections(boxes, scores, labels, features, np.arange(count))
    return detections if valid.all() else detections.only(valid)


def at_least(name: str, value: float, least: float) -> None:
    """Raise :class:`UsageError` unless ``value`` is a number of ``least`` or more."""
    if not value >= least:
        raise UsageError(f"{name} is {value}", f"use {least} or more")


def fraction(name: str, value: float) -> None:
    """Raise :class:`UsageError` unless ``value`` is from 0 to 1."""
    if not 0 <= value <= 1:
        raise UsageError(f"{name} is {value}", "use a fraction from 0 to 1")


def describe(kind: Any) -> str:
    """The parameters of a dataclass with their defaults: ``max_age=1, min_hits=3``."""
    return ", ".join(f"{field.name}={field.default}" for field in fields(kind))


def parse(kind: Any, assignments: Iterable[str]) -> dict[str, Any]:
    """Parse ``NAME=VALUE`` for a dataclass of parameters; each value gets the type of the parameter's default.

    Raises:
        UsageError: the parameter does not exist, or the value has another type.
    """
    defaults = {field.name: field.default for field in fields(kind)}
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or name not in defaults:
            close = difflib.get_close_matches(name, defaults, 1)
            hint = f"did you mean {close[0]}={defaults[close[0]]}?" if close else f"use --set with {describe(kind)}"
            raise UsageError(f"--set {assignment}: unknown parameter", hint)
        values[name] = _read(name, text, defaults[name])
    return values


def _read(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in _WORDS:
            raise UsageError(f"{name} is {text!r}", "use true or false")
        return _WORDS[text.lower()]
    try:
        if "_" in text or not text.isascii():  # which Python takes for numbers
            raise ValueError(text)
        return int(text) if isinstance(default, int) else float(text)
    except ValueError as error:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise UsageError(f"{name} is {text!r}", f"use {kind}, such as {default}") from error
