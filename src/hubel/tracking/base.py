"""Interface and parameters of the trackers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from hubel.errors import UsageError

Appearance = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Embeds the objects of a frame: RGB uint8 (H, W, 3) and boxes (N, 4) in its pixels → float32 (N, D), unit vectors."""


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


class Tracker(Protocol):
    """Tracks objects from frame to frame.

    Attributes:
        name: as in :func:`~hubel.tracking.create_tracker`.
        needs_features: :meth:`update` requires appearance vectors.
    """

    name: str
    needs_features: bool

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
        ...


_WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


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
    """Parse ``NAME=VALUE``; each value gets the type of the parameter's default.

    Args:
        kind: dataclass of the parameters.
        assignments: the texts.

    Raises:
        UsageError: the parameter does not exist, or the value has another type.
    """
    defaults = {field.name: field.default for field in fields(kind)}
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or name not in defaults:
            raise UsageError(f"--set {assignment} sets nothing that there is", f"use --set with {describe(kind)}")
        values[name] = _read(name, text, defaults[name])
    return values


def _read(name: str, text: str, default: Any) -> Any:
    if isinstance(default, bool):
        if text.lower() not in _WORDS:
            raise UsageError(f"{name} is {text!r}", "use true or false")
        return _WORDS[text.lower()]
    try:
        return int(text) if isinstance(default, int) else float(text)
    except ValueError as error:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise UsageError(f"{name} is {text!r}", f"use {kind}, such as {default}") from error
