"""The DenseNets against torchvision's, timm's and Keras's on the same weights, and against the paper's table 1."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

from hubel.models import architecture, create_model
from hubel.models.classification.densenet import DenseBlock
from hubel.models.factory import build
from hubel.weights import read_state_dict
from hubel.weights.key_mapping import rename
from keras_networks import keras_application, keras_file, keras_logits
from published_figures import PUBLISHED
from reference_networks import assert_same_pyramid, largest_difference, with_live_statistics

NAMES = ("densenet121", "densenet169", "densenet201", "densenet264")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("densenet169", "densenet201")]
# The paper's table 1: layers in each dense block.
DEPTHS = {"121": (6, 12, 24, 16), "169": (6, 12, 32, 32), "201": (6, 12, 48, 32), "264": (6, 12, 64, 48)}


@pytest.mark.parametrize("name", ["densenet121", *SLOW])
def test_scores_equal_torchvisions(name: str) -> None:
    theirs = with_live_statistics(torchvision.models.get_model(name, weights=None))
    ours = create_model(name).eval()
    ours.load_state_dict(rename(theirs.state_dict(), name).state)
    with torch.no_grad():
        for size in (64, 75):
            images = torch.randn(2, 3, size, size)
            expected = theirs(images)
            assert expected.std() > 0.1
            assert largest_difference(ours(images), expected) < 1e-4


def test_a_file_with_the_published_spelling_of_the_keys(tmp_path: Path) -> None:
    """torchvision's files say ``norm.1``; its own code gives them today's names when it loads them."""
    theirs = with_live_statistics(torchvision.models.densenet121(weights=None))
    published = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): tensor
        for key, tensor in theirs.state_dict().items()
        if not key.endswith("num_batches_tracked")  # the files are older than these
    }
    assert "features.denseblock4.denselayer16.norm.1.running_mean" in published
    torch.save(published, tmp_path / "densenet121-a639ec97.pth")
    ours = create_model("densenet121", weights=tmp_path / "densenet121-a639ec97.pth").eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert largest_difference(ours(images), theirs(images)) < 1e-4


def test_pyramid_equals_timms() -> None:
    theirs = timm.create_model("densenet121", features_only=True)
    with_live_statistics(theirs)
    # timm's list of parts has "_" for "." and no classifier.
    state = {key.replace("features_", "features.", 1): tensor for key, tensor in theirs.state_dict().items()}
    ours = create_model("densenet121").eval()
    ours.load_state_dict(rename(state, "densenet121").state, strict=False)
    assert_same_pyramid(ours, theirs, torch.randn(1, 3, 65, 96))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["densenet121", "densenet169", "densenet201"])
def test_scores_equal_timms(name: str) -> None:
    theirs = with_live_statistics(timm.create_model(name))
    ours = create_model(name).eval()
    ours.load_state_dict(rename(theirs.state_dict(), name).state)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert largest_difference(ours(images), theirs(images)) < 1e-4


@pytest.mark.parametrize("name", ["densenet121", *SLOW])
def test_scores_equal_kerass(name: str, tmp_path: Path) -> None:
    theirs = keras_application(name.replace("densenet", "DenseNet"), size=32)
    path = keras_file(theirs, tmp_path)
    ours = create_model(name, weights=path).eval()
    assert ours.backbone.stem.norm.eps == 1.001e-5
    images = torch.randn(2, 3, 32, 32)
    expected = keras_logits(theirs, images)
    assert expected.std() > 0.1
    with torch.no_grad():
        assert largest_difference(ours(images), expected) < 1e-4 * max(1, expected.abs().max().item())
    # Keras's published files are from when it said "conv1/conv", "conv1/bn" and "fc1000".
    state = read_state_dict(path)
    older = {"conv1_conv": "conv1/conv", "conv1_bn": "conv1/bn", "predictions": "fc1000"}
    respelled = {f"{older.get(k.split('.')[0], k.split('.')[0])}.{k.split('.')[1]}": v for k, v in state.items()}
    assert rename(respelled, name).state.keys() == rename(state, name).state.keys() and respelled.keys() != state.keys()


def test_output_sizes_are_those_of_table_1() -> None:
    model = create_model("densenet121").eval()
    signal, sides = torch.zeros(1, 3, 224, 224), {}
    with torch.no_grad():
        for name, part in model.backbone.named_children():
            signal = part(signal)
            sides[name] = signal.shape[2]
    assert sides == {
        "stem": 112, "pool": 56, "stage1": 56, "transition1": 28, "stage2": 28, "transition2": 14, "stage3": 14,
        "transition3": 7, "stage4": 7, "top": 7,
    }  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_layers_are_those_of_table_1(name: str) -> None:
    with torch.device("meta"):
        model = build(architecture(name), 1000, 3, 224, {}, for_loading=True)
    number = name.removeprefix("densenet")
    blocks = [part for part in model.backbone if isinstance(part, DenseBlock)]
    assert tuple(len(list(block.children())) for block in blocks) == DEPTHS[number]
    first = blocks[3].layer1
    kernels = [tuple(module.weight.shape) for module in first.modules() if isinstance(module, nn.Conv2d)]
    assert kernels == [(128, first.before.norm.num_features, 1, 1), (32, 128, 3, 3)]
    weights = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    # The name of the largest is one off its own count.
    assert len(weights) == architecture(name).depth == {"264": 265}.get(number, int(number))


def test_parameters_of_the_largest_by_hand() -> None:
    """Nobody publishes them: summed over table 1 with 2 parameters a normalized map."""
    channels, total = 64, 3 * 64 * 49 + 2 * 64
    for number, depth in enumerate(DEPTHS["264"]):
        for _ in range(depth):
            total += 2 * channels + channels * 128 + 2 * 128 + 128 * 32 * 9
            channels += 32
        if number < 3:
            total += 2 * channels + channels * (channels // 2)
            channels //= 2
    total += 2 * channels + channels * 1000 + 1000
    assert total == PUBLISHED["densenet264"].parameters


def test_weights_start_as_the_authors() -> None:
    model = create_model("densenet121")
    for part, fan_out in (("stem.conv", 64 * 49), ("stage3.layer5.conv", 32 * 9), ("transition2.conv", 256)):
        weight = model.get_submodule(f"backbone.{part}").weight
        assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.04)
    assert not model.head.classifier.bias.any()


def test_a_dense_block_of_ones_own() -> None:
    """What comes in stays in front, and each layer sees everything before it: torchvision's block agrees."""
    theirs = torchvision.models.densenet._DenseBlock(3, 10, bn_size=2, growth_rate=6, drop_rate=0.0).eval()
    ours = DenseBlock(10, layers=3, growth=6, bottleneck=2).eval()
    assert ours.out_channels == 28
    for mine, other in zip(ours.children(), theirs.values(), strict=True):
        parts = ((mine.before.norm, other.norm1), (mine.reduce.conv, other.conv1), (mine.reduce.norm, other.norm2))
        for target, source in (*parts, (mine.conv, other.conv2)):
            target.load_state_dict(source.state_dict())
    maps = torch.randn(2, 10, 9, 7)
    with torch.no_grad():
        out = ours(maps)
        assert torch.equal(out[:, :10], maps)
        assert largest_difference(out, theirs(maps)) < 1e-5
