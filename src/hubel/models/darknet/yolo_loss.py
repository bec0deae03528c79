"""Losses of ``[yolo]`` sections: YOLOv3's (arXiv 1804.02767, section 2) and YOLOv4's (arXiv 2004.10934, section 3.4).

Which one it is, and with which weights, a section's own options say; terms are sums over the boxes of an image, whose
gradients are those of pjreddie/darknet, and with an ``iou_loss`` of AlexeyAB/darknet, except for these:

- Darknet adds the gradient of an IoU loss for a centre to what the logistic is of; here it goes through the logistic.
  That makes it smaller, so that ``max_delta``, which bounds it, has no place.
- with ``objectness_smooth`` Darknet teaches an object's own box nothing where it taught it before that there is none.
- ``cls_normalizer`` acts on multipliers of single classes alone, which no published cfg has.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from hubel.boxes import convert, iou, paired_iou, shape_iou
from hubel.models.base import ObjectTargets
from hubel.models.darknet.heads import Size, YoloHead
from hubel.models.partly_labelled import known_classes, share_labelled

_CLASS_THRESHOLD = 0.25  # probability of a class above which a box may be ignored


def yolo_losses(head: YoloHead, raw: Tensor, truth: ObjectTargets, size: Size) -> dict[str, Tensor]:
    """``"box"``, ``"objectness"`` and ``"class"`` of the boxes (A, 5 + classes) of one scale of one image.

    Boxes in ignored regions are not taught that there is nothing. Of an image that labels only some classes see
    :mod:`hubel.models.partly_labelled`.
    """
    boxes = raw[:, :4]
    with torch.no_grad():
        best = _best_overlaps(head, raw, truth.boxes, size)
        rows, objects = responsible(head, truth.boxes, size)
        there, counted = torch.zeros_like(best), torch.ones_like(best)
        over = best > head.ignore
        if head.objectness_smooth:
            there[over] = best[over]
        else:
            counted[over] = 0
        counted[truth.ignores(head.decode(boxes, size))] = 0
        if truth.labelled is not None:
            likely = raw[:, 5:] if head.new_coords else raw[:, 5:].sigmoid()
            counted = torch.where(there > 0, counted, counted * share_labelled(likely, truth))
        there[rows], counted[rows] = 1, 1
    error = _error(head)
    objectness = (error(raw[:, 4], there) * counted).sum()
    # Objects that share a box: it is of all their classes, as in Darknet.
    taken, position = rows.unique(return_inverse=True)
    classes = raw.new_zeros(len(taken), raw.shape[1] - 5)
    classes[position, truth.labels[objects]] = 1
    known = known_classes(classes > 0, truth)
    classes = classes * (1 - head.label_smoothing) + head.label_smoothing / 2
    given, matched = boxes[rows], truth.boxes[objects]
    if head.iou_loss == "mse":
        box = _squares(head, given, matched, rows, size).sum()
    else:
        shared = position.bincount(minlength=len(taken))[position]
        predicted = head.decode(boxes, size)[rows]
        box = (_iou_loss(head.iou_loss, predicted, matched) / shared).sum()
    return {
        "box": head.iou_normalizer * box,
        "objectness": head.obj_normalizer * objectness,
        "class": (known * error(raw[taken, 5:], classes)).sum(),
    }


def _best_overlaps(head: YoloHead, raw: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """Largest IoU of each predicted box with an object (A,); with an ``iou_loss``, 0 where no class is likely."""
    if not len(boxes):
        return raw.new_zeros(len(raw))
    best = iou(head.decode(raw[:, :4], size), boxes).amax(1)
    if head.iou_loss == "mse":
        return best
    classes = raw[:, 5:] if head.new_coords else raw[:, 5:].sigmoid()
    return best * (classes > _CLASS_THRESHOLD).any(1)


def responsible(head: YoloHead, boxes: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """Pairs of a predicted box of this scale and the object that it has to find: their indices (P,) and (P,).

    A box is in the cell of the object's centre. Of all scales' anchors the one whose shape has the largest IoU with it
    counts, and those that have more than ``iou_threshold``.
    """
    centre, extent = convert(boxes, "xyxy", "cxcywh").split(2, 1)
    anchors = extent.new_tensor(head.anchors)
    shapes = shape_iou(extent, anchors)
    chosen = shapes > head.iou_threshold
    chosen[torch.arange(len(boxes), device=boxes.device), shapes.argmax(1)] = True
    objects, position = chosen[:, list(head.mask)].nonzero(as_tuple=True)
    return head.cell_of(centre, size)[objects] * len(head.mask) + position, objects


def _error(head: YoloHead) -> partial[Tensor]:
    """Binary cross-entropy; where the layer before has the logistic, half the square, as Darknet's gradients."""
    if head.new_coords:
        return partial(_half_square, reduction="none")
    return partial(functional.binary_cross_entropy_with_logits, reduction="none")


def _half_square(given: Tensor, target: Tensor, reduction: str) -> Tensor:
    return functional.mse_loss(given, target, reduction=reduction) / 2


def _squares(head: YoloHead, given: Tensor, boxes: Tensor, rows: Tensor, size: Size) -> Tensor:
    """YOLOv3's error of raw boxes (P, 4): cross-entropy of the centre in its cell, half the square of the raw size.

    Times 2 - w · h, fractions of the image.
    """
    centre, extent = convert(boxes, "xyxy", "cxcywh").split(2, 1)
    cells, anchors = (table[rows] for table in head.priors(size, given))
    reach = head.scale_xy
    inside = ((centre / head.stride - cells + (reach - 1) / 2) / reach).clamp(0, 1)
    weight = 2 - (extent / extent.new_tensor([size[1], size[0]])).prod(1, keepdim=True)
    error = _error(head)
    of_size = (extent / anchors).sqrt() / 2 if head.new_coords else (extent / anchors).log()
    errors = torch.cat((error(given[:, :2], inside), _half_square(given[:, 2:], of_size, "none")), 1)
    weighted: Tensor = weight * errors
    return weighted


def _iou_loss(kind: str, predicted: Tensor, boxes: Tensor) -> Tensor:
    """One minus an IoU (P,) of boxes (P, 4), pair by pair."""
    if kind == "iou":
        return 1 - paired_iou(predicted, boxes)
    from torchvision import ops  # takes a second to import

    losses = {
        "giou": ops.generalized_box_iou_loss,
        "diou": ops.distance_box_iou_loss,
        "ciou": ops.complete_box_iou_loss,
    }
    loss: Tensor = losses[kind](predicted, boxes)
    return loss
