"""Xception against Keras's and timm's on the same weights; its layers against Keras's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor, nn

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
from test_inception_v3 import sides, with_weights

from hubel.layers.pooling import SameMaxPool2d
from hubel.layers.separable_convolution import DepthwiseConv2d, SeparableConv2d
from hubel.models import architecture, create_model
from keras_networks import keras_application, keras_file, keras_logits
from reference_networks import largest_difference, with_live_statistics


def test_scores_equal_kerass(tmp_path: Path) -> None:
    theirs = keras_application("Xception", 82)  # maps of 38, 19, 10 and 5 pixels are pooled
    path = keras_file(theirs, tmp_path)
    ours = create_model("xception", weights=path).eval()
    images = torch.randn(2, 3, 82, 82)
    expected = keras_logits(theirs, images)
    assert expected.std() > 0.05
    with torch.no_grad():
        assert largest_difference(ours(images), expected) < 1e-4
        symmetric = create_model("xception", weights=path, same=False).eval()
        assert largest_difference(symmetric(images), expected) > 1e-3


def test_scores_and_pyramid_equal_timms() -> None:
    theirs = with_live_statistics(timm.create_model("legacy_xception"))
    ours = with_weights("xception", theirs.state_dict())
    images = torch.randn(2, 3, 71, 98)
    with torch.no_grad():
        expected, maps = theirs(images), ours.features(images)
        assert expected.std() > 0.05
        assert largest_difference(ours(images), expected) < 1e-4
        expected_maps = theirs.forward_intermediates(images)[1]
    assert list(maps) == [2, 4, 8, 16, 32]
    for ours_map, expected in zip(maps.values(), expected_maps, strict=True):  # timm's are past the next unit's ReLU
        assert largest_difference(ours_map.relu(), expected) < 1e-4


def test_sizes_and_number_of_layers_are_those_of_figure_5() -> None:
    expected = {"stem": 147, "stage1": 74, "stage2": 37, "stage3": 19, "stage4": 10, "top": 10}
    assert sides("xception") == expected
    model = create_model("xception")
    separable = [module for module in model.modules() if isinstance(module, SeparableConv2d)]
    plain = [module for module in model.backbone.stem.modules() if isinstance(module, nn.Conv2d)]
    assert (len(separable), len(separable) + len(plain)) == (34, architecture("xception").depth)


def test_weights_start_as_kerass() -> None:
    theirs = keras.applications.Xception(weights=None, input_shape=(71, 71, 3))
    ours = create_model("xception")
    for layer, part in (
        ("block1_conv2", "backbone.stem.1.conv"),
        ("predictions", "head.classifier"),
    ):
        expected = float(keras.ops.max(keras.ops.abs(theirs.get_layer(layer).kernel)))
        assert ours.get_submodule(part).weight.abs().max().item() == pytest.approx(expected, rel=2e-3)
    layer, unit = theirs.get_layer("block7_sepconv2"), ours.backbone.stage3[3].convs[1]
    for kernel, module in ((layer.depthwise_kernel, unit.depthwise), (layer.pointwise_kernel, unit.pointwise.conv)):
        expected = float(keras.ops.max(keras.ops.abs(kernel)))
        assert module.weight.abs().max().item() == pytest.approx(expected, rel=2e-3)


def channels_first(maps: Tensor) -> Tensor:
    return maps.detach().permute(0, 3, 1, 2)


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (4, 2), ((2, 5), 1)])
def test_layers_equal_kerass(kernel: int | tuple[int, int], stride: int, padding: str) -> None:
    images = torch.randn(2, 4, 13, 16)
    last = images.permute(0, 2, 3, 1)
    arguments = {"strides": stride, "padding": padding, "depth_multiplier": 2, "bias_initializer": "normal"}
    depthwise = keras.layers.DepthwiseConv2D(kernel, **arguments)
    separable = keras.layers.SeparableConv2D(6, kernel, **arguments)
    expected, expected_separable = channels_first(depthwise(last)), channels_first(separable(last))
    options = {"stride": stride, "padding": 0, "same": padding == "same", "multiplier": 2}
    ours = DepthwiseConv2d(4, kernel, **options)
    ours_separable = SeparableConv2d(4, 6, kernel, **options)
    with torch.no_grad():
        for layer, kernels in ((ours, depthwise.kernel), (ours_separable.depthwise, separable.depthwise_kernel)):
            layer.weight.copy_(kernels.value.permute(2, 3, 0, 1).flatten(0, 1)[:, None])
        ours.bias.copy_(depthwise.bias.value)
        ours_separable.pointwise.conv.weight.copy_(separable.pointwise_kernel.value.permute(3, 2, 0, 1))
        ours_separable.pointwise.conv.bias.copy_(separable.bias.value)
        assert largest_difference(ours(images), expected) < 1e-5
        assert largest_difference(ours_separable(images), expected_separable) < 1e-5


@pytest.mark.parametrize("size", [(7, 12), (8, 9), (1, 2), (11, 10)])
@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 2), (3, 3), (5, 2), (2, 3), (4, 3)])
def test_same_max_pooling_equals_kerass(size: tuple[int, int], kernel: int, stride: int) -> None:
    maps = torch.randn(2, 3, *size) - 10  # zeros as padding would win
    theirs = keras.layers.MaxPooling2D(kernel, stride, padding="same")
    expected = channels_first(theirs(maps.permute(0, 2, 3, 1)))
    assert torch.equal(SameMaxPool2d(kernel, stride)(maps), expected)
