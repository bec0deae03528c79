"""MobileNet (Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam 2017, "MobileNets: Efficient
Convolutional Neural Networks for Mobile Vision Applications", arXiv 1704.04861).

Table 1, for 224 × 224 input. A depthwise separable convolution filters each channel by a 3×3 and mixes
them by a 1×1, each with batch normalization and activation (figure 3); the first of a stage takes the stride:

====== ====================== ======== ===== ====== =======
part   operator               channels units stride output
====== ====================== ======== ===== ====== =======
stem   3×3                    32       1     2      112×112
stage1 depthwise separable    64       1     1      112×112
stage2 depthwise separable    128      2     2      56×56
stage3 depthwise separable    256      2     2      28×28
stage4 depthwise separable    512      6     2      14×14
stage5 depthwise separable    1024     2     2      7×7
head   average pool, dense    1000     1     –      1×1
====== ====================== ======== ===== ====== =======

4,231,976 parameters at width 1. The width multiplier α (section 3.3) is ``width``, rounded so that channels come in
multiples of 8, as they do for the paper's 1, 0.75, 0.5 and 0.25; the resolution multiplier ρ (section 3.4) is the
size of the images.

Error in the paper: the last depthwise convolution of table 1 has "s2", its input and output both 7×7; the stride is 1.

Deviations: ReLU6, which the authors' code and all published weights have, in place of ReLU
(``activation="relu"`` gives the paper's). Not specified in the paper: padding (``same=True`` pads as the authors'
code and Keras do), the normalization's epsilon, initialization (He's by the fan-out; of the dense layer normal with
deviation 0.01).

MobileNet-v2 (Sandler, Howard, Zhu, Zhmoginov, Chen 2018, "MobileNetV2: Inverted Residuals and Linear
Bottlenecks", arXiv 1801.04381).

The paper's table 2, for 224 × 224 input; t is the expansion of the units, and the first unit of a stage takes the
stride:

====== =========== = ==== ===== ====== =======
part   operator    t out  units stride output
====== =========== = ==== ===== ====== =======
stem   3×3         – 32   1     2      112×112
stage1 bottleneck  1 16   1     1      112×112
stage2 bottleneck  6 24   2     2      56×56
stage3 bottleneck  6 32   3     2      28×28
stage4 bottleneck  6 64   4     2      14×14
stage5 bottleneck  6 96   3     1      14×14
stage6 bottleneck  6 160  3     2      7×7
stage7 bottleneck  6 320  1     1      7×7
top    1×1         – 1280 1     1      7×7
head   pool, dense – 1000 1     –      1×1
====== =========== = ==== ===== ====== =======

3,504,872 parameters at width 1.

A width multiplier narrows or widens all layers, but the top only widens (section 4). The paper writes the last
layer as a 1×1 convolution of the means, which is the dense layer here.

Error in the paper: its table 4 prints 6.9 million parameters for width 1.4, whose layers have 6.1.

Not specified in the paper: padding (``same=True`` pads as the authors' code and Keras do, the default as torchvision
and timm), the normalization's epsilon (Keras's weights need 1e-3), dropout (0.2, the authors' code's),
initialization (He's by the fan-out; of the dense layer normal with standard deviation 0.01). ``depth`` in the registry
counts convolutions and the dense layer; the paper counts none.

:func:`build_mbconv_network` builds the EfficientNets, too.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU, ReLU6
from hubel.layers.init import initialize
from hubel.layers.mbconv import InvertedResidual, make_divisible
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.config_schema import Factor, ShareBelowOne

_SEPARABLE_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))  # channels, units, stride
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu6": ReLU6, "relu": ReLU}


narrow_normal = partial(nn.init.normal_, std=0.01)


def initialize_by_fan_out(model: nn.Module, dense: Callable[[Tensor], object]) -> None:
    """Convolutions normal by the fan-out of each group (He et al. 2015, arXiv 1502.01852, equation 14); biases zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    initialize(model, dense=dense)


@dataclass(frozen=True)
class MobileNetV1Config:
    """Options of the family.

    Attributes:
        width: factor on the channels, α in the paper.
        activation: ``"relu6"`` (authors' code) or ``"relu"`` (paper).
        se: squeeze and excitation at the end of each unit, which gives the 4.7 million parameters of Hu et al. 2018,
            arXiv 1709.01507, table 3.
    """

    width: Factor = 1.0
    activation: Literal["relu6", "relu"] = "relu6"
    norm_eps: Factor = 1e-5
    same: bool = False
    se: bool = False
    depth: Factor = 1.0


def build_v1(config: MobileNetV1Config, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A MobileNet for any image size: ``image_size`` changes no shape."""
    norm = partial(nn.BatchNorm2d, eps=config.norm_eps)
    conv = partial(ConvNormActivation, same=config.same, norm=norm, activation=_ACTIVATIONS[config.activation])
    channels = make_divisible(32, config.width)
    backbone = nn.Sequential(OrderedDict(stem=conv(in_channels, channels, 3, stride=2)))
    feature_info = {}
    for number, (full_width, units, stride) in enumerate(_SEPARABLE_STAGES, start=1):
        out_channels = make_divisible(full_width, config.width)
        part = nn.Sequential()
        for index in range(math.ceil(units * config.depth)):
            depthwise = conv(channels, channels, 3, stride if index == 0 else 1, groups=channels)
            pointwise = conv(channels, out_channels, 1)
            unit = nn.Sequential(OrderedDict(depthwise=depthwise, pointwise=pointwise))
            if config.se:
                unit.add_module("se", SqueezeExcitation(out_channels))
            part.append(unit)
            channels = out_channels
        backbone.add_module(f"stage{number}", part)
        feature_info[2**number] = (f"stage{number}", channels)
    model = Classifier(backbone, ClassificationHead(channels, num_classes), feature_info)
    initialize_by_fan_out(model, narrow_normal)
    return model


@dataclass(frozen=True)
class Stage:
    """A row of the table; its units expand the channels of their input, and the first takes the stride."""

    expansion: int
    channels: int
    units: int
    stride: int
    kernel: int = 3


_MBCONV_STAGES = (
    Stage(expansion=1, channels=16, units=1, stride=1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


@dataclass(frozen=True)
class MobileNetV2Config:
    """Options of the family.

    Attributes:
        width: factor on the channels; the paper has 0.35 to 1.4.
        se: squeeze and excitation of the filtered maps within each unit, where MobileNet-v3 has it (figure 4 there),
            with the reduction of Hu et al. 2018, arXiv 1709.01507.
    """

    width: Factor = 1.0
    dropout: ShareBelowOne = 0.2
    norm_eps: Factor = 1e-5
    same: bool = False
    se: bool = False
    depth: Factor = 1.0


# The last stage of each stride; the stages count from 1.
_PYRAMID = {2: 1, 4: 2, 8: 3, 16: 5, 32: 7}


def build_mbconv_network(
    stages: Sequence[Stage],
    ends: tuple[int, int],
    conv: Callable[..., ConvNormActivation],
    num_classes: int,
    in_channels: int,
    dropout: float,
    dense: Callable[[Tensor], object],
    squeeze: Callable[[int, int], nn.Module] | None = None,
    stochastic_depth: float = 0.0,
) -> Classifier:
    """A stem 3×3 with stride 2, seven stages of inverted residual units, a 1×1 on top, a dense layer over the means.

    Args:
        stages: seven, with total strides of 2, 4, 8, 16, 16, 32, 32.
        ends: channels of the first and the last convolution.
        conv: builds all convolutions.
        dense: draws the weights of the dense layer.
        squeeze: builds the squeeze-and-excitation of a unit, from the numbers of its filtered and its input maps.
        stochastic_depth: unit ``b`` of ``B`` is skipped for this fraction of the images times ``b / B``.
    """
    channels, top_channels = ends
    backbone = nn.Sequential(OrderedDict(stem=conv(in_channels, channels, 3, stride=2)))
    unit_number, all_units = 0, sum(stage.units for stage in stages)
    feature_info: dict[int, tuple[str, int]] = {}
    for number, stage in enumerate(stages, start=1):
        part = nn.Sequential()
        for index in range(stage.units):
            wide = channels * stage.expansion
            stride = stage.stride if index == 0 else 1
            excitation = None if squeeze is None else squeeze(wide, channels)
            drop = stochastic_depth * unit_number / all_units
            part.append(InvertedResidual(channels, wide, stage.channels, stage.kernel, stride, conv, excitation, drop))
            channels, unit_number = stage.channels, unit_number + 1
        backbone.add_module(f"stage{number}", part)
        feature_info |= {stride: (f"stage{number}", channels) for stride, last in _PYRAMID.items() if last == number}
    backbone.add_module("top", conv(channels, top_channels, 1))
    model = Classifier(backbone, ClassificationHead(top_channels, num_classes, dropout), feature_info)
    initialize_by_fan_out(model, dense)
    return model


def scaled(stages: Sequence[Stage], width: float, depth: float) -> list[Stage]:
    """The stages with their channels multiplied by ``width``, their units by ``depth`` and rounded up."""
    return [
        replace(stage, channels=make_divisible(stage.channels, width), units=math.ceil(stage.units * depth))
        for stage in stages
    ]


def squeeze_a_sixteenth(wide: int, narrow: int) -> nn.Module:
    """Squeeze and excitation with SENet's reduction (Hu et al. 2018, arXiv 1709.01507)."""
    return SqueezeExcitation(wide)


def count_layers(stages: Sequence[Stage]) -> int:
    """Convolutions and the dense layer; those of squeeze-and-excitation are not counted, as in SE-ResNet-50."""
    return sum(stage.units * (2 if stage.expansion == 1 else 3) for stage in stages) + 3


def build_v2(config: MobileNetV2Config, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A MobileNet-v2 for any image size: ``image_size`` changes no shape."""
    stages = scaled(_MBCONV_STAGES, config.width, config.depth)
    ends = (make_divisible(32, config.width), make_divisible(1280, max(1.0, config.width)))
    norm = partial(nn.BatchNorm2d, eps=config.norm_eps)
    conv = partial(ConvNormActivation, same=config.same, norm=norm, activation=ReLU6)
    squeeze = squeeze_a_sixteenth if config.se else None
    return build_mbconv_network(stages, ends, conv, num_classes, in_channels, config.dropout, narrow_normal, squeeze)


_HOWARD, _SANDLER = "Howard et al. 2017, arXiv 1704.04861, table 1", "Sandler et al. 2018, arXiv 1801.04381, table 2"

ARCHITECTURES = (
    Architecture("mobilenet_v1", build_v1, MobileNetV1Config(), 28, _HOWARD),
    Architecture("mobilenet_v2", build_v2, MobileNetV2Config(), count_layers(_MBCONV_STAGES), _SANDLER),
)
