"""Which box that was found answers for which labelled object, picture by picture, and the worst pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hubel.metrics.coco import FoundObjects, LabelledObjects
from hubel.metrics.overlap import overlaps, shares_within

CONFIDENT = 0.25
"""Score from which on a box is shown to users, and counts here."""

ENOUGH = 0.5
"""IoU from which on a box answers for an object."""

NOTHING, PASSED_OVER = -1, -2

_MISSED = 0.5  # what a missed object weighs: as much as a wrong box of middling confidence


@dataclass(frozen=True)
class BoxMatches:
    """One picture.

    Attributes:
        answers: (F,), of each found box: the index of the labelled object that it answers for, each at most once;
            :data:`NOTHING` where none is (left); :data:`PASSED_OVER` for boxes that do not count: less confident than
            :data:`CONFIDENT`, or within a crowd of their class.
        right: indices of the found boxes that answer for an object of their class, surest first.
        wrong: of those that answer for one of another class or for nothing, surest first.
        missed: indices of the labelled objects that no box answers for; crowds are not among them.
    """

    answers: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray


def match_boxes(labelled: LabelledObjects, found: FoundObjects) -> BoxMatches:
    """Match the boxes of a picture, in order of score.

    A box takes, of the objects that are left, the one that it overlaps most: first among those of its class, as COCO
    does, so that what is right here is right there; then the boxes left over among the objects left over.
    """
    crowd = np.zeros(len(labelled.labels), bool) if labelled.crowd is None else np.asarray(labelled.crowd, bool)
    scores = np.asarray(found.scores)
    surest = np.argsort(-scores, kind="stable")
    surest = surest[scores[surest] >= CONFIDENT]
    answers = np.full(len(scores), PASSED_OVER)
    answers[surest] = NOTHING
    overlap = overlaps(found.boxes, labelled.boxes)
    overlap[:, crowd] = 0
    same = np.asarray(found.labels)[:, None] == np.asarray(labelled.labels)[None]
    _take(answers, np.where(same, overlap, 0), surest)
    within = np.where(same & crowd[None], shares_within(found.boxes, labelled.boxes), 0).max(1, initial=0) >= ENOUGH
    answers[within & (answers == NOTHING)] = PASSED_OVER
    _take(answers, overlap, surest)
    correct = np.array([answer >= 0 and same[place, answer] for place, answer in enumerate(answers)], bool)
    missed = np.setdiff1d(np.flatnonzero(~crowd), answers)
    return BoxMatches(
        answers, surest[correct[surest]], surest[~correct[surest] & (answers[surest] != PASSED_OVER)], missed
    )


def _take(answers: np.ndarray, overlap: np.ndarray, surest: np.ndarray) -> None:
    """Give the boxes that have no object theirs, in place."""
    free = np.ones(overlap.shape[1], bool)
    free[answers[answers >= 0]] = False
    for place in surest[answers[surest] == NOTHING]:
        left = np.where(free, overlap[place], 0)
        if left.max(initial=0) >= ENOUGH:
            answers[place] = left.argmax()
            free[answers[place]] = False


@dataclass(frozen=True)
class WorstPicture:
    """A picture with mistakes.

    Attributes:
        place: of the picture among those that were scored.
        badness: the scores of its wrong boxes, and a half for each missed object, added up.
        matches: what is right, wrong and missed.
    """

    place: int
    badness: float
    matches: BoxMatches


def worst_pictures(labelled: Sequence[LabelledObjects], found: Sequence[FoundObjects], most: int) -> list[WorstPicture]:
    """The pictures with the worst mistakes.

    Args:
        labelled: of each picture.
        found: of each picture, in the same order.
        most: how many at most.

    Returns:
        Worst first, of equally bad ones in their order; pictures without mistakes are not among them.
    """
    pictures = []
    for place, (true, given) in enumerate(zip(labelled, found, strict=True)):
        matches = match_boxes(true, given)
        badness = float(np.asarray(given.scores)[matches.wrong].sum()) + _MISSED * len(matches.missed)
        if badness:
            pictures.append(WorstPicture(place, badness, matches))
    return sorted(pictures, key=lambda picture: -picture.badness)[:most]
