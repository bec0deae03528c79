"""Loss of ``[detection]`` sections: YOLOv1 (Redmon et al. 2016, arXiv 1506.02640, equation 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hubel.boxes import convert, paired_iou
from hubel.models.base import ObjectTargets
from hubel.models.darknet.heads import DetectionHead, Size
from hubel.models.partly_labelled import known_classes, share_labelled, without_unknown


class _Responsible(NamedTuple):
    """Objects that count, one for each cell that has the centre of any."""

    rows: Tensor  # int64 (K,): the box that overlaps the object most, of those of its cell
    overlaps: Tensor  # (K,): that IoU
    objects: Tensor  # int64 (K,)
    corners: Tensor  # (K, 2): column and row of the cell


def cell_losses(head: DetectionHead, raw: Tensor, truth: ObjectTargets, size: Size) -> dict[str, Tensor]:
    """``"box"``, ``"objectness"`` and ``"class"`` of the boxes (A, 5 + classes) of one image: sums of squared errors.

    Of the centre in its cell and the square roots of the size, fractions of the image, and of the confidence, which is
    to be the IoU (1 without ``rescore``), for the boxes that are responsible for an object; of the confidence of all
    others in no ignored region, which is to be 0; and, once a cell, of the class probabilities of cells with an object.
    Each times its scale: the λ of the paper. Of an image that labels only some classes see
    :mod:`hubel.models.partly_labelled`.
    """
    with torch.no_grad():
        predicted = head.decode(raw[:, :4], size)
        found = _responsible(head, predicted, truth.boxes, size)
        pixels = raw.new_tensor([size[1], size[0]])
        centre, extent = (part / pixels for part in convert(truth.boxes[found.objects], "xyxy", "cxcywh").split(2, 1))
        wanted = torch.cat((centre * head.side - found.corners, extent.sqrt() if head.root else extent), 1)
        confidence = found.overlaps if head.rescore else torch.ones_like(found.overlaps)
        likely = raw[:, 5:].softmax(1) if head.softmax else raw[:, 5:]
        background = share_labelled(likely, truth)
        background[truth.ignores(predicted)] = 0
        background[found.rows] = 0
    boxes, objectness, classes = raw[found.rows].split((4, 1, raw.shape[1] - 5), 1)
    if head.softmax:
        classes = without_unknown(classes, truth.labels[found.objects], truth).softmax(1)
    one_hot = functional.one_hot(truth.labels[found.objects], classes.shape[1]).to(classes.dtype)
    known = known_classes(one_hot > 0, truth)
    of_objects = head.object_scale * (objectness[:, 0] - confidence).square().sum()
    return {
        "box": head.coord_scale * (boxes - wanted).square().sum(),
        "objectness": of_objects + head.noobject_scale * (background * raw[:, 4].square()).sum(),
        "class": head.class_scale * (known * (classes - one_hot).square()).sum(),
    }


def _responsible(head: DetectionHead, predicted: Tensor, boxes: Tensor, size: Size) -> _Responsible:
    """Which of the predicted boxes (A, 4) answer for which objects (M, 4), both in pixels (section 2.2).

    Of objects with their centres in the same cell, the first counts. Where no box of a cell touches the object, the one
    nearest to it in position and size is responsible, as in Darknet.
    """
    centre, _ = convert(boxes, "xyxy", "cxcywh").split(2, 1)
    corners = (centre / boxes.new_tensor([size[1], size[0]]) * head.side).long().clamp(0, head.side - 1)
    cell = corners[:, 1] * head.side + corners[:, 0]
    order = torch.arange(len(boxes), device=boxes.device)
    first = order.new_full((head.side**2,), len(boxes)).scatter_reduce(0, cell, order, "amin")
    objects = first[first < len(boxes)]
    rows = cell[objects, None] * head.boxes + torch.arange(head.boxes, device=boxes.device)
    candidates, truth = predicted[rows.flatten()], boxes[objects].repeat_interleave(head.boxes, 0)
    overlaps = paired_iou(candidates, truth).view(rows.shape)
    difference = convert(candidates, "xyxy", "cxcywh") - convert(truth, "xyxy", "cxcywh")
    distance = difference.square().sum(1).view(rows.shape)
    best = torch.where(overlaps.amax(1, keepdim=True) > 0, overlaps, -distance).argmax(1, keepdim=True)
    row, overlap = (each.gather(1, best)[:, 0] for each in (rows, overlaps))
    return _Responsible(row, overlap, objects, corners[objects])
