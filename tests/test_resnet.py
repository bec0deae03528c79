"""The ResNets against torchvision's and timm's on the same weights, and against the paper's table 1."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from torch import nn

from hubel.errors import ModelError
from hubel.models import architecture, create_model
from hubel.weights.renaming import rename
from reference_networks import assert_same_pyramid, largest_difference, with_live_statistics

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


@pytest.mark.parametrize("name", NAMES)
def test_scores_equal_torchvisions(name: str) -> None:
    theirs = with_live_statistics(torchvision.models.get_model(name, weights=None))
    ours = create_model(name).eval()
    ours.load_state_dict(rename(theirs.state_dict(), name).state)
    with torch.no_grad():
        for size in (64, 75):
            images = torch.randn(2, 3, size, size)
            expected = theirs(images)
            assert expected.std() > 0.05
            assert largest_difference(ours(images), expected) < 1e-4


def test_the_papers_stride_placement() -> None:
    theirs = with_live_statistics(torchvision.models.resnet50(weights=None))
    for module in theirs.modules():
        if isinstance(module, torchvision.models.resnet.Bottleneck):
            module.conv1.stride, module.conv2.stride = module.conv2.stride, (1, 1)
    ours = create_model("resnet50", stride_in="1x1").eval()
    ours.load_state_dict(rename(theirs.state_dict(), "resnet50").state)
    default = create_model("resnet50").eval()
    default.load_state_dict(ours.state_dict())
    images = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert largest_difference(ours(images), theirs(images)) < 1e-4
        assert largest_difference(default(images), theirs(images)) > 1e-2
    with pytest.raises(ModelError, match="stride_in='5x5'"):
        create_model("resnet50", stride_in="5x5")


def test_pyramid_equals_timms() -> None:
    theirs = timm.create_model("resnet50", features_only=True)
    with_live_statistics(theirs)
    ours = create_model("resnet50").eval()
    ours.load_state_dict(rename(theirs.state_dict(), "resnet50").state, strict=False)  # timm's has no classifier
    images = torch.randn(1, 3, 65, 96)
    assert_same_pyramid(ours, theirs, images)


def test_output_sizes_are_those_of_table_1() -> None:
    model = create_model("resnet18").eval()
    signal = torch.zeros(1, 3, 224, 224)
    sides = {}
    with torch.no_grad():
        for name, part in model.backbone.named_children():
            signal = part(signal)
            sides[name] = signal.shape[2]
    assert sides == {"stem": 112, "pool": 56, "stage1": 56, "stage2": 28, "stage3": 14, "stage4": 7}


@pytest.mark.parametrize("name", NAMES)
def test_depth_is_the_number_of_layers_with_weights(name: str) -> None:
    model = create_model(name)
    on_the_path = [
        part
        for part, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and ".shortcut." not in part
    ]
    assert len(on_the_path) == architecture(name).depth == int(name.removeprefix("resnet"))


def test_weights_start_as_hes() -> None:
    model = create_model("resnet50")
    for part, fan_out in (("stem", 64 * 49), ("stage3.2.conv2", 256 * 9), ("stage4.0.conv3", 2048)):
        weight = model.get_submodule(f"backbone.{part}.conv").weight
        assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
