"""Which network to take: who is best for its cost, and who is best within limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hubel.errors import UsageError


@dataclass(frozen=True)
class Candidate:
    """A network with what it costs and how good it is.

    Attributes:
        name: of the architecture.
        accuracy: published top-1, 0..1.
        megabytes: of its weights in float32, millions of bytes.
        gmacs: billions of multiply-accumulates for one image.
        milliseconds: an image on this machine, if measured.
    """

    name: str
    accuracy: float
    megabytes: float
    gmacs: float
    milliseconds: float | None = None


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Indices of those that nobody beats: whoever is as good costs more. Cheapest first.

    Of several with the same cost and value the first stands for all.

    Args:
        costs: lower is better.
        values: higher is better.
    """
    front: list[int] = []
    for index in sorted(range(len(costs)), key=lambda index: (costs[index], -values[index])):
        if not front or values[index] > values[front[-1]]:
            front.append(index)
    return front


def best_within(
    candidates: Sequence[Candidate], milliseconds: float | None = None, megabytes: float | None = None
) -> list[Candidate]:
    """Those within the limits, most accurate first; of equally accurate ones the cheaper.

    Args:
        candidates: measured, if ``milliseconds`` is given.
        milliseconds: most an image may take.
        megabytes: most the weights may take, in millions of bytes.

    Raises:
        UsageError: a time limit for candidates that were not measured.
    """
    if milliseconds is not None and any(each.milliseconds is None for each in candidates):
        raise UsageError("a limit in milliseconds needs measured times", "measure first: --measure")
    fitting = [
        each
        for each in candidates
        if (megabytes is None or each.megabytes <= megabytes)
        and (milliseconds is None or (each.milliseconds or 0) <= milliseconds)
    ]
    return sorted(fitting, key=lambda each: (-each.accuracy, each.gmacs))
