"""Losses of YOLOv1 and YOLOv2: the formulas, computed by plain loops over cells, boxes and objects."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from hubel.models.base import ObjectTargets
from hubel.models.darknet.cell_loss import cell_losses
from hubel.models.darknet.heads import DetectionHead, RegionHead
from hubel.models.darknet.region_loss import region_losses

HEIGHT, WIDTH = 96, 160
SIZE = (HEIGHT, WIDTH)
CLASSES = 4
CELL = 32
Box = tuple[float, float, float, float]  # centre and size, in pixels
Objects = list[tuple[Box, int]]

CELLS = DetectionHead(side=3, boxes=2, classes=CLASSES)
REGION = RegionHead(CELL, ((20.0, 20.0), (70.0, 30.0), (40.0, 90.0)))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def overlap(a: Box, b: Box) -> float:
    sides = [
        min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2) for i in (0, 1)
    ]
    common = sides[0] * sides[1] if min(sides) > 0 else 0.0
    return common / (a[2] * a[3] + b[2] * b[3] - common)


def targets(objects: Objects) -> ObjectTargets:
    rows = [[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for (x, y, w, h), _ in objects]
    labels = torch.tensor([label for _, label in objects], dtype=torch.int64)
    return ObjectTargets(torch.tensor(rows, dtype=torch.float64).view(-1, 4), labels)


def scattered(seed: int, count: int = 6) -> Objects:
    draw = random.Random(seed)
    return [
        (
            (draw.uniform(0, WIDTH), draw.uniform(0, HEIGHT), draw.uniform(5, 100), draw.uniform(5, 90)),
            draw.randrange(CLASSES),
        )
        for _ in range(count)
    ]


SAME_CELL: Objects = [((80.0, 48.0, 30.0, 90.0), 1), ((81.0, 49.0, 34.0, 80.0), 3)]
SCENES = [scattered(0), scattered(1), [], SAME_CELL, [((80.0, 48.0, 1.0, 1.0), 2)]]


def raw_rows(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 5 + CLASSES, generator=generator, dtype=torch.float64)


def expected_cells(head: DetectionHead, raw: Tensor, objects: Objects) -> dict[str, float]:
    """Equation 3 of arXiv 1506.02640, with the λ of section 2.2."""
    total = dict.fromkeys(("box", "objectness", "class"), 0.0)
    for cell in range(head.side**2):
        column, row = cell % head.side, cell // head.side
        inside = [
            each
            for each in objects
            if int(each[0][0] / WIDTH * head.side) == column and int(each[0][1] / HEIGHT * head.side) == row
        ]
        rows = raw[cell * head.boxes : (cell + 1) * head.boxes].tolist()
        responsible = None
        if inside:
            truth, label = inside[0]
            boxes: list[Box] = [
                ((x + column) / head.side * WIDTH, (y + row) / head.side * HEIGHT, w * w * WIDTH, h * h * HEIGHT)
                for x, y, w, h, *_ in rows
            ]
            overlaps = [overlap(box, truth) for box in boxes]
            distances = [sum((p - q) ** 2 for p, q in zip(box, truth, strict=True)) for box in boxes]
            responsible = overlaps.index(max(overlaps)) if max(overlaps) else distances.index(min(distances))
            x, y, w, h, confidence, *classes = rows[responsible]
            total["box"] += 5 * (x - (truth[0] / WIDTH * head.side - column)) ** 2
            total["box"] += 5 * (y - (truth[1] / HEIGHT * head.side - row)) ** 2
            total["box"] += 5 * ((w - math.sqrt(truth[2] / WIDTH)) ** 2 + (h - math.sqrt(truth[3] / HEIGHT)) ** 2)
            total["objectness"] += (confidence - overlaps[responsible]) ** 2
            total["class"] += sum((given - (number == label)) ** 2 for number, given in enumerate(classes))
        for which, given in enumerate(rows):
            if which != responsible:
                total["objectness"] += 0.5 * given[4] ** 2
    return total


def rows_of_cells(seed: int = 0) -> Tensor:
    """Raw rows as the head gives them: the boxes of a cell have the same classes."""
    raw = raw_rows(CELLS.side**2 * CELLS.boxes, seed)
    raw[1::2, 5:] = raw[::2, 5:]
    return raw


def expected_region(head: RegionHead, raw: Tensor, objects: Objects, learns_priors: bool = False) -> dict[str, float]:
    """The terms of [region], of which Darknet computes the gradients; objectness is a logistic."""
    columns, count = WIDTH // CELL, len(head.anchors)
    owner: dict[int, tuple[Box, int]] = {}
    for truth, label in objects:
        shapes = [overlap((0, 0, truth[2], truth[3]), (0, 0, width, height)) for width, height in head.anchors]
        cell = int(truth[1] / CELL) * columns + int(truth[0] / CELL)
        owner[cell * count + shapes.index(max(shapes))] = (truth, label)  # the last one counts
    total = dict.fromkeys(("box", "objectness", "class"), 0.0)
    for index, (x, y, w, h, objectness, *classes) in enumerate(raw.tolist()):
        (width, height), cell = head.anchors[index % count], index // count
        centre = sigmoid(x), sigmoid(y)
        box = (
            (cell % columns + centre[0]) * CELL,
            (cell // columns + centre[1]) * CELL,
            math.exp(w) * width,
            math.exp(h) * height,
        )
        there = sigmoid(objectness)
        if index in owner:
            truth, label = owner[index]
            weight = 2 - truth[2] / WIDTH * truth[3] / HEIGHT
            error = (centre[0] - (truth[0] / CELL - cell % columns)) ** 2
            error += (centre[1] - (truth[1] / CELL - cell // columns)) ** 2
            error += (w - math.log(truth[2] / width)) ** 2 + (h - math.log(truth[3] / height)) ** 2
            total["box"] += weight * error / 2
            total["objectness"] += 5 * ((overlap(box, truth) if head.rescore else 1) - there) ** 2 / 2
            if head.softmax:
                total["class"] -= math.log(math.exp(classes[label]) / sum(map(math.exp, classes)))
            else:
                for number, given in enumerate(classes):
                    total["class"] -= math.log(sigmoid(given) if number == label else 1 - sigmoid(given))
            continue
        if max((overlap(box, truth) for truth, _ in objects), default=0) <= 0.6:
            total["objectness"] += there**2 / 2
        if learns_priors:
            total["box"] += 0.01 * ((centre[0] - 0.5) ** 2 + (centre[1] - 0.5) ** 2 + w**2 + h**2) / 2
    return total


def values(losses: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(loss) for name, loss in losses.items()}


@pytest.mark.parametrize("objects", SCENES)
def test_of_cells(objects: Objects) -> None:
    raw = rows_of_cells()
    found = values(cell_losses(CELLS, raw, targets(objects), SIZE))
    assert found == pytest.approx(expected_cells(CELLS, raw, objects), rel=1e-5)


def test_an_object_that_no_box_of_its_cell_touches_is_for_the_nearest() -> None:
    raw, objects = rows_of_cells(), [((80.0, 48.0, 2.0, 2.0), 2)]
    for which, corner in ((8, 0.05), (9, 0.9)):  # small boxes in the corners of the middle cell
        raw[which, :4] = torch.tensor([corner, corner, 0.05, 0.05])
    found = values(cell_losses(CELLS, raw, targets(objects), SIZE))
    assert found == pytest.approx(expected_cells(CELLS, raw, objects), rel=1e-5)


@pytest.mark.parametrize("learns_priors", [False, True])
@pytest.mark.parametrize("options", [{}, {"rescore": False}, {"softmax": False}])
@pytest.mark.parametrize("objects", SCENES)
def test_of_regions(objects: Objects, options: dict[str, bool], learns_priors: bool) -> None:
    head = replace(REGION, **options)
    raw = 2 * raw_rows(head.count(SIZE)) - 1
    found = values(region_losses(head, raw, targets(objects), SIZE, learns_priors))
    assert found == pytest.approx(expected_region(head, raw, objects, learns_priors), rel=1e-5)


def test_boxes_that_overlap_an_object_are_not_taught_that_there_is_none() -> None:
    """The box beside the responsible one has the object's place and shape, too."""
    raw = torch.zeros(REGION.count(SIZE), 5 + CLASSES, dtype=torch.float64)
    objects: Objects = [((80.0, 48.0, 20.0, 20.0), 0)]  # the middle of cell (2, 1), the first anchor
    cell = 3 * (1 * 5 + 2)
    raw[cell + 1, 2:4] = torch.log(torch.tensor([20 / 70, 20 / 30]))
    raw[cell + 1, 4] = 5
    found = float(region_losses(REGION, raw, targets(objects), SIZE)["objectness"])
    # All other boxes: half a squared half; the responsible one: 5 times half the square of 1 - 0.5.
    assert found == pytest.approx((len(raw) - 2) * 0.125 + 5 * 0.125)


@pytest.mark.parametrize("kind", ["cells", "region"])
def test_gradients(kind: str) -> None:
    """Against differences of the plain loops. What a confidence is to be, an IoU, is a constant, so it is left out."""
    objects = scattered(0)
    if kind == "cells":
        raw, terms = rows_of_cells(), ("box", "class")
    else:
        raw, terms = 2 * raw_rows(REGION.count(SIZE)) - 1, ("box", "class")

    def ours(rows: Tensor) -> Tensor:
        if kind == "cells":
            return sum(cell_losses(CELLS, rows, targets(objects), SIZE)[term] for term in terms)
        return sum(region_losses(REGION, rows, targets(objects), SIZE)[term] for term in terms)

    def theirs(rows: Tensor) -> float:
        expected = expected_cells(CELLS, rows, objects) if kind == "cells" else expected_region(REGION, rows, objects)
        return sum(expected[term] for term in terms)

    leaf = raw.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(ours(leaf), leaf)
    touched = gradient.nonzero().tolist()
    assert len(touched) >= 8 * 3
    for place in random.Random(0).sample(touched, 12):
        sides = []
        for sign in (1, -1):
            moved = raw.clone()
            moved[tuple(place)] += sign * 1e-5
            sides.append(theirs(moved))
        assert float(gradient[tuple(place)]) == pytest.approx((sides[0] - sides[1]) / 2e-5, abs=1e-4)
