"""The pictures on which annotators differ most, and why."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from hubel.boxes import scalar_iou
from hubel.data.agreement.ratings import Ratings, Thing

LOOSE = 0.7
"""Intersection over union under which boxes of one object are worth another look."""


@dataclass(frozen=True)
class Disagreement:
    """A picture worth a second look.

    Attributes:
        picture: its key.
        path: its file.
        agreement: 0..1: the mean over its things and over pairs of annotators of 1 (objects: the overlap of their
            boxes) where both say the same class, and 0 where they do not.
        reasons: what they differ in, one phrase each.
    """

    picture: str
    path: Path
    agreement: float
    reasons: tuple[str, ...]


def doubts(ratings: Ratings) -> tuple[Disagreement, ...]:
    """Every picture on which annotators differ, the worst first."""
    shared = ratings.pictures()
    by_picture: dict[str, list[int]] = defaultdict(list)
    for at, thing in enumerate(ratings.things):
        if thing.picture in shared:
            by_picture[thing.picture].append(at)
    found = []
    for key, places in by_picture.items():
        if reasons := tuple(_reasons(ratings, places)):
            pairs = [value for at in places for value in agreements(ratings.things[at], ratings.table[at])]
            found.append(Disagreement(key, shared[key], float(np.mean(pairs)), reasons))
    return tuple(sorted(found, key=lambda doubt: doubt.agreement))


def agreements(thing: Thing, said: np.ndarray) -> Iterator[float]:
    """Of each pair of annotators of one thing, how far they agree."""
    for one, other in combinations(np.flatnonzero(said >= 0).tolist(), 2):
        if said[one] != said[other]:
            yield 0.0
        elif one in thing.drawn and other in thing.drawn:
            yield scalar_iou(thing.drawn[one].box, thing.drawn[other].box)
        else:
            yield 1.0


def _reasons(ratings: Ratings, places: Sequence[int]) -> Iterator[str]:
    nothing = len(ratings.classes) - 1 if ratings.drawn else None
    missed: Counter[str] = Counter()
    classes: list[str] = []
    loose: list[float] = []
    for at in places:
        said = ratings.table[at]
        if nothing is not None:
            absent = [ratings.annotators[who] for who in np.flatnonzero(said == nothing)]
            missed[" and ".join(absent)] += bool(absent)
        named = {label for label in said.tolist() if label >= 0 and label != nothing}
        if len(named) > 1:
            classes.append(_who_says_what(ratings, said, sorted(named)))
        boxes = [each.box for each in ratings.things[at].drawn.values()]
        loose += [share for a, b in combinations(boxes, 2) if (share := scalar_iou(a, b)) < LOOSE]
    for who, number in missed.items():
        if number:
            yield f"{number:,} {'object' if number == 1 else 'objects'} not drawn by {who}"
    yield from classes
    if loose:
        pairs = f"{len(loose):,} pairs of boxes overlap" if len(loose) > 1 else "a pair of boxes overlaps"
        yield f"{pairs} by {min(loose):.2f} only" if len(loose) == 1 else f"{pairs} by {min(loose):.2f} to {LOOSE} only"


def _who_says_what(ratings: Ratings, said: np.ndarray, labels: Sequence[int]) -> str:
    parts = []
    for label in labels:
        who = ", ".join(ratings.annotators[at] for at in np.flatnonzero(said == label))
        parts.append(f"{ratings.classes[label]} ({who})")
    return " or ".join(parts)
