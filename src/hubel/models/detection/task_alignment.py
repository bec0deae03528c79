"""Task-aligned learning: which points of a dense detector answer for which object, and the losses.

Feng et al. 2021, "TOOD: Task-aligned One-stage Object Detection", arXiv 2108.07755, section 3.2. Points are chosen by
what they predict: by the score of the object's class and the overlap with its box together, so that the best box and
the best score come to stand at the same point. The box is a distribution over distances (Li et al. 2020, "Generalized
Focal Loss", arXiv 2006.04388, section 3).

Deviations: an object without a point in it gets the nearest one; one that loses all its points to others gets its best
one back; and the metric is computed as a logarithm, as it is smaller than the smallest float32 for tiny objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hubel.boxes import iou
from hubel.models.base import ObjectTargets
from hubel.models.partly_labelled import without_unknown_of_batch

TOP_K = 13
"""Points of an object at most (section 4, "Implementation details")."""

ALPHA, BETA = 1.0, 6.0
"""Exponents of score and overlap in equation 2 (likewise)."""

GAMMA = 2.0
"""Exponent of the focal factor in equation 5."""

_LEAST_IOU = 1e-12


class Assignment(NamedTuple):
    """Targets of the points of one image."""

    objects: Tensor  # int64 (A,): index of the object; -1 for background
    ignored: Tensor  # bool (A,): in an ignored region, and without an object: neither
    quality: Tensor  # float32 (A,): the score that the object's class should have, 0..1; 0 for background


@torch.no_grad()
def assign(scores: Tensor, boxes: Tensor, points: Tensor, targets: ObjectTargets, top_k: int = TOP_K) -> Assignment:
    """Assign to each object the points in it that align best, ``score ** ALPHA * iou ** BETA`` (equation 2).

    A point that several objects choose goes to the one that its box overlaps most; of objects that have none then, and
    the same best point, the last gets it. The quality of an object's best point is the largest IoU of its points, and
    falls with the metric among the others ("normalized t" of section 3.2).

    Args:
        scores: raw (A, classes).
        boxes: predicted (A, 4).
        points: x, y (A, 2), fine before coarse.
    """
    if not len(targets.boxes):
        nothing = torch.full((len(boxes),), -1, device=boxes.device)
        return Assignment(nothing, targets.ignores(boxes), boxes.new_zeros(len(boxes)))
    overlap = iou(targets.boxes, boxes)
    metric = ALPHA * functional.logsigmoid(scores.T[targets.labels]) + BETA * overlap.clamp(min=_LEAST_IOU).log()
    metric = metric.masked_fill(~_candidates(points, targets.boxes), -torch.inf)
    best = metric.topk(min(top_k, len(points)), 1)
    chosen = torch.zeros_like(metric, dtype=torch.bool).scatter(1, best.indices, best.values > -torch.inf)
    most, objects = overlap.masked_fill(~chosen, -1).max(0)
    objects = torch.where(most >= 0, objects, -1)
    numbers = torch.arange(len(targets.boxes), device=objects.device)
    lost = numbers[~(objects == numbers[:, None]).any(1)].tolist()
    for number, point in zip(lost, best.indices[lost, 0].tolist(), strict=True):
        objects[point] = number
    chosen = objects == numbers[:, None]
    highest = metric.masked_fill(~chosen, -torch.inf).amax(1)
    widest = overlap.masked_fill(~chosen, 0).amax(1)
    positive = objects >= 0
    owner = objects[positive]
    quality = torch.zeros_like(most)
    quality[positive] = (metric[owner, positive] - highest[owner]).exp() * widest[owner]
    return Assignment(objects, targets.ignores(boxes) & ~positive, quality)


def _candidates(points: Tensor, boxes: Tensor) -> Tensor:
    """Points that lie in each box, or else the nearest one: bool (objects, points)."""
    (x, y), (x1, y1, x2, y2) = points.T, boxes.T[..., None]
    inside: Tensor = (x > x1) & (x < x2) & (y > y1) & (y < y2)
    without = ~inside.any(1)
    centres = (boxes[without, :2] + boxes[without, 2:]) / 2
    inside[without, torch.cdist(centres, points).argmin(1)] = True
    return inside


def aligned_loss(
    scores: Tensor, distributions: Tensor, boxes: Tensor, points: Tensor, targets: Sequence[ObjectTargets]
) -> dict[str, Tensor]:
    """The terms of the loss, each a sum over the batch divided by the sum of all qualities, or by 1 if that is more.

    Args:
        scores: raw (N, A, classes).
        distributions: raw (N, A, 4, bins), of the distances to left, top, right and bottom.
        boxes: the ones that they stand for (N, A, 4).
        points: x, y and the unit of distances along x and y (A, 4).

    Returns:
        ``"class"``: binary cross-entropy with the qualities q, times ``|q - p| ** GAMMA`` of the predicted probability
        (equation 5), of points whose boxes lie in no ignored region, or that have an object, and of the classes that
        their image labels; ``"box"``: 1 - generalized IoU, and ``"distribution"``: :func:`distribution_focal_loss`,
        both of the points of objects, times their qualities.
    """
    from torchvision.ops import generalized_box_iou_loss  # takes a second to import

    centres = points[:, :2]
    assigned = [assign(raw, found, centres, of) for raw, found, of in zip(scores, boxes, targets, strict=True)]
    quality = torch.stack([each.quality for each in assigned])
    total = quality.sum().clamp(min=1)
    wanted, labels = torch.zeros_like(scores), torch.full_like(quality, -1, dtype=torch.int64)
    # Without any object all outputs have to stay in the graph; and a NaN anywhere has to show.
    box = distribution = 0 * distributions.sum()
    for index, ((objects, _, weights), target) in enumerate(zip(assigned, targets, strict=True)):
        own = objects >= 0
        if not own.any():
            continue
        owner, weight = objects[own], weights[own]
        labels[index, own] = target.labels[owner]
        wanted[index, own, target.labels[owner]] = weight
        matched, at = target.boxes[owner], points[own]
        box = box + (weight * generalized_box_iou_loss(boxes[index, own], matched)).sum()
        distances = box_to_distances(matched, at)
        distribution = distribution + (weight * distribution_focal_loss(distributions[index, own], distances)).sum()
    known = without_unknown_of_batch(scores, labels, targets)
    cross_entropy = functional.binary_cross_entropy_with_logits(known, wanted, reduction="none")
    counted = ~torch.stack([each.ignored for each in assigned])
    focal = (wanted - known.sigmoid()).abs() ** GAMMA * cross_entropy * counted[..., None]
    return {"class": focal.sum() / total, "box": box / total, "distribution": distribution / total}


def distribution_focal_loss(raw: Tensor, distances: Tensor) -> Tensor:
    """Cross-entropy with the two bins that a distance lies between, the nearer one counting more, averaged over sides.

    Equation 6 of Li et al.; raw distributions (M, 4, bins), distances (M, 4) in bins, 0 to bins - 1: others are
    clipped. (M,).
    """
    last = raw.shape[-1] - 1
    distances = distances.clamp(0, last)
    lower = distances.floor().clamp(max=last - 1)
    upper_weight = distances - lower
    losses = -raw.log_softmax(-1)
    below, above = (losses.gather(-1, index.long()[..., None])[..., 0] for index in (lower, lower + 1))
    return ((1 - upper_weight) * below + upper_weight * above).mean(-1)


def box_to_distances(boxes: Tensor, points: Tensor) -> Tensor:
    """Left, top, right, bottom of boxes (M, 4) as seen from points (M, 4), x, y and the units along x and y."""
    centres, units = points.split(2, -1)
    return torch.cat((centres - boxes[..., :2], boxes[..., 2:] - centres), -1) / torch.cat((units, units), -1)


def distances_to_boxes(distances: Tensor, points: Tensor) -> Tensor:
    """The inverse of :func:`box_to_distances`."""
    centres, units = points.split(2, -1)
    before, after = distances.split(2, -1)
    return torch.cat((centres - before * units, centres + after * units), -1)
