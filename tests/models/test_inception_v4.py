"""Inception-v4 and Inception-ResNet-v2 against timm's and Keras's on the same weights, and the paper's figures."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from test_inception_v3 import longest_path, sides, with_weights

from hubel.errors import ModelError
from hubel.models import architecture, create_model
from hubel.weights.key_mapping import rename
from keras_networks import keras_application, keras_file, keras_logits
from published_figures import PUBLISHED
from reference_networks import largest_difference, with_live_statistics

NAMES = ("inception_v4", "inception_resnet_v2", "inception_resnet_v2_paper")


@pytest.mark.parametrize("name", ["inception_v4", pytest.param("inception_resnet_v2", marks=pytest.mark.slow)])
def test_scores_and_pyramid_equal_timms(name: str) -> None:
    theirs = with_live_statistics(timm.create_model(name), size=75)
    ours = with_weights(name, theirs.state_dict())
    images = torch.randn(2, 3, 75, 110)
    with torch.no_grad():
        expected, maps = theirs(images), ours.features(images)
        assert expected.std() > 0.05
        assert largest_difference(ours(images), expected) < 1e-4
        expected_maps = dict(zip((2, 4, 8, 16, 32), theirs.forward_intermediates(images)[1], strict=True))
    if name == "inception_v4":  # timm takes the first map of stride 4, ours is the last
        assert expected_maps.pop(4).shape[1] == 160 and maps.pop(4).shape[1] == 192
    for stride, expected in expected_maps.items():
        assert largest_difference(maps[stride], expected) < 1e-4


@pytest.mark.slow
def test_scores_equal_kerass(tmp_path: Path) -> None:
    theirs = keras_application("InceptionResNetV2", 80)
    ours = create_model("inception_resnet_v2", weights=keras_file(theirs, tmp_path)).eval()
    images = torch.randn(2, 3, 80, 80)
    expected = keras_logits(theirs, images)
    size = expected.abs().max().item()  # without scales, Keras's normalizations let logits grow to hundreds
    with torch.no_grad():
        assert largest_difference(ours(images), expected) < 1e-4 * size


def test_sizes_are_those_of_the_figures() -> None:
    for name in NAMES:
        found = sides(name)
        assert found.pop("top", 8) == 8
        assert found == {"stem": 147, "pool": 73, "stage1": 71, "stage2": 35, "stage3": 17, "stage4": 8}
    with torch.device("meta"):
        channels = {name: tuple(create_model(name).feature_channels.values()) for name in NAMES}
    assert channels["inception_v4"] == (64, 192, 384, 1024, 1536)  # figures 3, 7 and 8
    assert channels["inception_resnet_v2_paper"] == (64, 192, 384, 1152, 2144)  # figures 3, 7 and 18


def convolutions(in_channels: int, *steps: tuple[int, int]) -> int:
    """Parameters of convolutions in a row, given as (kernel's area, channels), each with a batch normalization."""
    total = 0
    for area, channels in steps:
        total += (in_channels * area + 2) * channels
        in_channels = channels
    return total


def test_parameters_of_the_papers_inception_resnet() -> None:
    stem = convolutions(3, (9, 32), (9, 32), (9, 64)) + convolutions(64, (9, 96))
    stem += convolutions(160, (1, 64), (9, 96)) + convolutions(160, (1, 64), (7, 64), (7, 64), (9, 96))
    stem += convolutions(192, (9, 192))
    a = convolutions(384, (1, 32)) + convolutions(384, (1, 32), (9, 32)) + convolutions(384, (1, 32), (9, 48), (9, 64))
    a += (32 + 32 + 64 + 1) * 384
    reduction_a = convolutions(384, (9, 384)) + convolutions(384, (1, 256), (9, 256), (9, 384))
    b = convolutions(1152, (1, 192)) + convolutions(1152, (1, 128), (7, 160), (7, 192)) + (192 + 192 + 1) * 1152
    reduction_b = convolutions(1152, (1, 256), (9, 384)) + convolutions(1152, (1, 256), (9, 288))
    reduction_b += convolutions(1152, (1, 256), (9, 288), (9, 320))
    c = convolutions(2144, (1, 192)) + convolutions(2144, (1, 192), (3, 224), (3, 256)) + (192 + 256 + 1) * 2144
    total = stem + 5 * a + reduction_a + 10 * b + reduction_b + 5 * c + (2144 + 1) * 1000
    assert total == PUBLISHED["inception_resnet_v2_paper"].parameters


def test_depth_and_scales() -> None:
    for name in NAMES:
        with torch.device("meta"):
            model = create_model(name)
        assert longest_path(model) == architecture(name).depth
    assert [unit.scale for unit in model.backbone.stage3.units] == [0.1] * 10
    with pytest.raises(ModelError, match="edition='v1'"):
        create_model("inception_resnet_v2", edition="v1")


def test_weights_start_as_hes() -> None:
    torch.manual_seed(0)
    model = create_model("inception_v4")
    for part, fan_in in (("stage1.branch0.1", 64 * 9), ("stage3.units.3.branch2.1", 192 * 7)):
        weight = model.get_submodule(f"backbone.{part}.conv").weight
        assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    assert model.head.classifier.weight.abs().max().item() == pytest.approx((6 / (1536 + 1000)) ** 0.5, rel=1e-3)


def test_weights_of_one_are_refused_for_another() -> None:
    theirs = {"features.21.branch2_3b.conv.weight": torch.empty(1)}
    with pytest.raises(Exception, match="contains weights of timm's Inception-v4, not of inception_v3"):
        rename(theirs, "inception_v3")
