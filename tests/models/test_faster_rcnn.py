"""Faster R-CNN on torchvision's weights and against its parts; the centres of cells by arithmetic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.models import detection as theirs
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler, Matcher
from torchvision.ops import box_iou
from torchvision.ops.poolers import LevelMapper

from hubel.errors import ModelError
from hubel.models import create_model, describe
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.models.detection.two_stage.matching import Sampler, match
from hubel.models.detection.two_stage.padded_images import image_areas
from hubel.models.detection.two_stage.roi_align import PyramidRoIAlign
from hubel.tasks.decoding import Thresholds
from hubel.tasks.detection.decode import select_objects
from torchvision_detectors import (
    SIDE,
    losses_of_both,
    padded,
    photographs,
    reference,
    some_objects,
    with_its_weights,
)

EDITIONS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)


@pytest.mark.parametrize("name", EDITIONS)
def test_objects_are_torchvision_s(name: str, tmp_path: Path) -> None:
    """By way of a file as torchvision publishes it, on photographs of two shapes with padding."""
    network = reference(name)
    ours = with_its_weights(network, name, tmp_path)
    ready = describe(ours).preprocessing
    transform = network.transform
    assert [*ready.mean, *ready.std] == pytest.approx([255 * x for x in (*transform.image_mean, *transform.image_std)])
    batch = padded(transform.normalize(photographs()))
    inputs = batch.tensors
    with torch.inference_mode():
        features = network.backbone(inputs)
        anchors = network.rpn.anchor_generator(batch, list(features.values()))[0]
        proposals, _ = network.rpn(batch, features)
        expected, _ = network.roi_heads(features, proposals, batch.image_sizes)
        found = ours.predictions(ours(inputs), (SIDE, SIDE))
    torch.testing.assert_close(ours.anchors(SIDE, SIDE), anchors, atol=1e-3, rtol=0)
    # Those of background's class are not for anything.
    background = network.roi_heads.box_predictor.bbox_pred.weight[:4].numel() + 4
    parameters = [sum(p.numel() for p in each.parameters()) for each in (ours, network)]
    assert parameters[0] == parameters[1] - background
    thresholds = Thresholds(conf=0.05, iou=0.5, max_detections=100)
    for wanted, boxes, scores in zip(expected, found["boxes"], found["scores"], strict=True):
        objects = select_objects(boxes.numpy(), scores.numpy(), (SIDE, SIDE), thresholds)
        assert len(objects.scores) > 20 and objects.scores.std() > 0.01
        torch.testing.assert_close(torch.from_numpy(objects.boxes), wanted["boxes"], atol=1e-3, rtol=0)
        torch.testing.assert_close(torch.from_numpy(objects.scores), wanted["scores"], atol=1e-5, rtol=0)
        assert objects.labels.tolist() == (wanted["labels"] - 1).tolist()


def test_older_files_of_torchvision_load(tmp_path: Path) -> None:
    """Its published ones name layers as earlier versions did, and have no counters of batches."""
    network = theirs.fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=4)
    older = {
        key.replace("rpn.head.conv.0.0", "rpn.head.conv"): tensor
        for key, tensor in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    older = {
        key.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if ".fpn." in key else key: tensor
        for key, tensor in older.items()
    }
    assert {"rpn.head.conv.weight", "backbone.fpn.inner_blocks.3.weight"} <= older.keys()
    torch.save(older, tmp_path / "older.pth")
    ours = create_model("fasterrcnn_resnet50_fpn", weights=tmp_path / "older.pth")
    assert torch.equal(ours.first_stage.convs[0].weight, network.rpn.head.conv[0][0].weight)
    assert torch.equal(ours.pyramid.lateral[3].conv.bias, network.backbone.fpn.inner_blocks[3][0].bias)


@pytest.mark.parametrize("name", EDITIONS[1:3])
def test_losses_and_samples_are_torchvision_s(name: str, tmp_path: Path) -> None:
    network = reference(name)
    wanted, found = losses_of_both(network, with_its_weights(network, name, tmp_path), some_objects())
    assert list(found) == ["objectness", "proposal_box", "class", "box"]
    for ours, expected in zip(found.values(), wanted.values(), strict=True):
        assert expected > 1e-3
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_the_loss_in_evaluation_is_the_mean_over_samples(tmp_path: Path) -> None:
    """Without chance; detections come with it, from the same outputs."""
    network = reference(EDITIONS[2])
    ours = with_its_weights(network, EDITIONS[2], tmp_path)
    targets = DetectionTargets(some_objects(), (SIDE, SIDE))
    with torch.inference_mode():
        outputs = ours(network.transform.normalize(photographs()))
        once, again = ours.losses(outputs, targets), ours.losses(outputs, targets)
        ours.train()
        drawn = [ours.losses(outputs, targets) for _ in range(300)]
    assert once == again
    for name in ("objectness", "proposal_box"):
        each = torch.stack([losses[name] for losses in drawn])
        assert each.std() > 0
        assert abs(float(each.mean() - once[name])) < 4 * float(each.std()) / 300**0.5


def test_nothing_to_find_is_no_error() -> None:
    """No object in the batch; and boxes that all lie beside the image, so that there are no proposals."""
    torch.manual_seed(0)
    model = create_model("faster_rcnn", 3)
    nothing = DetectionTargets([ObjectTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))] * 2, (128, 128))
    images = torch.randn(2, 3, 128, 128)
    for without_proposals in (False, True):
        if without_proposals:
            model.first_stage.offsets.bias.data[:] = torch.tensor([1e4, 0.0, 0.0, 0.0]).repeat(3)
        losses = model.train().losses(model.training_outputs(images, nothing), nothing)
        assert losses["box"] == losses["proposal_box"] == 0
        assert losses["class"] >= 0 and 0 < losses["objectness"] < torch.inf
        sum(losses.values()).backward()
        with torch.inference_mode():
            outputs = model.eval()(images)
            found = model.predictions(outputs, (128, 128))
        assert bool(found["scores"].any()) is not without_proposals
        assert all(bool(each.isfinite().all()) for each in (*outputs.values(), *found.values()))


def some_boxes(count: int, generator: torch.Generator) -> torch.Tensor:
    corner = 100 * torch.rand(count, 2, generator=generator)
    return torch.cat((corner, corner + 5 + 60 * torch.rand(count, 2, generator=generator)), 1)


@pytest.mark.parametrize(("high", "low", "best_too"), [(0.7, 0.3, True), (0.5, 0.5, False), (0.6, 0.2, False)])
def test_matches_are_torchvision_s(high: float, low: float, best_too: bool) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(20):
        boxes, objects = some_boxes(200, generator), some_boxes(6, generator)
        boxes[3] = boxes[17]
        objects[5] += 500  # overlaps none
        expected = Matcher(high, low, best_too)(box_iou(objects, boxes))
        assert torch.equal(match(boxes, objects, high, low, best_too), expected)


@pytest.mark.parametrize("positives", [0, 20, 300])
def test_samples_are_torchvision_s(positives: int) -> None:
    labels = torch.cat((torch.ones(positives), torch.zeros(400), -torch.ones(50)))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))]
    torch.manual_seed(4)
    positive, negative = BalancedPositiveNegativeSampler(256, 0.5)([labels])
    torch.manual_seed(4)
    drawn = Sampler(256, 0.5).draw(labels == 1, labels == 0)
    assert drawn.tolist() == (positive[0] | negative[0]).nonzero()[:, 0].tolist()
    weights = Sampler(256, 0.5).weights(labels == 1, labels == 0, random=False)
    assert float(weights.sum()) == pytest.approx(len(drawn), rel=1e-5)
    assert float(weights[labels == 1].sum()) == pytest.approx(min(positives, 128), rel=1e-5)


def test_levels_are_torchvision_s() -> None:
    sides = torch.cat((torch.linspace(1, 900, 400), torch.tensor([56.0, 112, 224, 448, 111.9999, 448.001])))
    boxes = torch.stack((0 * sides, 0 * sides, sides * 2, sides / 2), 1)
    for strides in ((4, 8, 16, 32), (8, 16, 32)):
        first = strides[0].bit_length() - 1
        expected = LevelMapper(first, first + len(strides) - 1)([boxes])
        assert torch.equal(PyramidRoIAlign(strides).level_of(boxes), expected)


def test_padding_is_what_has_the_mean_colour_along_the_edges() -> None:
    """As Preprocessing pads: in whole grey levels, on both sides; or, as torchvision does, with zeros on one."""
    ready = describe(create_model("fasterrcnn_mobilenet_v3_large_320_fpn", 2)).preprocessing
    pixels = torch.from_numpy(np.tile(ready.background, (4, 40, 60, 1)))
    pixels[0, 8:32] = torch.randint(0, 255, (24, 60, 3), dtype=torch.uint8)
    pixels[1, :, 20:59] += 1  # the nearest other colour
    pixels[3] = 0  # a black image
    inputs = ready.normalize(pixels.permute(0, 3, 1, 2))
    inputs[0, :, 12:20] = 0  # inside the image
    areas = [[0, 8, 60, 32], [20, 0, 59, 40], [0, 0, 60, 40], [0, 0, 60, 40]]
    assert image_areas(inputs).tolist() == areas


def test_aligned_squares_have_the_values_at_their_places() -> None:
    """Of maps whose values are the x of the cells' centres, a bin's value is the x of its centre."""
    levels = [
        ((torch.arange(256 / stride) + 0.5) * stride).expand(2, 1, 256 // stride, -1).contiguous() for stride in (8, 16)
    ]
    regions = torch.tensor([[0, 40.0, 30, 110, 50], [1, 21.0, 17, 221, 217]])
    squares = PyramidRoIAlign((8, 16))(levels, regions)
    for square, (_, left, _, right, _) in zip(squares, regions, strict=True):
        centres = left + (torch.arange(7) + 0.5) * (right - left) / 7
        torch.testing.assert_close(square, centres.expand(1, 7, 7), atol=1e-3, rtol=0)


def test_anchors_of_the_default_lie_around_the_centres_of_cells() -> None:
    anchors = create_model("faster_rcnn", 2).anchors(128, 192)
    assert len(anchors) == 3 * (16 * 24 + 8 * 12 + 4 * 6 + 2 * 3)
    # Stride 8: 32 pixels, first twice as wide as high.
    long, short = 32 * 2**0.5, 32 / 2**0.5
    torch.testing.assert_close(anchors[0], torch.tensor([4 - long / 2, 4 - short / 2, 4 + long / 2, 4 + short / 2]))
    torch.testing.assert_close(anchors[4], torch.tensor([12.0 - 16, 4 - 16, 12 + 16, 4 + 16]))
    assert anchors[-2].tolist() == [160 - 128, 96 - 128, 160 + 128, 96 + 128]


def test_a_backbone_without_the_maps_is_refused() -> None:
    with pytest.raises(ModelError, match="faster_rcnn needs maps of stride 8, 16 and 32"):
        create_model("faster_rcnn", backbone="lenet5")
