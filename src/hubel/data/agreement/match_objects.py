"""Match boxes of several annotators that show the same object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from hubel import boxes
from hubel.data.annotations import Annotation

MIN_IOU = 0.5
"""Intersection over union from which two boxes may show one object."""

CLASS_BONUS = 0.1
"""Weight of an equal class in the choice between overlapping boxes: a rider's box and a horse's are similar."""


def match_pairs(
    one: Sequence[Annotation], other: Sequence[Annotation], min_iou: float = MIN_IOU
) -> list[tuple[int, int, float]]:
    """Match the boxes of two annotators one to one.

    Among all matchings the one with the largest sum of IoU (plus :data:`CLASS_BONUS` for equal classes), an assignment
    problem. Classes need not be equal: disagreement about a class should be visible as such. Returns indices into
    ``one`` and ``other``, and the IoU, which is at least ``min_iou`` (above 0).
    """
    a, b = (np.array([obj.box for obj in objects], float).reshape(-1, 4) for objects in (one, other))
    labels, other_labels = (np.array([obj.label for obj in objects], int) for objects in (one, other))
    iou = boxes.iou(a, b)
    allowed = iou >= min_iou
    weights = allowed * (iou + CLASS_BONUS * (labels[:, None] == other_labels))
    chosen = zip(*linear_sum_assignment(weights, maximize=True), strict=True)
    return [(int(row), int(column), float(iou[row, column])) for row, column in chosen if allowed[row, column]]


def match_groups(objects: Sequence[Sequence[Annotation]], min_iou: float = MIN_IOU) -> list[dict[int, int]]:
    """Match the boxes of any number of annotators; every box is in one group, alone if need be.

    A group is one object: by annotator, the index of the box among ``objects`` of theirs.

    Annotators are matched in pairs; then pairs are merged, largest IoU first, unless the merged group would have an
    annotator twice. With two annotators all pairs are kept, and the result does not depend on their order.
    """
    group_of = {(who, index): {who: index} for who, drawn in enumerate(objects) for index in range(len(drawn))}
    links = [
        (iou, who, index, other, other_index)
        for who in range(len(objects))
        for other in range(who + 1, len(objects))
        for index, other_index, iou in match_pairs(objects[who], objects[other], min_iou)
    ]
    for _, who, index, other, other_index in sorted(links, key=lambda link: -link[0]):
        first, second = group_of[who, index], group_of[other, other_index]
        if first is not second and not first.keys() & second.keys():
            first.update(second)
            group_of.update({(each, first[each]): first for each in second})
    unique = {id(group): group for group in group_of.values()}
    return [dict(sorted(group.items())) for group in unique.values()]
