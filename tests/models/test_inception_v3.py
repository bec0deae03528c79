"""Inception-v3 against torchvision's, timm's and Keras's on the same weights, and against the paper's sizes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from scipy.stats import truncnorm
from torch import Tensor, nn

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras

from hubel.inference.fusion import fuse
from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.inception import Concat
from hubel.models import architecture, create_model
from hubel.models.base import Classifier
from hubel.models.factory import build
from hubel.weights.key_mapping import rename
from keras_networks import keras_application, keras_file, keras_logits
from reference_networks import assert_same_pyramid, largest_difference, with_live_statistics


def with_weights(name: str, state: Mapping[str, Tensor], **options: object) -> Classifier:
    """Ours with another library's weights and the settings that these need, in evaluation mode."""
    renamed = rename(state, name)
    ours = build(architecture(name), 1000, 3, 299, {**renamed.settings, **options}, for_loading=True)
    ours.load_state_dict(renamed.state)
    return ours.eval()


def sides(name: str, size: int = 299) -> dict[str, int]:
    """Side of the maps that each part of the backbone gives, without computing them."""
    with torch.device("meta"):
        signal, found = torch.empty(1, 3, size, size), {}
        for part, module in create_model(name).backbone.named_children():
            signal = module(signal)
            found[part] = signal.shape[2]
    return found


def longest_path(module: nn.Module) -> int:
    """Layers with weights, one after the other."""
    if isinstance(module, nn.Conv2d | nn.Linear):
        return 1
    below = [longest_path(child) for child in module.children()]
    return max(below) if isinstance(module, Concat) else sum(below)


def test_scores_equal_torchvisions_auxiliary_ones_too() -> None:
    theirs = torchvision.models.inception_v3(weights=None, init_weights=False, transform_input=False)
    with_live_statistics(theirs, size=299)
    ours = with_weights("inception_v3", theirs.state_dict())
    with torch.no_grad():
        images = torch.randn(2, 3, 75, 130)
        expected = theirs(images)
        assert expected.std() > 0.05
        assert largest_difference(ours(images), expected) < 1e-4
        assert largest_difference(fuse(ours, torch.device("cpu"), torch.float32)(images), expected) < 1e-4
        images = torch.randn(1, 3, 299, 299)
        theirs.training = True  # of the whole, not of its layers: that is when the auxiliary scores are given
        expected, expected_auxiliary = theirs(images)
        scores, auxiliary = ours.training_outputs(images).values()
    assert expected_auxiliary.std() > 0.05
    assert largest_difference(scores, expected) < 1e-4
    assert largest_difference(auxiliary, expected_auxiliary) < 1e-4


def test_pyramid_equals_timms() -> None:
    theirs = with_live_statistics(timm.create_model("inception_v3"), size=75)
    ours = with_weights("inception_v3", theirs.state_dict(), auxiliary=False)
    features = timm.create_model("inception_v3", features_only=True).eval()
    features.load_state_dict(theirs.state_dict(), strict=False)  # it has no classifier
    images = torch.randn(1, 3, 97, 80)
    assert_same_pyramid(ours, features, images)
    with torch.no_grad():
        assert largest_difference(ours(images), theirs(images)) < 1e-4


def test_scores_equal_kerass(tmp_path: Path) -> None:
    theirs = keras_application("InceptionV3", 80)
    ours = create_model("inception_v3", weights=keras_file(theirs, tmp_path)).eval()
    images = torch.randn(2, 3, 80, 80)
    expected = keras_logits(theirs, images)
    with torch.no_grad():
        scores = ours(images)
        for pool in ours.modules():
            if isinstance(pool, nn.AvgPool2d):
                pool.count_include_pad = True  # torchvision's way at the border would show
        other_scores = ours(images)
    size = expected.abs().max().item()  # without scales, Keras's normalizations let logits grow to hundreds
    assert largest_difference(scores, expected) < 1e-4 * size
    assert largest_difference(other_scores, expected) > 1e-2 * size


def test_sizes_and_depth() -> None:
    assert sides("inception_v3") == {"stem": 147, "pool": 73, "stage1": 71, "stage2": 35, "stage3": 17, "stage4": 8}
    model = create_model("inception_v3", auxiliary=False)
    assert longest_path(model) == architecture("inception_v3").depth
    assert len(model.auxiliary) == 0


def test_weights_start_as_in_the_authors_code() -> None:
    torch.manual_seed(0)
    model = create_model("inception_v3")
    # The classifier has as many parameters as torchvision says: 27,161,264 with it, 23,834,568 without.
    assert sum(p.numel() for p in model.parameters()) == 27_161_264
    assert model.auxiliary_weight == 0.4
    for part, std in (
        ("backbone.stage1.1.conv", 0.1),
        ("backbone.stage4.units.1.branch2.2.branch0.conv", 0.1),
        ("head.classifier", 0.01),
        ("auxiliary.stage3.reduce.conv", 0.1),
        ("auxiliary.stage3.conv.conv", 0.01),
        ("auxiliary.stage3.classifier", 0.001),
    ):
        weight = model.get_submodule(part).weight
        assert weight.std().item() == pytest.approx(std * truncnorm(-2, 2).std(), rel=0.02)
        assert 1.95 * std < weight.abs().max().item() <= 2.0001 * std


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [(1, 7), (7, 1), (3, 4)])
def test_kernels_with_two_sides_pad_as_kerass(kernel: tuple[int, int], stride: int) -> None:
    theirs = keras.layers.Conv2D(6, kernel, stride, padding="same", bias_initializer="normal")
    images = torch.randn(2, 4, 12, 15)
    expected = theirs(images.permute(0, 2, 3, 1)).detach().permute(0, 3, 1, 2)
    ours = ConvNormActivation(4, 6, kernel, stride, same=True, norm=None, activation=None)
    ours.conv.weight.data = theirs.kernel.value.detach().permute(3, 2, 0, 1)
    ours.conv.bias.data = theirs.bias.value.detach()
    with torch.no_grad():
        assert largest_difference(ours(images), expected) < 1e-5
