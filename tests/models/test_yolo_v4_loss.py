"""YOLOv4's loss by plain loops over boxes, on fixed outputs and targets; its gradients, and YOLOv3's, by numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from hubel.models.base import ObjectTargets
from hubel.models.darknet.heads import YoloHead
from hubel.models.darknet.yolo_loss import yolo_losses

SIDE, CLASSES = 64, 3
ANCHORS = ((6.0, 8.0), (20.0, 14.0), (30.0, 45.0), (50.0, 40.0))
Box = tuple[float, float, float, float]
# Two objects that share a cell and a best anchor, one by itself.
BOXES: list[Box] = [(10, 9, 40, 57), (12, 8, 39, 55), (37.5, 33, 45, 44)]
LABELS = [0, 2, 1]
TRUTH = ObjectTargets(torch.tensor(BOXES), torch.tensor(LABELS))
NONE = ObjectTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))


def sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t))


def cross_entropy(p: float, y: float) -> float:
    return -y * math.log(p) - (1 - y) * math.log(1 - p)


def half_square(p: float, y: float) -> float:
    return (p - y) ** 2 / 2


def overlap(a: Box, b: Box) -> float:
    w, h = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return w * h / (sum(areas) - w * h)


def ciou(a: Box, b: Box) -> float:
    """Zheng et al. 2020, arXiv 1911.08287, equations 9 to 11."""
    iou = overlap(a, b)
    distance = sum((a[k] + a[k + 2] - b[k] - b[k + 2]) ** 2 / 4 for k in (0, 1))
    diagonal = sum((max(a[k + 2], b[k + 2]) - min(a[k], b[k])) ** 2 for k in (0, 1))
    angles = [math.atan((box[2] - box[0]) / (box[3] - box[1])) for box in (a, b)]
    v = 4 / math.pi**2 * (angles[0] - angles[1]) ** 2
    return iou - distance / diagonal - v * v / (1 - iou + v + 1e-6)


def shapes(box: Box, anchors: tuple[tuple[float, float], ...]) -> list[float]:
    w, h = box[2] - box[0], box[3] - box[1]
    return [min(w, a) * min(h, b) / (w * h + a * b - min(w, a) * min(h, b)) for a, b in anchors]


def of_centre(x: float, y: float, w: float, h: float) -> Box:
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def yolo_v4_by_loop(head: YoloHead, raw: Tensor) -> dict[str, float]:
    """AlexeyAB/darknet's rules, box by box."""
    sums = dict.fromkeys(("box", "objectness", "class"), 0.0)
    act = (lambda t: t) if head.new_coords else sigmoid
    error = half_square if head.new_coords else cross_entropy
    cells = SIDE // head.stride
    for number, (j, i, position) in enumerate(product(range(cells), range(cells), range(len(head.mask)))):
        t = raw[number].tolist()
        anchor = head.anchors[head.mask[position]]
        reach = head.scale_xy
        x, y = ((act(t[k]) * reach - (reach - 1) / 2 + (i, j)[k]) * head.stride for k in (0, 1))
        w, h = ((4 * t[2 + k] ** 2 if head.new_coords else math.exp(t[2 + k])) * anchor[k] for k in (0, 1))
        box, classes = of_centre(x, y, w, h), [act(score) for score in t[5:]]
        mine = []
        for k, truth in enumerate(BOXES):
            fits = shapes(truth, head.anchors)
            column, row = (int((truth[axis] + truth[axis + 2]) / 2 / head.stride) for axis in (0, 1))
            best = fits.index(max(fits)) == head.mask[position]
            if (column, row) == (i, j) and (best or fits[head.mask[position]] > head.iou_threshold):
                mine.append(k)
        best_overlap = max(overlap(box, truth) for truth in BOXES) if max(classes) > 0.25 else 0
        if mine:
            sums["objectness"] += error(act(t[4]), 1)
        elif best_overlap <= head.ignore:
            sums["objectness"] += error(act(t[4]), 0)
        elif head.objectness_smooth:
            sums["objectness"] += error(act(t[4]), best_overlap)
        sums["box"] += sum(1 - ciou(box, BOXES[k]) for k in mine) / max(len(mine), 1)
        if mine:
            for label, probability in enumerate(classes):
                there = float(label in {LABELS[k] for k in mine})
                smoothed = there * (1 - head.label_smoothing) + head.label_smoothing / 2
                sums["class"] += error(probability, smoothed)
    sums["box"] *= head.iou_normalizer
    sums["objectness"] *= head.obj_normalizer
    return sums


V4 = YoloHead(16, ANCHORS, (1, 2, 3), 1.2, False, 0.4, "ciou", 0.213, 0.07)
CSP = YoloHead(16, ANCHORS, (0, 1, 2), 2.0, True, 0.3, "ciou", 0.2, 0.05, 4.0, True)


def outputs(head: YoloHead, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    raw = torch.randn(head.count((SIDE, SIDE)), 5 + CLASSES)
    if head.new_coords:
        return raw.sigmoid()
    return raw * 0.7


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("head", [V4, CSP], ids=["v4", "csp"])
def test_yolo_v4_box_by_box(head: YoloHead, smoothing: float) -> None:
    head = replace(head, label_smoothing=smoothing)
    raw = outputs(head)
    near = (2 * 4 + 0) * 3 + head.mask.index(2)  # a box that overlaps an object whose centre is not in its cell
    raw[near, :4] = torch.tensor([0.75, 0.28, 0.5, 0.5] if head.new_coords else [2.5, -2, 0, 0])
    expected = yolo_v4_by_loop(head, raw)
    found = yolo_losses(head, raw, TRUTH, (SIDE, SIDE))
    assert {name: float(term) for name, term in found.items()} == pytest.approx(expected, rel=1e-4)
    other = replace(head, ignore=1.0)
    assert float(yolo_losses(other, raw, TRUTH, (SIDE, SIDE))["objectness"]) != pytest.approx(expected["objectness"])


HEADS = [V4, CSP, YoloHead(16, ANCHORS, (1, 2))]


@pytest.mark.parametrize("head", HEADS, ids=["v4", "csp", "v3"])
def test_gradients_are_those_of_the_values(head: YoloHead) -> None:
    """Where objectness is taught an IoU, that is a constant; so is CIoU's trade-off (arXiv 1911.08287, equation 11)."""
    kind = "diou" if head.iou_loss == "ciou" else head.iou_loss
    head = replace(head, objectness_smooth=False, iou_loss=kind)
    raw = outputs(head, 2).double().requires_grad_()
    truth = ObjectTargets(TRUTH.boxes.double(), TRUTH.labels)

    def total(given: Tensor) -> Tensor:
        return torch.stack(list(yolo_losses(head, given, truth, (SIDE, SIDE)).values())).sum()

    assert torch.autograd.gradcheck(total, raw)


@pytest.mark.parametrize("head", HEADS, ids=["v4", "csp", "v3"])
def test_images_without_objects_and_with_many(head: YoloHead) -> None:
    raw = outputs(head)
    empty = yolo_losses(head, raw, NONE, (SIDE, SIDE))
    assert float(empty["box"]) == float(empty["class"]) == 0 and float(empty["objectness"]) > 0
    torch.manual_seed(0)
    corner = torch.rand(500, 2) * SIDE
    boxes = torch.cat((corner, corner + 0.1 + torch.rand(500, 2) * (SIDE - corner - 0.1)), 1)  # some below a pixel
    many = yolo_losses(head, raw, ObjectTargets(boxes, torch.randint(CLASSES, (500,))), (SIDE, SIDE))
    assert all(math.isfinite(float(term)) for term in many.values())
