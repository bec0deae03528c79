"""EfficientNet (Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", arXiv
1905.11946).

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

While training, unit ``b`` of ``B`` is passed by for ``0.2 b / B`` of the images (stochastic depth with survival
probability 0.8, section 5.2); batch normalization has momentum 0.01 (0.99 there).

What the paper leaves open: padding (``same=True`` pads as the authors' code and Keras do), the normalization's
epsilon (1e-3 as in the authors' code), and initialization (the authors' code's: convolutions normal by the fan-out,
the dense layer uniform by its classes). ``depth`` in the registry counts convolutions and the dense layer without
squeeze-and-excitation's; the paper counts none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import nn

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.mbconv import make_divisible
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import Architecture, Classifier
from hubel.models.classification.inverted_residual_network import (
    Stage,
    assemble,
    depth,
    initialize_convolutions,
    scaled,
)
from hubel.models.config_schema import Factor, ShareBelowOne

STEM_CHANNELS, TOP_CHANNELS = 32, 1280
STAGES = (
    Stage(expansion=1, channels=16, units=1, stride=1, kernel=3),
    Stage(6, 24, 2, 2, 3),
    Stage(6, 40, 2, 2, 5),
    Stage(6, 80, 3, 2, 3),
    Stage(6, 112, 3, 1, 5),
    Stage(6, 192, 4, 2, 5),
    Stage(6, 320, 1, 1, 3),
)
_SiLU = partial(nn.SiLU, inplace=True)


@dataclass(frozen=True)
class EfficientNetConfig:
    """What varies within the family.

    Attributes:
        width: factor on the channels.
        depth: factor on the units of the stages.
        dropout: share of features dropped before the dense layer, 0..1.
        stochastic_depth: share of images for which the last units are passed by while training, 0..1.
        norm_eps: epsilon of the batch normalizations.
        same: pad as TensorFlow's ``SAME`` does.
    """

    width: Factor
    depth: Factor
    dropout: ShareBelowOne
    stochastic_depth: ShareBelowOne = 0.2
    norm_eps: Factor = 1e-3
    same: bool = False


def initialize(model: nn.Module) -> None:
    """As the authors' code: convolutions normal by their fan-out, the dense layer uniform by its classes."""
    initialize_convolutions(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.out_features)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)


def _squeeze(wide: int, narrow: int) -> nn.Module:
    return SqueezeExcitation(wide, max(1, narrow // 4), activation=_SiLU)


def build(config: EfficientNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """An EfficientNet for any image size: ``image_size`` changes no shape."""
    norm = partial(nn.BatchNorm2d, eps=config.norm_eps, momentum=0.01)
    model = assemble(
        scaled(STAGES, config.width, config.depth),
        stem_channels=make_divisible(STEM_CHANNELS, config.width),
        top_channels=make_divisible(TOP_CHANNELS, config.width),
        conv=partial(ConvNormActivation, same=config.same, norm=norm, activation=_SiLU),
        num_classes=num_classes,
        in_channels=in_channels,
        dropout=config.dropout,
        squeeze=_squeeze,
        stochastic_depth=config.stochastic_depth,
    )
    initialize(model)
    return model


def _row(number: int, width: float, depth_factor: float, image_size: int, dropout: float) -> Architecture:
    return Architecture(
        name=f"efficientnet_b{number}",
        task="classify",
        build=build,
        config=EfficientNetConfig(width, depth_factor, dropout),
        input=(3, image_size, image_size),
        num_classes=1000,
        depth=depth(scaled(STAGES, width, depth_factor)),
        reference="Tan and Le 2019, arXiv 1905.11946, table 1 and section 3.3",
    )


ARCHITECTURES = (
    _row(0, 1.0, 1.0, 224, 0.2),
    _row(1, 1.0, 1.1, 240, 0.2),
    _row(2, 1.1, 1.2, 260, 0.3),
    _row(3, 1.2, 1.4, 300, 0.3),
    _row(4, 1.4, 1.8, 380, 0.4),
    _row(5, 1.6, 2.2, 456, 0.4),
    _row(6, 1.8, 2.6, 528, 0.5),
    _row(7, 2.0, 3.1, 600, 0.5),
)
