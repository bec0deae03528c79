"""YOLO's heads on classifiers of the zoo: the layers that follow a cfg's backbone, computed one by one by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.errors import ModelError
from hubel.models import create_model, describe, load_model, save_model
from hubel.models.base import Detector

CLASSES, SIDE = 3, 96
NAMES = ("yolo_v1", "yolo_v2", "yolo_v3", "yolo_v3_spp", "yolo_v4")


def detector(name: str, backbone: str = "resnet18") -> Detector:
    torch.manual_seed(0)
    model = create_model(name, CLASSES, image_size=SIDE, backbone=backbone).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if it had been trained
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    assert isinstance(model, Detector)
    return model


def by_hand(layers: Iterator[nn.Conv2d | nn.BatchNorm2d | nn.Linear], maps: Tensor) -> Tensor:
    """The next convolution of the network, its normalization and leaky ReLU."""
    convolution, norm = next(layers), next(layers)
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    maps = functional.conv2d(
        maps, convolution.weight, stride=convolution.stride, padding=convolution.kernel_size[0] // 2
    )
    maps = (maps - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
    maps = maps * norm.weight[:, None, None] + norm.bias[:, None, None]
    return torch.where(maps > 0, maps, 0.1 * maps)


def after_the_backbone(model: Detector) -> dict[str, list[nn.Module]]:
    """Layers with weights of the neck, and of the head."""
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    return {
        part: [each for each in getattr(model, part).modules() if isinstance(each, kinds)] for part in ("neck", "head")
    }


def boxes_of(maps: Tensor, count: int) -> Tensor:
    """(N, count · (5 + classes), H, W) to rows, position by position."""
    return maps.view(len(maps), count, 5 + CLASSES, -1).permute(0, 3, 1, 2).flatten(1, 2)


def outputs_of(model: Detector, images: Tensor) -> Tensor:
    outputs = model(images)
    return torch.cat([outputs[name] for name in ("boxes", "objectness", "scores")], 2)


@torch.no_grad()
def test_yolo_v2_is_two_convolutions_a_passthrough_and_one_more() -> None:
    model, images = detector("yolo_v2"), torch.randn(2, 3, SIDE, SIDE)
    pyramid, parts = model.features(images), after_the_backbone(model)
    layers = iter(parts["neck"])
    coarse = by_hand(layers, by_hand(layers, pyramid[32]))
    fine = by_hand(layers, pyramid[16])
    # Darknet's reorg, number by number: 64 × 6 × 6 read as 16 × 12 × 12.
    count, channels, height, width = fine.shape
    read = fine.reshape(count, channels // 4, 2 * height, 2 * width)
    moved = torch.stack([read[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], 1)
    joined = torch.cat((moved.reshape(count, 4 * channels, height // 2, width // 2), coarse), 1)
    expected = boxes_of(parts["head"][0](by_hand(layers, joined)), 5)
    torch.testing.assert_close(outputs_of(model, images), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_yolo_v3_has_three_scales_of_which_finer_ones_read_the_coarser() -> None:
    model, images = detector("yolo_v3"), torch.randn(1, 3, SIDE, SIDE)
    pyramid, parts = model.features(images), after_the_backbone(model)
    layers, rows, maps = iter(parts["neck"]), [], pyramid[32]
    for last, finer in zip(parts["head"], (16, 8, None), strict=True):
        for _ in range(5):
            maps = by_hand(layers, maps)
        rows.append(boxes_of(last(by_hand(layers, maps)), 3))
        if finer is not None:
            enlarged = by_hand(layers, maps).repeat_interleave(2, 2).repeat_interleave(2, 3)
            maps = torch.cat((enlarged, pyramid[finer]), 1)
    torch.testing.assert_close(outputs_of(model, images), torch.cat(rows, 1), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_yolo_v1_is_four_convolutions_and_two_dense_layers() -> None:
    model, images = detector("yolo_v1"), torch.randn(2, 3, SIDE, SIDE)
    parts, maps = after_the_backbone(model), model.features(images)[32]
    layers = iter(parts["neck"])
    for _ in range(4):
        maps = by_hand(layers, maps)
    dense, last = next(layers), parts["head"][0]
    flat = last(functional.leaky_relu(dense(maps.flatten(1)), 0.1))
    classes, confidence, boxes = flat.split((49 * CLASSES, 49 * 2, 49 * 2 * 4), 1)
    outputs = model(images)
    torch.testing.assert_close(outputs["boxes"], boxes.view(2, 98, 4))
    torch.testing.assert_close(outputs["objectness"], confidence[..., None])
    torch.testing.assert_close(outputs["scores"], classes.view(2, 49, CLASSES).repeat_interleave(2, 1))


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_one_is_built_again(name: str, tmp_path: Path) -> None:
    model, images = detector(name, "mobilenet_v2"), torch.randn(1, 3, SIDE, SIDE)
    save_model(tmp_path / "saved", model, describe(model))
    again, metadata = load_model(tmp_path / "saved")
    assert metadata.backbone is not None and metadata.backbone.architecture == "mobilenet_v2"
    with torch.no_grad():
        assert torch.equal(outputs_of(again, images), outputs_of(model, images))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_parameter(name: str) -> None:
    model = detector(name).train()
    raw = outputs_of(model, torch.randn(2, 3, SIDE, SIDE))
    (raw * torch.randn_like(raw)).sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not bool(p.grad.any())] == []


def test_boxes_begin_without_an_object() -> None:
    for name in ("yolo_v3", "yolo_v4"):
        model = detector(name)
        with torch.no_grad():
            objectness = model(torch.zeros(1, 3, SIDE, SIDE))["objectness"].sigmoid()
        assert 0.001 < float(objectness.median()) < 0.1


def test_the_classifiers_weights_are_its_own() -> None:
    model = create_model("yolo_v2", CLASSES, backbone="efficientnet_lite0:default")
    lite0 = create_model("efficientnet_lite0", weights="default")
    for name, tensor in model.backbone.state_dict().items():
        assert torch.equal(tensor, lite0.backbone.state_dict()[name]), name


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ModelError, match="stride 8, 16 and 32"):
        create_model("yolo_v2", backbone="lenet5")
    with pytest.raises(ModelError, match="yolo_v3_tiny does not accept a backbone: it has its own"):
        create_model("yolo_v3_tiny", backbone="resnet18")
    with pytest.raises(ValueError, match="not a multiple of the stride 32"):
        create_model("yolo_v3", backbone="resnet18", image_size=100)
