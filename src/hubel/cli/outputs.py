"""Where commands write: never into what they read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hubel.errors import UsageError


def refuse_inside(option: str, out: Path | None, sources: Sequence[Path]) -> None:
    """See that a new folder lies in none of the data sets that are read.

    Raises:
        UsageError: it does.
    """
    for source in sources:
        inside = source if source.is_dir() else source.parent
        if out is not None and out.resolve().is_relative_to(inside.resolve()):
            raise UsageError(f"{option} {out} is inside the data set.", "Name a folder beside it.")
