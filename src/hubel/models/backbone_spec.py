"""The backbone of a detector or segmenter, as saved models describe it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Backbone:
    """Description from which a backbone is built again.

    Attributes:
        architecture: registered name of the classifier.
        options: fields of its family's configuration that were replaced.
        weights: catalog name or file name of its first weights; ``None`` for random ones.
        source: library that published these, as the catalog spells it, or ``None``.
    """

    architecture: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    weights: str | None = None
    source: str | None = None
