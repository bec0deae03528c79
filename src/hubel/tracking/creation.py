"""Trackers by their names."""

from __future__ import annotations

from typing import Any

from hubel.tracking.tracker import Tracker

TRACKERS: dict[str, Any] = {}
"""Name → class, whose dataclass of parameters has the papers' names and defaults."""


def create_tracker(name: str, **parameters: Any) -> Tracker:
    """A tracker that has seen nothing yet.

    Args:
        name: ``"sort"``, ``"deepsort"`` or ``"bytetrack"``.
        parameters: in place of the paper's, by its names.

    Raises:
        UsageError: there is no such tracker or parameter, or a value is not what it may be.
    """
    raise NotImplementedError
