"""The classifier that a detector or a segmenter stands on, as a saved model remembers it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Backbone:
    """What it takes to build it again.

    Attributes:
        architecture: the registered name.
        options: fields of its family's configuration that were replaced.
        weights: name in the catalog or of the local file that it began with, or ``None`` for random weights.
        source: whose format these were in, as the catalog calls them, or ``None``.
    """

    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    weights: str | None = None
    source: str | None = None
