"""Ignored regions in every detector's loss: no gradient for background in them, and the same as before elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hubel.models import create_model
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.models.darknet.cell_loss import cell_losses
from hubel.models.darknet.heads import DetectionHead, RegionHead, YoloHead
from hubel.models.darknet.region_loss import region_losses
from hubel.models.darknet.yolo_loss import yolo_losses
from hubel.models.detection.multibox import multibox_loss
from hubel.models.detection.task_alignment import aligned_loss
from hubel.models.detection.two_stage.box_head import box_loss
from hubel.models.detection.two_stage.matching import Sampler
from hubel.models.detection.two_stage.region_proposals import proposal_loss

SIDE, CLASSES = 128, 3
SIZE = (SIDE, SIDE)
OBJECTS = torch.tensor([[10.0, 12, 50, 44], [76, 70, 110, 118]])
LABELS = torch.tensor([2, 0])
REGION = torch.tensor([[64.0, 40, 128, 128]])  # with the second object in it

Outputs = dict[str, Tensor]
Loss = Callable[[Outputs, ObjectTargets], Mapping[str, Tensor]]


def lies_inside(boxes: Tensor) -> Tensor:
    """Half of the area or more in the region, by arithmetic."""
    x1, y1, x2, y2 = boxes.double().T
    wide = (x2.clamp(max=128) - x1.clamp(min=64)).clamp(min=0)
    high = (y2.clamp(max=128) - y1.clamp(min=40)).clamp(min=0)
    return wide * high >= 0.5 * (x2 - x1) * (y2 - y1)


def gradients(loss: Loss, outputs: Outputs, ignored: Tensor | None) -> Outputs:
    """Of the sum of all terms, with respect to the outputs."""
    leaves = {name: output.clone().requires_grad_() for name, output in outputs.items()}
    sum(loss(leaves, ObjectTargets(OBJECTS, LABELS, ignored)).values()).backward()
    return {name: torch.zeros_like(each) if each.grad is None else each.grad for name, each in leaves.items()}


def check(loss: Loss, outputs: Outputs, inside: Tensor, of_box: str, normalizer: Callable[[Tensor], float]) -> None:
    """Rows of outputs (A, …) that lie inside and have no object lose their gradient; others are as before.

    ``normalizer`` is what the loss is divided by, of the rows that count. Boxes have a gradient where there is an
    object.
    """
    before, after = gradients(loss, outputs, None), gradients(loss, outputs, REGION)
    matched = before[of_box].flatten(1).abs().sum(1) > 0
    silent = inside & ~matched
    everything = torch.ones_like(silent)
    factor = normalizer(everything) / normalizer(~silent)
    assert silent.any() and (inside & matched).any() and (~inside & ~matched).any()
    lost = 0.0
    for name, gradient in after.items():
        lost += float(before[name][silent].abs().sum())
        assert not gradient[silent].any()
        torch.testing.assert_close(gradient[~silent], before[name][~silent] * factor)
    assert lost > 0


def one(_: Tensor) -> float:
    return 1.0


def count(rows: Tensor) -> float:
    return float(rows.sum())


def random_boxes(number: int) -> Tensor:
    """Boxes all over the image, and some near each object."""
    corner, extent = torch.rand(number, 2) * 90, 10 + torch.rand(number, 2) * 40
    near = OBJECTS.repeat(8, 1) + 4 * torch.randn(16, 4)
    return torch.cat((torch.cat((corner, corner + extent), 1), near))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def test_multibox() -> None:
    anchors = random_boxes(40)  # with a third of them on objects, all background counts
    outputs = {"scores": torch.randn(56, 1 + CLASSES), "offsets": torch.randn(56, 4)}

    def loss(raw: Outputs, targets: ObjectTargets) -> Mapping[str, Tensor]:
        return multibox_loss(raw["scores"][None], raw["offsets"][None], anchors, [targets])

    check(loss, outputs, lies_inside(anchors), "offsets", one)


def test_hard_negatives_are_others() -> None:
    corner = torch.rand(300, 2) * 100
    anchors = torch.cat((torch.cat((corner, corner + 12), 1), OBJECTS))  # only the last two on objects
    inside = lies_inside(anchors)
    scores = torch.randn(302, 1 + CLASSES)
    scores[inside, 0] -= 10  # the hardest of all
    scores.requires_grad_()
    targets = ObjectTargets(OBJECTS, LABELS, REGION)
    multibox_loss(scores[None], torch.zeros(1, 302, 4), anchors, [targets])["class"].backward()
    hardness = -functional.log_softmax(scores.detach(), 1)[:, 0]
    hardness[inside] = -torch.inf
    hardness[300:] = -torch.inf
    assert scores.grad is not None
    counted = scores.grad.abs().sum(1).nonzero()[:, 0].tolist()
    assert counted == sorted([*hardness.topk(6).indices.tolist(), 300, 301])


def test_efficientdet() -> None:
    model = create_model("efficientdet_d0", num_classes=CLASSES, backbone="efficientnet_lite0", image_size=SIDE)
    anchors = model.anchors(*SIZE)
    outputs = {"scores": torch.randn(len(anchors), CLASSES), "offsets": torch.randn(len(anchors), 4)}

    def loss(raw: Outputs, targets: ObjectTargets) -> Mapping[str, Tensor]:
        return model.losses({name: each[None] for name, each in raw.items()}, DetectionTargets([targets], SIZE))

    check(loss, outputs, lies_inside(anchors), "offsets", one)


def test_task_alignment() -> None:
    y, x = torch.meshgrid(torch.arange(8) * 16 + 8.0, torch.arange(8) * 16 + 8.0, indexing="ij")
    points = torch.stack((x, y, *2 * [torch.full_like(x, 16)]), -1).view(-1, 4)
    reach = 4 + 20 * torch.rand(64, 4)
    boxes = torch.cat((points[:, :2] - reach[:, :2], points[:, :2] + reach[:, 2:]), 1)
    outputs = {"scores": torch.randn(64, CLASSES), "distributions": torch.randn(64, 4, 5)}

    def loss(raw: Outputs, targets: ObjectTargets) -> Mapping[str, Tensor]:
        return aligned_loss(raw["scores"][None], raw["distributions"][None], boxes[None], points, [targets])

    check(loss, outputs, lies_inside(boxes), "distributions", one)


CELLS = DetectionHead(side=4, boxes=2, classes=CLASSES)
REGIONS = RegionHead(32, ((20.0, 20.0), (70.0, 30.0), (40.0, 50.0)))
SHAPES = ((20.0, 20.0), (70.0, 30.0), (40.0, 50.0))
YOLO_V3 = YoloHead(32, SHAPES, (0, 1, 2))
YOLO_V4 = YoloHead(32, SHAPES, (0, 1, 2), iou_loss="ciou", objectness_smooth=True)


@pytest.mark.parametrize(
    ("head", "losses"),
    [(CELLS, cell_losses), (REGIONS, region_losses), (YOLO_V3, yolo_losses), (YOLO_V4, yolo_losses)],
    ids=["yolo_v1", "yolo_v2", "yolo_v3", "yolo_v4"],
)
def test_yolo(head: DetectionHead | RegionHead | YoloHead, losses: Callable[..., Mapping[str, Tensor]]) -> None:
    number = head.count(SIZE)
    outputs = {"boxes": torch.rand(number, 4), "others": torch.rand(number, 1 + CLASSES)}

    def loss(raw: Outputs, targets: ObjectTargets) -> Mapping[str, Tensor]:
        return losses(head, torch.cat((raw["boxes"], raw["others"]), 1), targets, SIZE)

    inside = lies_inside(head.decode(outputs["boxes"], SIZE))
    check(loss, outputs, inside, "boxes", one)


def test_sliding_windows() -> None:
    model = create_model("sliding_window", num_classes=CLASSES, image_size=SIDE, window=32, per_octave=2)
    windows = model.anchors(*SIZE)
    outputs = {"scores": torch.randn(len(windows), 1 + CLASSES), "offsets": torch.randn(len(windows), 4)}
    targets = DetectionTargets([ObjectTargets(OBJECTS, LABELS, REGION)], SIZE)
    plain = DetectionTargets([ObjectTargets(OBJECTS, LABELS)], SIZE)
    raw = {name: each[None] for name, each in outputs.items()}
    before, after = (model._assigned(raw, each).labels for each in (plain, targets))
    silent = lies_inside(windows) & (before == 0)
    assert silent.any() and (after[silent] == -1).all() and torch.equal(after[~silent], before[~silent])
    scores = raw["scores"].requires_grad_()
    model.losses({**raw, "scores": scores}, targets)["class"].backward()
    assert scores.grad is not None
    counted = (before >= 0) & ~silent
    assert torch.equal(scores.grad[0].abs().sum(1) > 0, counted)


def test_region_proposals() -> None:
    anchors = random_boxes(100)
    outputs = {"objectness": torch.randn(116), "offsets": torch.randn(116, 4)}

    def loss(raw: Outputs, targets: ObjectTargets) -> Mapping[str, Tensor]:
        return proposal_loss(raw["objectness"][None], raw["offsets"][None], anchors, [targets], random=False)

    between = gradients(loss, outputs, None)["objectness"] == 0  # neither anyway: IoU of 0.3 to 0.7
    check(loss, outputs, lies_inside(anchors) | between, "offsets", lambda rows: count(rows & ~between))


def test_second_stage() -> None:
    proposals = random_boxes(60)
    outputs = {"scores": torch.randn(76, 1 + CLASSES), "offsets": torch.randn(76, CLASSES, 4)}
    for sampler in (None, Sampler(512, 0.25)):

        def loss(raw: Outputs, targets: ObjectTargets, sampler: Sampler | None = sampler) -> Mapping[str, Tensor]:
            return box_loss(proposals[None], raw["scores"][None], raw["offsets"][None], [targets], sampler)

        check(loss, outputs, lies_inside(proposals), "offsets", count)


def test_faster_rcnn_draws_no_ignored_regions() -> None:
    model = create_model("faster_rcnn", num_classes=CLASSES, image_size=SIDE, backbone="efficientnet_lite0").train()
    images = torch.rand(1, 3, SIDE, SIDE)
    for ignored, expected in ((None, True), (REGION, False)):
        targets = DetectionTargets([ObjectTargets(OBJECTS, LABELS, ignored)], SIZE)
        torch.manual_seed(1)
        drawn = model.training_outputs(images, targets)["proposals"][0]
        drawn = drawn[drawn[:, 2] > drawn[:, 0]]
        shared = torch.minimum(drawn[:, None, 2:], OBJECTS[:, 2:]) - torch.maximum(drawn[:, None, :2], OBJECTS[:, :2])
        shared = shared.clamp(min=0).prod(2)
        area = (drawn[:, 2:] - drawn[:, :2]).prod(1)
        union = area[:, None] + (OBJECTS[:, 2:] - OBJECTS[:, :2]).prod(1) - shared
        background = (shared / union).amax(1) < 0.5
        assert len(drawn) > 20 and (lies_inside(drawn) & background).any() == expected
