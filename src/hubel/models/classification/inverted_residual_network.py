"""MobileNet-v2, EfficientNet and EfficientNet-Lite: a stem, seven stages of inverted residual units, a wide 1×1
convolution on top, and a dense layer over the means."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import nn

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.init import initialize
from hubel.layers.mbconv import InvertedResidual, make_divisible
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import ClassificationHead, Classifier

# The last stage of each stride; the stages count from 1.
_PYRAMID = {2: 1, 4: 2, 8: 3, 16: 5, 32: 7}


@dataclass(frozen=True)
class Stage:
    """A row of the papers' tables.

    Attributes:
        expansion: channels within a unit, as a multiple of those of its input.
        channels: of the output.
        units: their number.
        stride: of the first unit.
        kernel: size of the depthwise kernels.
    """

    expansion: int
    channels: int
    units: int
    stride: int
    kernel: int = 3


def build_mbconv_backbone(
    stages: Sequence[Stage],
    stem_channels: int,
    top_channels: int,
    conv: Callable[..., ConvNormActivation],
    num_classes: int,
    in_channels: int,
    dropout: float,
    squeeze: Callable[[int, int], nn.Module] | None = None,
    stochastic_depth: float = 0.0,
) -> Classifier:
    """Build the network of a table.

    Args:
        stages: seven, with total strides of 2, 4, 8, 16, 16, 32, 32.
        stem_channels: of the first convolution, 3×3 with stride 2.
        top_channels: of the last convolution, 1×1.
        conv: builds all convolutions.
        num_classes: outputs of the dense layer.
        in_channels: of the images.
        dropout: fraction of features dropped before the dense layer.
        squeeze: builds the squeeze-and-excitation of a unit, from the numbers of its filtered and its input maps.
        stochastic_depth: unit ``b`` of ``B`` is skipped for this fraction of the images times ``b / B``.
    """
    backbone = nn.Sequential()
    backbone.add_module("stem", conv(in_channels, stem_channels, 3, stride=2))
    channels, unit_number, all_units = stem_channels, 0, sum(stage.units for stage in stages)
    feature_info: dict[int, tuple[str, int]] = {}
    for number, stage in enumerate(stages, start=1):
        part = nn.Sequential()
        for index in range(stage.units):
            wide = channels * stage.expansion
            unit = InvertedResidual(
                channels,
                wide,
                stage.channels,
                stage.kernel,
                stage.stride if index == 0 else 1,
                conv,
                None if squeeze is None else squeeze(wide, channels),
                stochastic_depth * unit_number / all_units,
            )
            part.append(unit)
            channels, unit_number = stage.channels, unit_number + 1
        backbone.add_module(f"stage{number}", part)
        feature_info |= {stride: (f"stage{number}", channels) for stride, last in _PYRAMID.items() if last == number}
    backbone.add_module("top", conv(channels, top_channels, 1))
    return Classifier(backbone, ClassificationHead(top_channels, num_classes, dropout), feature_info)


def round_repeats(units: int, depth: float) -> int:
    """``units * depth``, rounded up."""
    return math.ceil(units * depth)


def scaled(stages: Sequence[Stage], width: float, depth: float) -> list[Stage]:
    """The stages with their channels and units multiplied."""
    return [
        replace(stage, channels=make_divisible(stage.channels, width), units=round_repeats(stage.units, depth))
        for stage in stages
    ]


def se_channels(wide: int, narrow: int) -> nn.Module:
    """Squeeze and excitation with SENet's reduction (Hu et al. 2018, arXiv 1709.01507)."""
    return SqueezeExcitation(wide)


def depth(stages: Sequence[Stage]) -> int:
    """Convolutions and the dense layer; those of squeeze-and-excitation are not counted, as in SE-ResNet-50."""
    return sum(stage.units * (2 if stage.expansion == 1 else 3) for stage in stages) + 3


def initialize_convolutions(model: nn.Module) -> None:
    """Normal by the fan-out of each group (He et al. 2015, arXiv 1502.01852, equation 14); biases zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def initialize_dense(model: nn.Module) -> None:
    """Normal with standard deviation 0.01; biases zero."""
    initialize(model, dense=partial(nn.init.normal_, std=0.01))
