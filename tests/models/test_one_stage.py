"""The one-stage detector: assignment and losses by plain loops, decoding, hard targets. The sweep has the network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import hubel
from hubel.config import TrainingConfig
from hubel.models import create_model, describe, save_model
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.models.detection import task_alignment
from hubel.models.detection.one_stage import OneStage
from hubel.models.detection.task_alignment import (
    aligned_loss,
    assign,
    box_to_distances,
    distances_to_boxes,
    distribution_focal_loss,
)
from hubel.training.train import complete_config

SIDE = 64
CELLS = [(stride * (column + 0.5), stride * (row + 0.5), stride) for stride in (8, 16, 32)
         for row in range(SIDE // stride) for column in range(SIDE // stride)]  # fmt: skip
POINTS = torch.tensor([(x, y, stride, stride) for x, y, stride in CELLS], dtype=torch.float64)


def overlap(a: list[float], b: list[float]) -> float:
    wide, high = (max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1))
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    return wide * high / (sum(areas) - wide * high)


def assigned_by_loop(
    scores: list[list[float]], boxes: list[list[float]], objects: list[list[float]], labels: list[int], top_k: int
) -> list[tuple[int, float]]:
    """TOOD, section 3.2: of each point its object, or -1, and its quality."""
    metric, chosen = {}, {}
    for number, (box, label) in enumerate(zip(objects, labels, strict=True)):
        inside = [i for i, (x, y, _) in enumerate(CELLS) if box[0] < x < box[2] and box[1] < y < box[3]]
        if not inside:
            middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            inside = [min(range(len(CELLS)), key=lambda i, middle=middle: math.dist(CELLS[i][:2], middle))]
        for i in inside:
            metric[i, number] = 1 / (1 + math.exp(-scores[i][label])) * overlap(boxes[i], box) ** 6
        chosen[number] = sorted(inside, key=lambda i, number=number: -metric[i, number])[:top_k]
    owner = {}
    for i in range(len(CELLS)):
        wanting = [number for number in chosen if i in chosen[number]]
        if wanting:
            owner[i] = max(wanting, key=lambda number, i=i: overlap(boxes[i], objects[number]))
    for number in [number for number in chosen if number not in owner.values()]:
        owner[chosen[number][0]] = number
    result = [(-1, 0.0)] * len(CELLS)
    for number in chosen:
        own = [i for i in owner if owner[i] == number]
        most = max((metric[i, number] for i in own), default=0)
        widest = max((overlap(boxes[i], objects[number]) for i in own), default=0)
        for i in own:
            result[i] = (number, metric[i, number] / most * widest)
    return result


def giou_loss(a: list[float], b: list[float]) -> float:
    """1 - generalized IoU (arXiv 1902.09630, algorithm 1)."""
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in (a, b)]
    union = sum(areas) / (1 + overlap(a, b))
    around = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return 1 - overlap(a, b) + (around - union) / around


def focal_by_loop(raw: list[float], distance: float) -> float:
    """Equation 6 of arXiv 2006.04388: -((y_r - y) log S_l + (y - y_l) log S_r)."""
    distance = min(max(distance, 0.0), len(raw) - 1)
    left = min(int(distance), len(raw) - 2)
    total = sum(math.exp(value) for value in raw)
    chances = [math.exp(raw[k]) / total for k in (left, left + 1)]
    return -((left + 1 - distance) * math.log(chances[0]) + (distance - left) * math.log(chances[1]))


def outputs(seed: int, images: int = 1, classes: int = 3, bins: int = 9) -> tuple[Tensor, Tensor, Tensor]:
    """Raw scores, raw distributions and the boxes they stand for; float64."""
    random = torch.Generator().manual_seed(seed)
    scores = torch.randn(images, len(CELLS), classes, generator=random, dtype=torch.float64) - 1
    raw = torch.randn(images, len(CELLS), 4, bins, generator=random, dtype=torch.float64)
    raw = raw - 0.4 * torch.arange(bins)
    return scores, raw, distances_to_boxes(raw.softmax(-1) @ torch.arange(bins, dtype=torch.float64), POINTS)


def targets(*rows: tuple[int, float, float, float, float]) -> ObjectTargets:
    boxes = torch.tensor([box for _, *box in rows], dtype=torch.float64).reshape(-1, 4)
    return ObjectTargets(boxes, torch.tensor([label for label, *_ in rows], dtype=torch.int64))


SCENES = {
    "one object": targets((0, 6, 9, 50, 44)),
    "neighbours": targets((1, 2, 2, 30, 33), (0, 25, 4, 60, 30), (2, 5, 35, 61, 62)),
    "two classes in one box": targets((0, 10, 10, 30, 30), (2, 10, 10, 30, 30)),
    "one inside another, of one centre": targets((0, 4, 4, 60, 60), (1, 20, 20, 44, 44), (2, 28, 28, 36, 36)),
    "smaller than a pixel": targets((2, 30.2, 10.1, 30.7, 10.3), (0, 0, 0, 0.5, 0.5), (1, 10, 10, 40, 40)),
    "between cells": targets((1, 7, 9, 10, 11), (0, 31, 31, 33, 33)),
    "at the edge": targets((0, -9, 40, 3, 80), (1, 55, -4, 70, 20)),
}


@pytest.mark.parametrize("top_k", [1, 4, 13])
@pytest.mark.parametrize("scene", SCENES)
def test_assignment_is_the_paper_s(scene: str, top_k: int) -> None:
    truth = SCENES[scene]
    for seed in range(5):
        scores, _, boxes = outputs(seed)
        found = assign(scores[0], boxes[0], POINTS[:, :2], truth, top_k)
        expected = assigned_by_loop(
            scores[0].tolist(), boxes[0].tolist(), truth.boxes.tolist(), truth.labels.tolist(), top_k
        )
        assert found.objects.tolist() == [number for number, _ in expected]
        assert found.quality.tolist() == pytest.approx([quality for _, quality in expected], rel=1e-9, abs=1e-30)
        if top_k > 1:
            assert set(found.objects.tolist()) == {-1, *range(len(truth.labels))}


def test_losses_are_the_formulas() -> None:
    """Images with and without objects, in one batch: every term by loops over points, classes and sides."""
    truths = [*SCENES.values(), targets()]
    scores, raw, boxes = outputs(7, len(truths))
    sums = {"class": 0.0, "box": 0.0, "distribution": 0.0}
    total = 0.0
    for image, truth in enumerate(truths):
        rows = assigned_by_loop(
            scores[image].tolist(), boxes[image].tolist(), truth.boxes.tolist(), truth.labels.tolist(), 13
        )
        for i, (number, quality) in enumerate(rows):
            total += quality
            for label, score in enumerate(scores[image, i].tolist()):
                wanted = quality if number >= 0 and label == int(truth.labels[number]) else 0.0
                probability = 1 / (1 + math.exp(-score))
                cross_entropy = -wanted * math.log(probability) - (1 - wanted) * math.log(1 - probability)
                sums["class"] += abs(wanted - probability) ** 2 * cross_entropy
            if number < 0:
                continue
            x1, y1, x2, y2 = truth.boxes[number].tolist()
            x, y, stride = CELLS[i]
            sums["box"] += quality * giou_loss(boxes[image, i].tolist(), [x1, y1, x2, y2])
            distances = ((x - x1) / stride, (y - y1) / stride, (x2 - x) / stride, (y2 - y) / stride)
            sides = [focal_by_loop(raw[image, i, side].tolist(), distances[side]) for side in range(4)]
            sums["distribution"] += quality * sum(sides) / 4
    terms = aligned_loss(scores, raw, boxes, POINTS, truths)
    assert {name: float(term) for name, term in terms.items()} == pytest.approx(
        {name: value / total for name, value in sums.items()}, rel=1e-6
    )


def test_the_model_s_terms_are_weighted_sums() -> None:
    model = create_model("one_stage", 3, backbone="mobilenet_v3_small")
    assert isinstance(model, OneStage)
    truth = DetectionTargets([SCENES["neighbours"], targets()], (SIDE, SIDE))
    given = model(torch.rand(2, 3, SIDE, SIDE))
    truth = DetectionTargets([ObjectTargets(each.boxes.float(), each.labels) for each in truth.objects], truth.size)
    terms = model.losses(given, truth)
    boxes = model.predictions(given, (SIDE, SIDE))["boxes"]
    raw = given["distributions"].unflatten(-1, (4, 17))
    plain = aligned_loss(given["scores"], raw, boxes, POINTS.float(), truth.objects)
    for name, weight in (("class", 1.0), ("box", 2.0), ("distribution", 0.5)):
        torch.testing.assert_close(terms[name], weight * plain[name])


@pytest.mark.parametrize("scene", SCENES)
def test_gradients_are_those_of_finite_differences(scene: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the assignment stands still: it is a target, through which nothing is to be learned."""
    scores, raw, boxes = outputs(3, bins=5)
    fixed = assign(scores[0], boxes[0], POINTS[:, :2], SCENES[scene])
    monkeypatch.setattr(task_alignment, "assign", lambda *_: fixed)
    near = (fixed.objects >= 0).nonzero()[:3, 0]  # the points whose outputs are varied

    def loss(own_scores: Tensor, own_raw: Tensor) -> Tensor:
        all_scores, all_raw = scores.index_put((torch.tensor(0), near), own_scores), raw.clone()
        all_raw = all_raw.index_put((torch.tensor(0), near), own_raw)
        decoded = distances_to_boxes(all_raw.softmax(-1) @ torch.arange(5, dtype=torch.float64), POINTS)
        return torch.stack([*aligned_loss(all_scores, all_raw, decoded, POINTS, [SCENES[scene]]).values()])

    inputs = (scores[0, near].requires_grad_(), raw[0, near].requires_grad_())
    assert torch.autograd.gradcheck(loss, inputs)


def test_distribution_focal_loss_is_least_at_the_distance() -> None:
    """And clips distances that no bin stands for, as those from a point beside its object."""
    distances = torch.tensor([[0.0, 2.25, 4.0, 3.5], [-3.0, 9.0, 0.75, 1.0]], dtype=torch.float64)
    raw = torch.randn(2, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = [
        sum(focal_by_loop(raw[row, side].tolist(), float(distances[row, side])) for side in range(4)) / 4
        for row in range(2)
    ]
    assert distribution_focal_loss(raw, distances).tolist() == pytest.approx(expected)
    raw = raw.requires_grad_()
    optimizer = torch.optim.LBFGS([raw], max_iter=200, line_search_fn="strong_wolfe")

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = distribution_focal_loss(raw, distances).sum()
        loss.backward()
        return loss

    optimizer.step(step)
    means = raw.softmax(-1) @ torch.arange(5, dtype=torch.float64)
    torch.testing.assert_close(means, distances.clamp(0, 4), atol=1e-2, rtol=0)


def test_boxes_are_the_means_of_the_distances() -> None:
    """Of an image whose maps do not fill it, by a loop."""
    model = create_model("one_stage", 2, backbone="mobilenet_v3_small").eval()
    assert isinstance(model, OneStage)
    height, width = 72, 104
    with torch.no_grad():
        given = model(torch.rand(1, 3, height, width))
        given["distributions"] = 2 * torch.randn_like(given["distributions"])
        found = model.predictions(given, (height, width))
    index = 0
    for rows, columns in ((9, 13), (5, 7), (3, 4)):
        for row in range(rows):
            for column in range(columns):
                raw = given["distributions"][0, index].view(4, 17).double().exp()
                left, top, right, bottom = ((side * torch.arange(17)).sum() / side.sum() for side in raw)
                x, y = width / columns, height / rows
                box = [(column + 0.5 - left) * x, (row + 0.5 - top) * y,
                       (column + 0.5 + right) * x, (row + 0.5 + bottom) * y]  # fmt: skip
                assert found["boxes"][0, index].tolist() == pytest.approx([float(side) for side in box], abs=1e-3)
                index += 1
    assert index == found["boxes"].shape[1] == found["scores"].shape[1]
    score = float(given["scores"][0, 5, 1])
    assert float(found["scores"][0, 5, 1]) == pytest.approx(1 / (1 + math.exp(-score)))


def test_an_exported_file_computes_the_boxes(tmp_path: Path) -> None:
    """ONNX Runtime, from bytes to boxes of an image whose maps are enlarged to odd sides."""
    torch.manual_seed(0)
    model = create_model("one_stage", 2, image_size=72, backbone="mobilenet_v3_small")
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
    nn.init.normal_(model.head.regressors[0].weight)
    metadata = replace(describe(model), classes=["cat", "dog"])
    save_model(tmp_path / "saved", model.eval(), metadata)
    exported = hubel.export(tmp_path / "saved", "onnx", out=tmp_path / "out")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 72, 72, 3), np.uint8)
    session = onnxruntime.InferenceSession(exported.path)
    boxes, scores = session.run(["boxes", "scores"], {"pixels": pixels})
    with torch.no_grad():
        images = metadata.preprocessing.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        expected = model.predictions(model(images), (72, 72))
    np.testing.assert_allclose(boxes, expected["boxes"], atol=0.01)
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-4)


def test_it_trains_by_its_own_recipes_unless_told_otherwise() -> None:
    def config(**options: object) -> TrainingConfig:
        return complete_config(Path("data"), {"task": "detect", "model": "one_stage", **options})

    assert [config(**options).epochs for options in ({}, {"weights": None}, {"epochs": 7})] == [28, 100, 7]
    assert config(weights=None).learning_rate == config(model="ssd", weights=None).learning_rate
    # What the model leaves out is the task's, and so is all of other models.
    assert [config(model="ssd", **options).epochs for options in ({}, {"weights": None})] == [60, 200]


def test_a_new_head_expects_few_objects_of_its_cells_size() -> None:
    model = create_model("one_stage", 4, backbone="mobilenet_v3_small").eval()
    with torch.no_grad():
        found = model.predictions(model(torch.rand(2, 3, 128, 128)), (128, 128))
    assert float(found["scores"].mean()) == pytest.approx(0.01, rel=0.1)
    sides = (found["boxes"][0, :, 2:] - found["boxes"][0, :, :2]).mean(1)
    for first, last, stride in ((0, 256, 8), (256, 320, 16), (320, 336, 32)):
        assert sides[first:last].tolist() == pytest.approx((last - first) * [4.6 * stride], rel=0.05)


def test_distances_and_boxes_are_inverse() -> None:
    boxes = torch.tensor([[3.0, 4.0, 50.0, 60.0], [-5.0, 0.0, 7.0, 9.0]])
    points = torch.tensor([[20.0, 30.0, 8.0, 10.0], [4.0, 4.0, 8.0, 8.0]])
    distances = box_to_distances(boxes, points)
    assert distances[0].tolist() == pytest.approx([17 / 8, 26 / 10, 30 / 8, 30 / 10])
    torch.testing.assert_close(distances_to_boxes(distances, points), boxes)


def test_hundreds_of_objects_and_none() -> None:
    random = torch.Generator().manual_seed(0)
    corners = 60 * torch.rand(500, 2, generator=random, dtype=torch.float64)
    crowd = ObjectTargets(
        torch.cat((corners, corners + 0.01 + 3 * torch.rand(500, 2, generator=random)), 1), torch.zeros(500).long()
    )
    for truth in (crowd, targets()):
        scores, raw, _ = outputs(0)
        raw = raw.requires_grad_()
        boxes = distances_to_boxes(raw.softmax(-1) @ torch.arange(9, dtype=torch.float64), POINTS)
        terms = aligned_loss(scores.requires_grad_(), raw, boxes, POINTS, [truth])
        sum(terms.values()).backward()
        terms = {name: term.detach() for name, term in terms.items()}
        assert all(math.isfinite(float(term)) for term in terms.values())
        assert bool(scores.grad.isfinite().all() and raw.grad.isfinite().all() and scores.grad.any())
        assert (float(terms["box"]) == 0) == (float(terms["distribution"]) == 0) == (not len(truth.labels))


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["scores", "distributions"])
@pytest.mark.parametrize("scene", ["neighbours", "none"])
def test_the_loss_of_an_output_that_is_not_a_number_is_none(name: str, value: float, scene: str) -> None:
    """So that the training loop ends the run, wherever it is: also at a point of no object."""
    model = create_model("one_stage", 3, backbone="mobilenet_v3_small").eval()
    truth = SCENES.get(scene, targets())
    truth = ObjectTargets(truth.boxes.float(), truth.labels)
    with torch.no_grad():
        given = model(torch.rand(1, 3, SIDE, SIDE))
        for index in (0, 40, 83):
            broken = {key: output.clone() for key, output in given.items()}
            broken[name][0, index, 0] = value
            terms = model.losses(broken, DetectionTargets([truth], (SIDE, SIDE)))
            assert not math.isfinite(sum(float(term) for term in terms.values()))
