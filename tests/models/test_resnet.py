"""The ResNets and ResNeXts against torchvision's, timm's and Keras's on the same weights, and the paper's table 1."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

import keras_networks
from hubel.errors import ModelError, WeightsError
from hubel.models import architecture, create_model
from hubel.weights import read_state_dict
from hubel.weights.key_mapping import rename
from reference_networks import assert_same_pyramid, largest_difference, with_live_statistics

NAMES = (
    "resnet18",
    "resnet34",
    "resnet50",
    pytest.param("resnet101", marks=pytest.mark.slow),
    pytest.param("resnet152", marks=pytest.mark.slow),
    "resnext50_32x4d",
    pytest.param("resnext101_32x8d", marks=pytest.mark.slow),
)


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


@pytest.mark.parametrize(("theirs_name", "name"), [("resnet18d", "resnet18"), ("resnet50d", "resnet50")])
def test_resnet_d_gives_timms_scores(theirs_name: str, name: str, tmp_path: Path) -> None:
    theirs = with_live_statistics(timm.create_model(theirs_name))
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    ours = create_model(name, weights=tmp_path / "net.pth").eval()
    assert (ours.origin.options["stem"], ours.origin.options["avg_down"]) == ("deep", True)
    with torch.no_grad():
        for size in (64, 75):
            images = torch.randn(2, 3, size, size)
            expected = theirs(images)
            assert expected.std() > 0.05
            assert largest_difference(ours(images), expected) < 1e-4
    if name == "resnet50":  # the number in the table of models/classification/resnet.py
        assert sum(parameter.numel() for parameter in ours.parameters()) == 25_576_264


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ModelError, match="stride_in='5x5'"):
        create_model("resnet50", stride_in="5x5")
    with pytest.raises(ModelError, match="stem='9x9'"):
        create_model("resnet50", stem="9x9")
    for option in ({"groups": 32}, {"base_width": 4}, {"reduce_first": True}):
        with pytest.raises(ModelError, match="has basic ones"):
            create_model("resnet34", **option)


def test_all_kinds_of_keras_files_give_kerass_scores(tmp_path: Path) -> None:
    theirs = keras_networks.keras_application("ResNet50")
    first = keras_networks.keras_file(theirs, tmp_path)
    ours = create_model("resnet50", weights=first).eval()
    assert dict(ours.origin.options) == {"stride_in": "1x1", "norm_eps": 1.001e-5}
    images = torch.randn(2, 3, 64, 64)
    expected = keras_networks.keras_logits(theirs, images.flip(1))  # Keras's network wants blue first
    assert expected.std() > 0.05
    with torch.no_grad():
        assert largest_difference(ours(images), expected) < 1e-4
    state = rename(read_state_dict(first), "resnet50").state
    for kind in keras_networks.KINDS[1:]:
        if kind == "_published.h5":
            theirs.layers[-1].name = "probs"  # as it was called in 2018, when the published files were made
        again = rename(read_state_dict(keras_networks.keras_file(theirs, tmp_path, kind)), "resnet50").state
        assert again.keys() == state.keys()
        assert [key for key in state if not torch.equal(again[key], state[key])] == [], kind


@pytest.mark.slow
@pytest.mark.parametrize("depth", [101, 152])
def test_scores_equal_kerass(depth: int, tmp_path: Path) -> None:
    theirs = keras_networks.keras_application(f"ResNet{depth}")
    ours = create_model(f"resnet{depth}", weights=keras_networks.keras_file(theirs, tmp_path)).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = keras_networks.keras_logits(theirs, images.flip(1))
        assert largest_difference(ours(images), expected) < 1e-4


@pytest.mark.slow
def test_keras_file_of_another_architecture_is_refused(tmp_path: Path) -> None:
    path = keras_networks.keras_file(keras_networks.keras_application("ResNet50V2", size=32), tmp_path)
    with pytest.raises(WeightsError, match="unknown format"):  # pre-activation: other networks with the same name
        create_model("resnet50", weights=path)


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
    with torch.device("meta"):  # shapes are enough
        model = create_model(name)
    on_the_path = [
        part
        for part, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and ".shortcut." not in part
    ]
    assert len(on_the_path) == architecture(name).depth == int(re.findall(r"\d+", name)[0])


def test_weights_start_as_hes() -> None:
    model = create_model("resnet50")
    for part, fan_out in (("stem", 64 * 49), ("stage3.2.conv2", 256 * 9), ("stage4.0.conv3", 2048)):
        weight = model.get_submodule(f"backbone.{part}.conv").weight
        assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)
