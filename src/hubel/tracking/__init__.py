"""Multi-object tracking: from the boxes of each frame to tracks.

Trackers use NumPy and SciPy only, and neither networks nor images: appearance is passed to them as vectors. Reading
videos and running detectors does not belong here.
"""

from dataclasses import fields
from typing import Any

from hubel.errors import UsageError
from hubel.tracking.base import Appearance, Tracker, TrackUpdate, describe
from hubel.tracking.bytetrack import ByteTrack
from hubel.tracking.deepsort import DeepSort
from hubel.tracking.sort import Sort
from hubel.validation import suggestion

__all__ = ["TRACKERS", "Appearance", "TrackUpdate", "Tracker", "create_tracker"]

TRACKERS: dict[str, type[Tracker]] = {kind.name: kind for kind in (Sort, DeepSort, ByteTrack)}
"""Classes by name; their ``Parameters`` are dataclasses with the papers' names and defaults."""


def create_tracker(name: str, **parameters: Any) -> Tracker:
    """Create a tracker.

    Args:
        name: ``"sort"``, ``"deepsort"`` or ``"bytetrack"``.
        parameters: named as in the paper; its values are the defaults.

    Raises:
        UsageError: the tracker or a parameter does not exist, or a value is out of range.
    """
    if name not in TRACKERS:
        raise UsageError(f"unknown tracker {name!r}", f"use {', '.join(TRACKERS)}")
    kind = TRACKERS[name]
    known = {field.name for field in fields(kind.Parameters)}
    for parameter in parameters:
        if parameter not in known:
            near = suggestion(parameter, known)
            hint = f"did you mean {near}?" if near else f"choose from {describe(kind.Parameters)}"
            raise UsageError(f"{name} has no parameter {parameter!r}", hint)
    return kind(kind.Parameters(**parameters))
