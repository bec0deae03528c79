"""Figures that are means over images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hubel.training.distributed import DistributedContext


class Means:
    """See :class:`hubel.training.task.Validation`.

    Args:
        names: of the figures.
        sums: a batch's raw output and labels → the sums over its images, in the order of the names.
    """

    def __init__(self, names: Sequence[str], sums: Callable[[Any, Any], Sequence[float]]) -> None:
        self._names = names
        self._sums_of = sums
        self._sums = [0.0] * len(names)

    def add(self, output: Any, labels: Any) -> None:
        """Take a batch."""
        self._sums = [before + more for before, more in zip(self._sums, self._sums_of(output, labels), strict=True)]

    def columns(self, processes: DistributedContext, images: float) -> dict[str, float]:
        """The means over all images of all processes."""
        sums = processes.total(*self._sums)
        return {name: value / images for name, value in zip(self._names, sums, strict=True)}
