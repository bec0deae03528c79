"""What several annotators say together: a class for each thing, and a box for each object."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hubel.boxes import scalar_iou
from hubel.data.agreement.dawid_skene import Estimate
from hubel.data.agreement.ratings import Ratings, Thing
from hubel.data.annotations import Annotation
from hubel.masks import Box

Method = Literal["majority", "dawid-skene"]
"""Each vote counts alike, or as much as its annotator's errors leave of it."""


@dataclass(frozen=True)
class Consensus:
    """What annotators say together.

    Attributes:
        method: how it was found.
        labels: (N,), the class of each thing; of objects, the last class means that there is none.
        confidence: (N,), 0..1: the share of votes, or the probability; 1 where there is one rating only.
        objects: of objects, each with its consensus box, or ``None`` where there is none.
    """

    method: Method
    labels: np.ndarray
    confidence: np.ndarray
    objects: tuple[Annotation | None, ...] = ()


def consensus(ratings: Ratings, estimate: Estimate, shared: np.ndarray, method: Method) -> Consensus:
    """Decide every thing.

    Args:
        ratings: what was said.
        estimate: Dawid and Skene's, of the shared things.
        shared: places of the things that more than one annotator has rated; of the others the one rating stands.
        method: how to decide. In majorities an object is there unless more than half say that it is not; ties go to
            the class whose annotators are right more often, or else to the first annotator's.
    """
    table = ratings.table
    labels = table.max(1)
    confidence = np.ones(len(labels))
    if method == "dawid-skene":
        labels[shared] = estimate.posteriors.argmax(1)
        confidence[shared] = estimate.posteriors.max(1)
    else:
        nothing = len(ratings.classes) - 1 if ratings.drawn else None
        for at in shared:
            labels[at], confidence[at] = majority(table[at], estimate.accuracies, nothing)
    objects: tuple[Annotation | None, ...] = ()
    if ratings.drawn:
        nothing = len(ratings.classes) - 1
        decided = zip(ratings.things, labels.tolist(), strict=True)
        objects = tuple(agreed(thing, label) if label != nothing else None for thing, label in decided)
    return Consensus(method, labels, confidence, objects)


def majority(said: np.ndarray, reliability: np.ndarray, nothing: int | None = None) -> tuple[int, float]:
    """The most frequent class of one thing and its share of the votes.

    Args:
        said: (A,) classes; negative where there is none.
        reliability: (A,) of the annotators, to decide ties by their sum.
        nothing: the class that means that there is no object: it needs more than half of the votes.
    """
    able = said >= 0
    votes = np.bincount(said[able]).astype(float)
    shares = votes / votes.sum()
    if nothing is not None and len(shares) > nothing:
        if shares[nothing] > 0.5:
            return nothing, float(shares[nothing])
        votes[nothing] = 0
    trust = np.bincount(said[able], np.nan_to_num(reliability[able]), len(votes))
    label = max(said[able].tolist(), key=lambda at: (votes[at], trust[at]))
    return label, float(shares[label])


def agreed(thing: Thing, label: int) -> Annotation:
    """The object of that class with the median of each edge over the boxes of those who drew it so, or else of all.

    It is one of the annotators' objects, the one whose box is nearest, with that class and box; an outline or a mask
    stays as its annotator drew it, with its own box.
    """
    drawn = [each for each in thing.drawn.values() if each.label == label] or list(thing.drawn.values())
    box = middle([each.box for each in drawn])
    nearest = replace(max(drawn, key=lambda each: scalar_iou(each.box, box)), label=label, annotator=None)
    if nearest.polygons or nearest.mask is not None:
        return nearest
    return replace(nearest, box=box, area=None)


def middle(boxes: Sequence[Box]) -> Box:
    """The median of each edge; of two boxes, the mean."""
    x1, y1, x2, y2 = (float(value) for value in np.median(np.array(boxes), 0))
    return x1, y1, x2, y2
