"""What a target of damaged files is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        prepare: writes sound files into a folder, and returns those to damage.
        read: reads one that was damaged, in its place; what it raises beside ``HubelError`` is a finding.
        seconds: of the processor that a single input may take.
        megabytes: by which the process may grow in one input.
    """

    prepare: Callable[[Path], list[Path]]
    read: Callable[[Path], Any]
    seconds: float = 2.0
    megabytes: int = 200
