"""Trackers by their names."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hubel.errors import UsageError
from hubel.tracking.base import Tracker, describe
from hubel.tracking.bytetrack import ByteTrack
from hubel.tracking.deepsort import DeepSort
from hubel.tracking.sort import Sort

TRACKERS: dict[str, Any] = {kind.name: kind for kind in (Sort, DeepSort, ByteTrack)}
"""Name → class; its ``Parameters`` is a dataclass with the papers' names and defaults."""


def create_tracker(name: str, **parameters: Any) -> Tracker:
    """A tracker that has seen nothing yet.

    Args:
        name: ``"sort"``, ``"deepsort"`` or ``"bytetrack"``.
        parameters: in place of the paper's, by its names.

    Raises:
        UsageError: there is no such tracker or parameter, or a value is not what it may be.
    """
    if name not in TRACKERS:
        raise UsageError(f"there is no tracker {name!r}", f"use {', '.join(TRACKERS)}")
    kind = TRACKERS[name]
    known = {field.name for field in fields(kind.Parameters)}
    for parameter in parameters:
        if parameter not in known:
            raise UsageError(f"{name} has no parameter {parameter!r}", f"it has {describe(kind.Parameters)}")
    tracker: Tracker = kind(kind.Parameters(**parameters))
    return tracker
