"""Images that label only some classes, in every detector's loss: PyTorch's functions and plain sums are the judge."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatch
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from hubel.models import create_model, list_models
from hubel.models.base import DetectionTargets, Detector, ObjectTargets
from hubel.models.darknet.cell_loss import cell_losses
from hubel.models.darknet.heads import DetectionHead, RegionHead, YoloHead
from hubel.models.darknet.region_loss import region_losses
from hubel.models.darknet.word_tree import WordTree
from hubel.models.darknet.yolo_loss import yolo_losses
from hubel.models.detection.multibox import match, multibox_loss
from hubel.models.detection.task_alignment import aligned_loss
from hubel.models.detection.two_stage.box_head import box_loss
from hubel.models.detection.two_stage.region_proposals import proposal_loss
from hubel.weights.darknet_tree import parse_tree

SIDE, CLASSES = 128, 4
SIZE = (SIDE, SIDE)
BOXES = torch.tensor([[10.0, 12, 50, 44], [76, 70, 110, 118]])
LABELS = torch.tensor([2, 0])
LABELLED = torch.tensor([True, False, False, True])  # of class 2 there may be other objects than the labelled one
OBJECTS = ObjectTargets(BOXES, LABELS, labelled=LABELLED)
ALL = ObjectTargets(BOXES, LABELS)

# The losses of the large ones are those of the others.
LARGE = ("*vgg*", "fasterrcnn_*", "maskrcnn_*", "yolo_v[1-4]", "yolo_v3_spp", "yolo_v4_csp", "efficientdet_d[1-7]")
EVERY = [name for task in ("detect", "instances") for name in list_models(task)]
NAMES = [name for name in EVERY if not any(fnmatch(name, pattern) for pattern in LARGE)]
OPTIONS: dict[str, dict[str, Any]] = {"sliding_window": {"window": 32}, "yolo_9000": {"backbone": "efficientnet_lite0"}}


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def random_boxes(number: int) -> Tensor:
    """Boxes all over the image, and eight near each object."""
    corner, extent = torch.rand(number, 2) * 90, 10 + torch.rand(number, 2) * 40
    near = BOXES.repeat(8, 1) + 4 * torch.randn(16, 4)
    return torch.cat((torch.cat((corner, corner + extent), 1), near))


def known_columns(label: int) -> list[int]:
    """The classes that count for a box with the class of its object, or -1."""
    return sorted({0, 3, label} - {-1})


def gradient(scores: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    leaf = scores.clone().requires_grad_()
    loss(leaf).backward()
    assert leaf.grad is not None
    return leaf.grad


def check_silence(found: Tensor, owner: Tensor, background: int = 0) -> None:
    """No gradient (A, background + classes) for what is not known of boxes with these classes (A,), or -1."""
    for label in (-1, 0, 2):
        rows = found[owner == label]
        known = [*range(background), *(background + each for each in known_columns(label))]
        unknown = sorted(set(range(found.shape[1])) - set(known))
        assert len(rows) and not rows[:, unknown].any()
        assert (rows[:, known].abs().sum(0) > 0).all()


# --- the class losses are those of the classes that count ----------------------------------------------------------


def test_multibox_is_a_softmax_over_background_and_what_is_labelled() -> None:
    anchors = random_boxes(40)
    scores = torch.randn(56, 1 + CLASSES)
    labels = match(anchors, ALL).labels
    each = torch.stack(
        [
            functional.cross_entropy(
                row[[0, *(1 + known for known in known_columns(label - 1))]],
                torch.tensor(0 if not label else 1 + known_columns(label - 1).index(label - 1)),
            )
            for row, label in zip(scores, labels.tolist(), strict=True)
        ]
    )
    positive = labels > 0
    hardest = each[~positive].topk(min(3 * int(positive.sum()), int((~positive).sum()))).values

    def loss(raw: Tensor) -> Tensor:
        return multibox_loss(raw[None], torch.zeros(1, 56, 4), anchors, [OBJECTS])["class"]

    torch.testing.assert_close(loss(scores), (each[positive].sum() + hardest.sum()) / positive.sum())
    check_silence(gradient(scores, loss), labels - 1, background=1)


def test_multibox_with_sigmoids_leaves_out_terms() -> None:
    model = create_model("ssd300_mobilenet_v2", num_classes=CLASSES, image_size=SIDE)
    anchors = model.anchors(*SIZE)
    labels = match(anchors, ALL).labels
    scores = torch.randn(1, len(anchors), 1 + CLASSES)
    wanted = functional.one_hot(labels, 1 + CLASSES).float()
    terms = functional.binary_cross_entropy_with_logits(scores[0], wanted, reduction="none")
    counts = torch.cat((torch.ones(len(labels), 1, dtype=torch.bool), LABELLED | (wanted[:, 1:] > 0)), 1)
    each, positive = (terms * counts).sum(1), labels > 0
    expected = (each[positive].sum() + each[~positive].topk(3 * int(positive.sum())).values.sum()) / positive.sum()

    def loss(raw: Tensor) -> Tensor:
        outputs = {"scores": raw, "offsets": torch.zeros(1, len(anchors), 4)}
        return model.losses(outputs, DetectionTargets([OBJECTS], SIZE))["class"]

    torch.testing.assert_close(loss(scores), expected)
    check_silence(gradient(scores, loss)[0], labels - 1, background=1)


def test_focal_loss_is_of_what_is_labelled() -> None:
    model = create_model("efficientdet_d0", num_classes=CLASSES, backbone="efficientnet_lite0", image_size=SIDE)
    anchors = model.anchors(*SIZE)
    owner = match(anchors, ALL, earlier=True).labels - 1
    scores = torch.randn(2, len(anchors), CLASSES)
    wanted = (owner[:, None] == torch.arange(CLASSES)).float()
    counts = LABELLED | (wanted > 0)
    focal = sigmoid_focal_loss(scores, wanted.expand(2, -1, -1), 0.25, 1.5)
    expected = (focal[0].sum() + (focal[1] * counts).sum()) / (2 * (owner >= 0).sum() + 1)

    def loss(raw: Tensor) -> Tensor:
        outputs = {"scores": raw, "offsets": torch.zeros(2, len(anchors), 4)}
        return model.losses(outputs, DetectionTargets([ALL, OBJECTS], SIZE))["class"]

    torch.testing.assert_close(loss(scores), expected)
    found = gradient(scores, loss)
    check_silence(found[1], owner)
    assert (found[0] != 0).all()  # of an image that labels all


def test_task_alignment_is_of_what_is_labelled() -> None:
    y, x = torch.meshgrid(torch.arange(8) * 16 + 8.0, torch.arange(8) * 16 + 8.0, indexing="ij")
    points = torch.stack((x, y, *2 * [torch.full_like(x, 16)]), -1).view(-1, 4)
    reach = 4 + 20 * torch.rand(64, 4)
    boxes = torch.cat((points[:, :2] - reach[:, :2], points[:, :2] + reach[:, 2:]), 1)
    scores, distributions = torch.randn(64, CLASSES), torch.randn(64, 4, 5)

    def loss(raw: Tensor, targets: ObjectTargets = OBJECTS) -> Tensor:
        return aligned_loss(raw[None], distributions[None], boxes[None], points, [targets])["class"]

    before, after = (gradient(scores, lambda raw, each=each: loss(raw, each)) for each in (ALL, OBJECTS))  # type: ignore[misc]
    inside = (points[:, None, :2] > BOXES[:, :2]).all(2) & (points[:, None, :2] < BOXES[:, 2:]).all(2)
    owner = torch.where(inside.any(1), LABELS[inside.float().argmax(1)], -1)
    check_silence(after, owner)
    counts = LABELLED | (owner[:, None] == torch.arange(CLASSES))
    torch.testing.assert_close(after, before * counts)


def test_second_stage_is_a_softmax_over_background_and_what_is_labelled() -> None:
    regions = random_boxes(40)
    scores = torch.randn(56, 1 + CLASSES)
    overlap = (regions[:, None, 2:].minimum(BOXES[:, 2:]) - regions[:, None, :2].maximum(BOXES[:, :2])).clamp(0).prod(2)
    areas = [(each[:, 2:] - each[:, :2]).prod(1) for each in (regions, BOXES)]
    iou, index = (overlap / (areas[0][:, None] + areas[1] - overlap)).max(1)
    owner = torch.where(iou >= 0.5, LABELS[index], -1)
    each = [
        functional.cross_entropy(
            row[[0, *(1 + known for known in known_columns(label))]],
            torch.tensor(0 if label < 0 else 1 + known_columns(label).index(label)),
        )
        for row, label in zip(scores, owner.tolist(), strict=True)
    ]

    def loss(raw: Tensor) -> Tensor:
        return box_loss(regions[None], raw[None], torch.zeros(1, 56, CLASSES, 4), [OBJECTS], None)["class"]

    torch.testing.assert_close(loss(scores), torch.stack(each).mean())
    check_silence(gradient(scores, loss), owner, background=1)


# --- objectness ----------------------------------------------------------------------------------------------------


def test_proposals_are_not_background_where_the_network_sees_an_object() -> None:
    anchors = random_boxes(200)
    scores = torch.randn(216)

    def loss(raw: Tensor, targets: ObjectTargets) -> Tensor:
        return proposal_loss(raw[None], torch.zeros(1, 216, 4), anchors, [targets], random=False)["objectness"]

    before, after = (gradient(scores, lambda raw, each=each: loss(raw, each)) for each in (ALL, OBJECTS))  # type: ignore[misc]
    background = before > 0  # its objectness is to fall
    assert (background & (scores >= 0)).any() and (before < 0).any()
    assert torch.equal(after > 0, background & (scores < 0)) and torch.equal(after < 0, before < 0)


CELLS = DetectionHead(side=4, boxes=2, classes=CLASSES)
SHAPES = ((20.0, 20.0), (70.0, 30.0), (40.0, 50.0))
HEADS: dict[str, tuple[Any, Callable[..., dict[str, Tensor]], Callable[[Tensor], Tensor]]] = {
    "yolo_v1": (CELLS, cell_losses, lambda raw: raw),
    "yolo_v2": (RegionHead(32, SHAPES, softmax=True), region_losses, lambda raw: raw.softmax(1)),
    "independent": (RegionHead(32, SHAPES, softmax=False), region_losses, torch.sigmoid),
    "yolo_v3": (YoloHead(32, SHAPES, (0, 1, 2)), yolo_losses, torch.sigmoid),
    "yolo_v4": (
        YoloHead(32, SHAPES, (0, 1, 2), iou_loss="ciou", objectness_smooth=True, label_smoothing=0.1),
        yolo_losses,
        torch.sigmoid,
    ),
    "scaled": (YoloHead(32, SHAPES, (0, 1, 2), new_coords=True), yolo_losses, lambda raw: raw),
}


@pytest.mark.parametrize("name", HEADS)
def test_objectness_of_background_counts_as_its_classes_are_labelled(name: str) -> None:
    head, losses, likely = HEADS[name]
    raw = 0.05 + 0.9 * torch.rand(head.count(SIZE), 5 + CLASSES)
    before = gradient(raw, lambda each: losses(head, each, ALL, SIZE)["objectness"])[:, 4]
    after = gradient(raw, lambda each: losses(head, each, OBJECTS, SIZE)["objectness"])
    classes = likely(raw[:, 5:])
    share = classes[:, LABELLED].sum(1) / classes.sum(1)
    # Boxes of objects count as ever: those whose class has a gradient, and those that smooth objectness pulls up.
    of_classes = gradient(raw, lambda each: losses(head, each, ALL, SIZE)["class"])[:, 5:].abs().sum(1)
    of_boxes = gradient(raw, lambda each: losses(head, each, ALL, SIZE)["box"])[:, :4].abs().sum(1)
    own = ((of_boxes if name == "yolo_v1" else of_classes) > 0) | (before < 0)
    ratio = torch.where(before == 0, 0, after[:, 4] / before)
    smooth = (ratio - 1).abs() < 1e-5
    torch.testing.assert_close(ratio[~own & ~smooth], share[~own & ~smooth] * (before[~own & ~smooth] != 0))
    torch.testing.assert_close(ratio[own], torch.ones(int(own.sum())))
    assert (~own & ~smooth & (before != 0)).sum() > 10
    assert not after[:, 5:].any()


@pytest.mark.parametrize("name", HEADS)
def test_classes_of_objects_are_compared_with_what_is_labelled(name: str) -> None:
    head, losses, _ = HEADS[name]
    raw = 0.05 + 0.9 * torch.rand(head.count(SIZE), 5 + CLASSES)
    before = gradient(raw, lambda each: losses(head, each, ALL, SIZE)["class"])
    rows = before.abs().sum(1).nonzero()[:, 0]
    assert len(rows) == 2

    def term(row: Tensor, label: int) -> Tensor:
        known, smoothing = known_columns(label), 0.1 if name == "yolo_v4" else 0
        wanted = (torch.arange(CLASSES) == label).float() * (1 - smoothing) + smoothing / 2
        if name == "yolo_v2":
            return functional.cross_entropy(row[known], torch.tensor(known.index(label)))
        if name in ("yolo_v1", "scaled"):
            return (row - wanted)[known].square().sum() * (0.5 if name == "scaled" else 1)
        return functional.binary_cross_entropy_with_logits(row[known], wanted[known], reduction="sum")

    of_rows = [raw[row, 5:] for row in rows]  # the object with the smaller y is of class 2, and comes first
    expected = term(of_rows[0], 2) + term(of_rows[1], 0)
    torch.testing.assert_close(losses(head, raw, OBJECTS, SIZE)["class"], expected)
    after = gradient(raw, lambda each: losses(head, each, OBJECTS, SIZE)["class"])[rows, 5:]
    assert torch.equal(after != 0, torch.tensor([[True, False, True, True], [True, False, False, True]]))


def test_tree_is_a_softmax_over_what_is_labelled_and_what_is_above() -> None:
    tree = parse_tree("animal -1\nvehicle -1\nplant -1\ncat 0\ndog 0\ncow 0\nterrier 4\npoodle 4\n", "a tree")
    words = WordTree(tree)
    labelled = torch.zeros(8, dtype=torch.bool)
    labelled[[1, 3]] = True  # vehicles and cats
    raw = torch.randn(3, 8)
    labels = torch.tensor([3, 1, 6])
    # Above cats and terriers are animals; plants, cows and poodles are not known, nor dogs but for the terrier.
    two, of_dogs = torch.tensor([0, 1]), torch.tensor([3, 4])
    expected = [
        functional.cross_entropy(raw[0, two], torch.tensor(0)),  # a cat is the only animal that is labelled
        functional.cross_entropy(raw[1, two], torch.tensor(1)),
        functional.cross_entropy(raw[2, two], torch.tensor(0))
        + functional.cross_entropy(raw[2, of_dogs], torch.tensor(1)),
    ]
    torch.testing.assert_close(words.loss(raw, labels, labelled), torch.stack(expected))
    found = gradient(raw, lambda each: words.loss(each, labels, labelled).sum())
    assert not found[:, [2, 5, 6, 7]].any() and not found[:2, 4].any()
    of_root, of_animal = raw[:, :3].softmax(1), raw[:, 3:6].softmax(1)
    torch.testing.assert_close(words.share(raw, labelled), of_root[:, 1] + of_root[:, 0] * of_animal[:, 0])
    labelled[0] = True  # all animals
    torch.testing.assert_close(words.share(raw, labelled), of_root[:, :2].sum(1))


# --- all of them ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_classes_that_are_not_labelled_have_no_gradient(name: str) -> None:
    model = create_model(name, num_classes=CLASSES, image_size=SIDE, **OPTIONS.get(name, {}))
    assert isinstance(model, Detector)
    labelled = torch.tensor([True, True, False, False])
    objects = ObjectTargets(BOXES, torch.zeros(2, dtype=torch.int64), labelled=labelled)
    targets = DetectionTargets([objects, objects._replace(boxes=BOXES[:0], labels=LABELS[:0])], SIZE)
    with torch.no_grad():
        outputs = model.eval().training_outputs(torch.randn(2, 3, *SIZE), targets)
    leaves = {each: part.clone().requires_grad_(part.is_floating_point()) for each, part in outputs.items()}
    losses = model.losses(leaves, targets)
    total = torch.stack(list(losses.values())).sum()
    total.backward()
    found = leaves["scores"].grad
    assert torch.isfinite(total) and found is not None
    assert found[..., -4].any() and found[..., -3].any() and not found[..., -2:].any()
