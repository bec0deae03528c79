"""EfficientNet (Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv
1905.11946) and EfficientNet-Lite (Google 2020).

The paper's table 1, EfficientNet-B0 for 224 × 224 input; the first unit of a stage takes the stride. MBConv is the
inverted residual unit with squeeze-and-excitation, which reduces to a quarter of the channels that come into the
unit; the digit is the expansion ratio. All activations are SiLU.

====== ============ ====== ====== ======== ===== =======
part   operator     kernel stride channels units output
====== ============ ====== ====== ======== ===== =======
stem   convolution  3      2      32       1     112×112
stage1 MBConv1      3      1      16       1     112×112
stage2 MBConv6      3      2      24       2     56×56
stage3 MBConv6      5      2      40       2     28×28
stage4 MBConv6      3      2      80       3     14×14
stage5 MBConv6      5      1      112      3     14×14
stage6 MBConv6      5      2      192      4     7×7
stage7 MBConv6      3      1      320      1     7×7
top    convolution  1      1      1280     1     7×7
head   pool, dense  –      –      1000     1     1×1
====== ============ ====== ====== ======== ===== =======

Compound scaling (section 3.3) with the factors of the authors' code: all channels are multiplied by the width, the
units of each stage by the depth.

==== ===== ===== ======= ======= ==========
name width depth input   dropout parameters
==== ===== ===== ======= ======= ==========
b0   1.0   1.0   224×224 0.2     5,288,548
b1   1.0   1.1   240×240 0.2     7,794,184
b2   1.1   1.2   260×260 0.3     9,109,994
b3   1.2   1.4   300×300 0.3     12,233,232
b4   1.4   1.8   380×380 0.4     19,341,616
b5   1.6   2.2   456×456 0.4     30,389,784
b6   1.8   2.6   528×528 0.5     43,040,704
b7   2.0   3.1   600×600 0.5     66,347,960
==== ===== ===== ======= ======= ==========

During training, unit ``b`` of ``B`` is skipped for ``0.2 b / B`` of the images (stochastic depth with survival
probability 0.8, section 5.2); batch normalization has momentum 0.01 (0.99 there).

Not specified in the paper: padding (``same=True`` pads as the authors' code and Keras do), the normalization's
epsilon (1e-3 as in the authors' code), and initialization (the authors' code's: convolutions normal by the fan-out,
the dense layer uniform by its classes). ``depth`` in the registry counts convolutions and the dense layer without
squeeze-and-excitation's; the paper counts none.

EfficientNet-Lite is the edition for phones (tensorflow/tpu, ``models/official/efficientnet/lite``, and the TensorFlow
blog of March 2020): table 1 without squeeze-and-excitation, with ReLU6 and ``SAME`` padding; stem, top and the units of
the first and last stage are not scaled.

===== ===== ===== ======= ======= ==========
name  width depth input   dropout parameters
===== ===== ===== ======= ======= ==========
lite0 1.0   1.0   224×224 0.2     4,652,008
lite1 1.0   1.1   240×240 0.2     5,416,680
lite2 1.1   1.2   260×260 0.3     6,092,072
lite3 1.2   1.4   280×280 0.3     8,197,096
lite4 1.4   1.8   300×300 0.3     13,006,568
===== ===== ===== ======= ======= ==========

Deviation: no stochastic depth by default; ``stochastic_depth=0.2`` is the authors' code's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU6
from hubel.layers.mbconv import make_divisible
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import Architecture, Classifier
from hubel.models.classification.mobilenet import (
    Stage,
    build_mbconv_network,
    count_layers,
    scaled,
    squeeze_a_sixteenth,
)
from hubel.models.config_schema import Factor, ShareBelowOne

_ENDS = (32, 1280)  # channels of stem and top
_STAGES = (
    Stage(expansion=1, channels=16, units=1, stride=1, kernel=3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)
_SiLU = partial(nn.SiLU, inplace=True)
_BatchNorm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


@dataclass(frozen=True)
class EfficientNetConfig:
    """Options of the family; ``stochastic_depth`` is the fraction of images that skip the last units in training."""

    width: Factor
    depth: Factor
    dropout: ShareBelowOne
    stochastic_depth: ShareBelowOne = 0.2
    norm_eps: Factor = 1e-3
    same: bool = False


def _uniform_by_classes(weight: Tensor) -> None:
    """Initializes the dense layer as the authors' code does."""
    bound = 1 / math.sqrt(len(weight))
    nn.init.uniform_(weight, -bound, bound)


def _squeeze(wide: int, narrow: int) -> nn.Module:
    return SqueezeExcitation(wide, max(1, narrow // 4), activation=_SiLU)


def build(config: EfficientNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """An EfficientNet for any image size: ``image_size`` changes no shape."""
    stages = scaled(_STAGES, config.width, config.depth)
    ends = (make_divisible(_ENDS[0], config.width), make_divisible(_ENDS[1], config.width))
    norm = partial(_BatchNorm, eps=config.norm_eps)
    conv = partial(ConvNormActivation, same=config.same, norm=norm, activation=_SiLU)
    draw, drop = _uniform_by_classes, config.stochastic_depth
    return build_mbconv_network(stages, ends, conv, num_classes, in_channels, config.dropout, draw, _squeeze, drop)


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """Options of the family.

    Attributes:
        width: factor on the channels of the stages.
        depth: factor on the units of the stages except the first and last.
        se: squeeze and excitation of the filtered maps within each unit, where EfficientNet has it, with the reduction
            of Hu et al. 2018, arXiv 1709.01507.
    """

    width: Factor
    depth: Factor
    dropout: ShareBelowOne
    stochastic_depth: ShareBelowOne = 0.0
    se: bool = False


def _stages(width: float, depth: float) -> list[Stage]:
    """All channels scaled, the units of the first and last stage not."""
    first, *others, last = _STAGES
    return [*scaled([first], width, 1), *scaled(others, width, depth), *scaled([last], width, 1)]


def build_lite(config: EfficientNetLiteConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """An EfficientNet-Lite for any image size: ``image_size`` changes no shape."""
    stages = _stages(config.width, config.depth)
    conv = partial(ConvNormActivation, same=True, norm=_BatchNorm, activation=ReLU6)
    squeeze = squeeze_a_sixteenth if config.se else None
    draw, drop = _uniform_by_classes, config.stochastic_depth
    return build_mbconv_network(stages, _ENDS, conv, num_classes, in_channels, config.dropout, draw, squeeze, drop)


def _efficientnet(number: int, width: float, depth: float, size: int, dropout: float) -> Architecture:
    config, layers = EfficientNetConfig(width, depth, dropout), count_layers(scaled(_STAGES, width, depth))
    source = "Tan and Le 2019, arXiv 1905.11946, table 1 and section 3.3"
    return Architecture(f"efficientnet_b{number}", build, config, layers, source, input=(3, size, size))


def _lite(number: int, width: float, depth: float, size: int, dropout: float) -> Architecture:
    config, layers = EfficientNetLiteConfig(width, depth, dropout), count_layers(_stages(width, depth))
    source = "tensorflow/tpu, models/official/efficientnet/lite; Tan and Le 2019, arXiv 1905.11946"
    return Architecture(f"efficientnet_lite{number}", build_lite, config, layers, source, input=(3, size, size))


ARCHITECTURES = (
    _efficientnet(0, 1.0, 1.0, 224, 0.2),
    _efficientnet(1, 1.0, 1.1, 240, 0.2),
    _efficientnet(2, 1.1, 1.2, 260, 0.3),
    _efficientnet(3, 1.2, 1.4, 300, 0.3),
    _efficientnet(4, 1.4, 1.8, 380, 0.4),
    _efficientnet(5, 1.6, 2.2, 456, 0.4),
    _efficientnet(6, 1.8, 2.6, 528, 0.5),
    _efficientnet(7, 2.0, 3.1, 600, 0.5),
    _lite(0, 1.0, 1.0, 224, 0.2),
    _lite(1, 1.0, 1.1, 240, 0.2),
    _lite(2, 1.1, 1.2, 260, 0.3),
    _lite(3, 1.2, 1.4, 280, 0.3),
    _lite(4, 1.4, 1.8, 300, 0.3),
)
