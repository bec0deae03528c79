"""Loss of ``[region]`` sections: YOLOv2 and YOLO9000 (Redmon and Farhadi 2017, arXiv 1612.08242).

The paper gives no formula; terms are those whose gradients Darknet computes, sums over the boxes of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from hubel.boxes import convert, iou, paired_iou, shape_iou
from hubel.models.base import ObjectTargets
from hubel.models.darknet.heads import RegionHead, Size
from hubel.models.partly_labelled import share_labelled, without_unknown

PRIOR_IMAGES = 12_800
"""Images at the beginning of a training from which all boxes learn the shapes of their anchors too."""

_PRIOR_SCALE = 0.01


def region_losses(
    head: RegionHead, raw: Tensor, truth: ObjectTargets, size: Size, learns_priors: bool = False
) -> dict[str, Tensor]:
    """``"box"``, ``"objectness"`` and ``"class"`` of the boxes (A, 5 + classes) of one image.

    Half the squared error of the centre in its cell (after the logistic) and of the raw size, times 2 - w · h; half
    that of objectness, which is to be the IoU of the predicted box (1 without ``rescore``), and 0 for boxes that
    overlap no object by more than the section's ``thresh``, and lie in no ignored region; cross-entropy of the class,
    with a tree that of each group on the way from it to the root.

    Of an image whose classes are known, and no box, each teaches the box with the largest probability of it ("Joint
    classification and detection"), and nothing else is taught. Of an image that labels only some classes see
    :mod:`hubel.models.partly_labelled`; in a tree, those that count are the labelled ones and all above them.

    Args:
        learns_priors: pulls all boxes to the middle of their cells and to their anchors, weakly: so Darknet begins.
    """
    if len(truth.labels) and not len(truth.boxes):
        nothing = raw.new_zeros(())
        of_class = _class_loss(head, *_likeliest(head, raw, truth.labels), truth).sum()
        return {"box": nothing, "objectness": nothing, "class": head.class_scale * of_class}
    boxes, (cells, anchors) = raw[:, :4], head.priors(size, raw)
    centre = boxes[:, :2].sigmoid()
    with torch.no_grad():
        predicted = head.decode(boxes, size)
        rows, objects = _responsible(head, truth.boxes, size)
        over = iou(predicted, truth.boxes).amax(1) > head.ignore if len(objects) else torch.zeros_like(cells[:, 0]) > 0
        wanted = torch.zeros_like(raw[:, 4])
        wanted[rows] = paired_iou(predicted[rows], truth.boxes[objects]) if head.rescore else 1.0
        scale = head.noobject_scale * (~(over | truth.ignores(predicted))).to(raw.dtype)
        if truth.labelled is not None:
            scale = scale * _share_labelled(head, raw[:, 5:], truth)
        scale[rows] = head.object_scale
        position, extent = convert(truth.boxes[objects], "xyxy", "cxcywh").split(2, 1)
        inside = (position / head.stride - cells[rows]).clamp(0, 1)
        weight = head.coord_scale * (2 - (extent / extent.new_tensor([size[1], size[0]])).prod(1))
    error = (centre[rows] - inside).square().sum(1) + (boxes[rows, 2:] - (extent / anchors[rows]).log()).square().sum(1)
    box = (weight * error).sum() / 2
    if learns_priors:
        others = torch.ones_like(wanted)
        others[rows] = 0
        drift = (centre - 0.5).square().sum(1) + boxes[:, 2:].square().sum(1)
        box = box + _PRIOR_SCALE * (others * drift).sum() / 2
    objectness = (scale * (raw[:, 4].sigmoid() - wanted).square()).sum() / 2
    of_class = _class_loss(head, raw[rows, 5:], truth.labels[objects], truth).sum()
    return {"box": box, "objectness": objectness, "class": head.class_scale * of_class}


def _class_loss(head: RegionHead, classes: Tensor, labels: Tensor, truth: ObjectTargets) -> Tensor:
    """Of each box (P,): raw classes (P, classes) and labels (P,)."""
    if head.tree is not None:
        return head.tree.loss(classes, labels, truth.labelled)
    classes = without_unknown(classes, labels, truth)
    if head.softmax:
        return functional.cross_entropy(classes, labels, reduction="none")
    one_hot = functional.one_hot(labels, classes.shape[1]).to(classes.dtype)
    return functional.binary_cross_entropy_with_logits(classes, one_hot, reduction="none").sum(1)


def _share_labelled(head: RegionHead, classes: Tensor, truth: ObjectTargets) -> Tensor:
    """See :func:`~hubel.models.partly_labelled.share_labelled`; of raw classes (A, classes)."""
    if head.tree is not None and truth.labelled is not None:
        return head.tree.share(classes, truth.labelled)
    return share_labelled(classes.softmax(1) if head.softmax else classes.sigmoid(), truth)


def _likeliest(head: RegionHead, raw: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Raw classes of the box that most likely is of each label, and the labels, as they came."""
    with torch.no_grad():
        classes = raw[:, 5:]
        if head.tree is not None:
            of_label = head.tree.log_probabilities(classes).index_select(1, head.tree.node_of(labels)).exp()
        else:
            of_label = (classes.softmax(1) if head.softmax else classes.sigmoid()).index_select(1, labels)
        rows = (raw[:, 4:5].sigmoid() * of_label).argmax(0)
    return raw[rows, 5:], labels


def _responsible(head: RegionHead, boxes: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """The predicted box that has to find each object, and the objects that have one: indices (P,) and (P,).

    It is in the cell of the object's centre, and its anchor has the shape of largest IoU with it. Of objects that share
    a box, the last counts, as in Darknet.
    """
    centre, extent = convert(boxes, "xyxy", "cxcywh").split(2, 1)
    best = shape_iou(extent, extent.new_tensor(head.anchors)).argmax(1)
    found = head.cell_of(centre, size) * len(head.anchors) + best
    order = torch.arange(len(boxes), device=boxes.device)
    owner = order.new_full((head.count(size),), -1).scatter_reduce(0, found, order, "amax")
    taken = (owner >= 0).nonzero()[:, 0]
    return taken, owner[taken]
