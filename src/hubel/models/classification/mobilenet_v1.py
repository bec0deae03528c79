"""MobileNet (Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam 2017, "MobileNets: Efficient
Convolutional Neural Networks for Mobile Vision Applications", arXiv 1704.04861).

The paper's table 1, for 224 × 224 input. A depthwise separable convolution filters each channel by a 3×3 and mixes
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
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU, ReLU6
from hubel.layers.mbconv import make_divisible
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.classification.mobilenet_v2 import initialize_by_fan_out
from hubel.models.config_schema import Factor

_STEM_CHANNELS = 32
_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))  # channels, units, stride
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu6": ReLU6, "relu": ReLU}


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


def build(config: MobileNetV1Config, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A MobileNet for any image size: ``image_size`` changes no shape."""
    norm = partial(nn.BatchNorm2d, eps=config.norm_eps)
    conv = partial(ConvNormActivation, same=config.same, norm=norm, activation=_ACTIVATIONS[config.activation])
    channels = make_divisible(_STEM_CHANNELS, config.width)
    backbone = nn.Sequential(OrderedDict(stem=conv(in_channels, channels, 3, stride=2)))
    feature_info = {}
    for number, (full_width, units, stride) in enumerate(_STAGES, start=1):
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
    initialize_by_fan_out(model)
    return model


_TABLE = "Howard et al. 2017, arXiv 1704.04861, table 1"

ARCHITECTURES = (Architecture("mobilenet_v1", build, MobileNetV1Config(), 28, _TABLE),)
