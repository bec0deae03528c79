"""Consensus labels of several annotators, and the images on which they disagree most."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Literal

import numpy as np

from hubel.boxes import scalar_iou
from hubel.data.agreement.rater_statistics import Estimate
from hubel.data.agreement.ratings import Item, Ratings
from hubel.data.annotations import Annotation

Method = Literal["majority", "dawid-skene"]
"""Votes count equally, or are weighted by their annotators' error rates."""

LOOSE_IOU = 0.7
"""Intersection over union below which boxes of one object deserve another look."""


@dataclass(frozen=True)
class Consensus:
    """Labels that annotators agree on.

    Attributes:
        labels: (N,), the class of each item; of objects, the last class means that there is none.
        confidence: (N,), 0..1: fraction of votes, or probability; 1 if there is one rating only.
        objects: of objects, each with its consensus box, or ``None`` if there is none.
    """

    method: Method
    labels: np.ndarray
    confidence: np.ndarray
    objects: tuple[Annotation | None, ...] = ()


def find_consensus(ratings: Ratings, estimate: Estimate, shared: np.ndarray, method: Method) -> Consensus:
    """Decide the class of every item: of the ``shared`` ones, which have the estimate, by the method.

    With ``"majority"`` an object exists unless more than half say that it does not; ties go to the class whose
    annotators are right more often, or else to the first annotator's.
    """
    table = ratings.table
    labels = table.max(1)
    confidence = np.ones(len(labels))
    if method == "dawid-skene":
        labels[shared] = estimate.posteriors.argmax(1)
        confidence[shared] = estimate.posteriors.max(1)
    else:
        for index in shared:
            labels[index], confidence[index] = majority(table[index], estimate.accuracies, ratings.missing)
    objects: tuple[Annotation | None, ...] = ()
    if ratings.drawn:
        decided = zip(ratings.items, labels.tolist(), strict=True)
        objects = tuple(None if label == ratings.missing else _consensus_object(item, label) for item, label in decided)
    return Consensus(method, labels, confidence, objects)


def majority(ratings: np.ndarray, reliability: np.ndarray, missing: int | None = None) -> tuple[int, float]:
    """The most frequent class of one item, rated (A,), negative if unrated, and its fraction of the votes.

    Ties are decided by the sums of the annotators' ``reliability`` (A,). ``missing`` is the class that means that there
    is not an object: it needs more than half of the votes.
    """
    rated = ratings >= 0
    votes = np.bincount(ratings[rated]).astype(float)
    fractions = votes / votes.sum()
    if missing is not None and len(fractions) > missing:
        if fractions[missing] > 0.5:
            return missing, float(fractions[missing])
        votes[missing] = 0
    trust = np.bincount(ratings[rated], np.nan_to_num(reliability[rated]), len(votes))
    label = max(ratings[rated].tolist(), key=lambda label: (votes[label], trust[label]))
    return label, float(fractions[label])


def _consensus_object(item: Item, label: int) -> Annotation:
    """The object of that class whose box is nearest to the median box of those who drew it so, or else of all.

    It gets the median box; one with polygons or a mask keeps its own box, as its annotator drew it.
    """
    drawn = [obj for obj in item.drawn.values() if obj.label == label] or list(item.drawn.values())
    x1, y1, x2, y2 = (float(edge) for edge in np.median([obj.box for obj in drawn], 0))
    box = (x1, y1, x2, y2)
    nearest = replace(max(drawn, key=lambda obj: scalar_iou(obj.box, box)), label=label, annotator=None)
    if nearest.polygons or nearest.mask is not None:
        return nearest
    return replace(nearest, box=box, area=None)


@dataclass(frozen=True)
class Disagreement:
    """An image on which annotators disagree, and the reasons, one phrase each.

    The agreement, 0..1, is the mean over its items and pairs of annotators of 1 (for objects: the IoU of their boxes)
    for the same class and 0 for different ones.
    """

    path: Path
    agreement: float
    reasons: tuple[str, ...]


def find_disagreements(ratings: Ratings) -> tuple[Disagreement, ...]:
    """Every image on which annotators disagree, the worst first."""
    shared = ratings.shared_images()
    by_image: dict[str, list[int]] = defaultdict(list)
    for index, item in enumerate(ratings.items):
        if item.image in shared:
            by_image[item.image].append(index)
    found = []
    for key, indices in by_image.items():
        if reasons := tuple(_reasons(ratings, indices)):
            pairs = [value for i in indices for value in _pair_agreements(ratings.items[i], ratings.table[i])]
            found.append(Disagreement(shared[key], float(np.mean(pairs)), reasons))
    return tuple(sorted(found, key=lambda each: each.agreement))


def _pair_agreements(item: Item, row: np.ndarray) -> Iterator[float]:
    """Agreement of each pair of annotators about one item."""
    for one, other in combinations(np.flatnonzero(row >= 0).tolist(), 2):
        if row[one] != row[other]:
            yield 0.0
        elif one in item.drawn and other in item.drawn:
            yield scalar_iou(item.drawn[one].box, item.drawn[other].box)
        else:
            yield 1.0


def _reasons(ratings: Ratings, indices: Sequence[int]) -> Iterator[str]:
    names = np.array(ratings.annotators)
    missed: Counter[str] = Counter()
    conflicts: Counter[str] = Counter()
    loose: list[float] = []
    for index in indices:
        row = ratings.table[index]
        if (row == ratings.missing).any():
            missed[" and ".join(names[row == ratings.missing])] += 1
        labels = sorted({label for label in row.tolist() if label >= 0 and label != ratings.missing})
        if len(labels) > 1:
            who = {label: ", ".join(names[row == label]) for label in labels}
            conflicts[" or ".join(f"{ratings.classes[label]} ({who[label]})" for label in labels)] += 1
        boxes = [obj.box for obj in ratings.items[index].drawn.values()]
        loose += [iou for a, b in combinations(boxes, 2) if (iou := scalar_iou(a, b)) < LOOSE_IOU]
    for absent, number in missed.items():
        yield f"{number:,} {'object' if number == 1 else 'objects'} not drawn by {absent}"
    for conflict, number in conflicts.items():
        yield f"{conflict} ×{number:,}" if number > 1 else conflict
    if len(loose) == 1:
        yield f"a pair of boxes with an IoU of only {loose[0]:.2f}"
    elif loose:
        yield f"{len(loose):,} pairs of boxes with an IoU of only {min(loose):.2f} to {LOOSE_IOU}"
