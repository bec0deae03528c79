"""Which boxes of several annotators mean the same object of a picture."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from hubel.data.annotations import LabelledObject
from hubel.data.checking.box_pairs import overlaps

SAME_OBJECT = 0.5
"""Intersection over union from which on two boxes may mean one object."""

SAME_CLASS = 0.1
"""What an equal class is worth in choosing between overlapping boxes: a rider's box and a horse's are alike."""

MOST_BOXES = 5_000
"""Boxes by one annotator in one picture that are matched."""

Group = dict[int, int]
"""One object: by annotator, the place of the box among theirs."""


def pairs(
    one: Sequence[LabelledObject], other: Sequence[LabelledObject], least: float = SAME_OBJECT
) -> list[tuple[int, int, float]]:
    """The boxes of two annotators that mean the same objects, each in one pair at most.

    Of all ways to pair them, the one with the greatest sum of overlaps (:data:`SAME_CLASS` added where classes are
    equal), as an assignment problem. Classes need not be equal: a disagreement about the class is to be seen as one.

    Args:
        one: objects of a picture.
        other: another annotator's, of the same picture.
        least: intersection over union under which boxes are of different objects, above 0.

    Returns:
        Places in ``one`` and in ``other`` and the overlap.
    """
    boxes, others = (np.array([thing.box for thing in things], float).reshape(-1, 4) for things in (one, other))
    labels, other_labels = (np.array([thing.label for thing in things], int) for things in (one, other))
    shares = overlaps(boxes, others)
    able = shares >= least
    worth = able * (shares + SAME_CLASS * (labels[:, None] == other_labels))
    chosen = zip(*linear_sum_assignment(worth, maximize=True), strict=True)
    return [(int(row), int(column), float(shares[row, column])) for row, column in chosen if able[row, column]]


def groups(objects: Sequence[Sequence[LabelledObject]], least: float = SAME_OBJECT) -> list[Group]:
    """The objects that several annotators have drawn; every box is in one group, alone if need be.

    Annotators are paired two by two; then the pairs are joined, greatest overlap first, wherever the joined group has
    no annotator twice. Of two annotators this keeps every pair, and in whichever order they come, the groups are the
    same.

    Args:
        objects: by annotator, what they drew in one picture.
        least: as for :func:`pairs`.
    """
    group_of = {(who, at): {who: at} for who, things in enumerate(objects) for at in range(len(things))}
    links = [
        (share, who, at, whom, to)
        for who in range(len(objects))
        for whom in range(who + 1, len(objects))
        for at, to, share in pairs(objects[who], objects[whom], least)
    ]
    for _, who, at, whom, to in sorted(links, key=lambda link: -link[0]):
        first, second = group_of[who, at], group_of[whom, to]
        if first is not second and not first.keys() & second.keys():
            first.update(second)
            group_of.update({(each, first[each]): first for each in second})
    unique = {id(group): group for group in group_of.values()}
    return [dict(sorted(group.items())) for group in unique.values()]
