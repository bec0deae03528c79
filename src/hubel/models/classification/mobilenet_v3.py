"""MobileNet-v3 (Howard, Sandler, Chu, Chen, Chen, Tan, Wang, Zhu, Pang, Vasudevan, Le, Adam 2019, "Searching for
MobileNetV3", arXiv 1905.02244).

The paper's tables 1 (large) and 2 (small), for 224 × 224 input. A unit's row: kernel, channels within ("exp size"),
channels out, SE for squeeze-and-excitation, HS for hard swish or RE for ReLU, stride; units with the same number of
channels out are a stage.

====== ================================ ======= ================================ =======
part   large                            output  small                            output
====== ================================ ======= ================================ =======
stem   3×3, 16, HS, stride 2            112×112 3×3, 16, HS, stride 2            112×112
stage1 3 16 16 RE 1                     112×112 3 16 16 SE RE 2                  56×56
stage2 3 64 24 RE 2; 3 72 24 RE 1       56×56   3 72 24 RE 2; 3 88 24 RE 1       28×28
stage3 5 72 40 SE RE 2;                 28×28   5 96 40 SE HS 2;                 14×14
       5 120 40 SE RE 1, twice                  5 240 40 SE HS 1, twice
stage4 3 240 80 HS 2; 3 200 80 HS 1;    14×14   5 120 48 SE HS 1;                14×14
       3 184 80 HS 1, twice                     5 144 48 SE HS 1
stage5 3 480 112 SE HS 1;               14×14   5 288 96 SE HS 2;                7×7
       3 672 112 SE HS 1                        5 576 96 SE HS 1, twice
stage6 5 672 160 SE HS 2;               7×7
       5 960 160 SE HS 1, twice
top    1×1, 960, HS                     7×7     1×1, 576, HS                     7×7
head   average pool; dense, 1280, HS;   1×1     average pool; dense, 1024, HS;   1×1
       dense                                    dense
====== ================================ ======= ================================ =======

5,483,032 parameters (large) and 2,542,856 (small) at width 1. Squeeze-and-excitation reduces to a quarter of the
channels within the unit, rounded to a multiple of 8, and its gate is the hard sigmoid (sections 5.2 and 5.3); batch
normalization has momentum 0.01 (section 6.1.1 says an average decay of 0.99).

At other widths a unit keeps its expansion ratio and the top its 6 times, and the stem and the first dense layer are
at least as wide as printed: Keras's and timm's reading, which torchvision does not share.

Errors in the paper: its table 2 marks squeeze-and-excitation on the small network's top, which Keras, timm and
torchvision leave out; its first preprint has other strides and widths in large's stage 6.

Not specified in the paper: padding (``same=True`` pads as the authors' code and Keras do), the normalization's
epsilon (1e-3 as in the authors' code; timm's own weights need 1e-5), initialization (He's by the fan-out; of the
dense layers normal with standard deviation 0.01). The dropout of 0.8 in section 6.1.1 is the fraction retained.
``depth`` in the registry counts convolutions and dense layers without squeeze-and-excitation's; the paper counts none.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Literal, NamedTuple

from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU
from hubel.layers.mbconv import InvertedResidual, make_divisible
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.classification.mobilenet import initialize_by_fan_out, narrow_normal
from hubel.models.config_schema import Count, Factor, OddSide, ShareBelowOne

_STEM_CHANNELS = 16
_HardSwish = partial(nn.Hardswish, inplace=True)
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"RE": ReLU, "HS": _HardSwish}


class _Unit(NamedTuple):
    """A row of the paper's tables; ``wide`` is its "exp size"."""

    kernel: OddSide
    wide: Count
    channels: Count
    squeeze: Literal["SE", "–"]
    activation: Literal["RE", "HS"]
    stride: Literal[1, 2]


_LARGE = (
    _Unit(3, 16, 16, "–", "RE", 1),
    _Unit(3, 64, 24, "–", "RE", 2),
    _Unit(3, 72, 24, "–", "RE", 1),
    _Unit(5, 72, 40, "SE", "RE", 2),
    _Unit(5, 120, 40, "SE", "RE", 1),
    _Unit(5, 120, 40, "SE", "RE", 1),
    _Unit(3, 240, 80, "–", "HS", 2),
    _Unit(3, 200, 80, "–", "HS", 1),
    _Unit(3, 184, 80, "–", "HS", 1),
    _Unit(3, 184, 80, "–", "HS", 1),
    _Unit(3, 480, 112, "SE", "HS", 1),
    _Unit(3, 672, 112, "SE", "HS", 1),
    _Unit(5, 672, 160, "SE", "HS", 2),
    _Unit(5, 960, 160, "SE", "HS", 1),
    _Unit(5, 960, 160, "SE", "HS", 1),
)
_SMALL = (
    _Unit(3, 16, 16, "SE", "RE", 2),
    _Unit(3, 72, 24, "–", "RE", 2),
    _Unit(3, 88, 24, "–", "RE", 1),
    _Unit(5, 96, 40, "SE", "HS", 2),
    _Unit(5, 240, 40, "SE", "HS", 1),
    _Unit(5, 240, 40, "SE", "HS", 1),
    _Unit(5, 120, 48, "SE", "HS", 1),
    _Unit(5, 144, 48, "SE", "HS", 1),
    _Unit(5, 288, 96, "SE", "HS", 2),
    _Unit(5, 576, 96, "SE", "HS", 1),
    _Unit(5, 576, 96, "SE", "HS", 1),
)


@dataclass(frozen=True)
class MobileNetV3Config:
    """Options of the family.

    Attributes:
        features: outputs of the first dense layer.
        depth: factor on the units of the stages; the last of a stage is repeated.
    """

    units: tuple[_Unit, ...]
    features: Count
    width: Factor = 1.0
    dropout: ShareBelowOne = 0.2
    norm_eps: Factor = 1e-3
    same: bool = False
    depth: Factor = 1.0


def with_half_the_last_units(config: MobileNetV3Config) -> MobileNetV3Config:
    """The reduced tail of detectors: half the channels from the unit that halves the maps for the last time on.

    Section 6.3: these layers were made for a thousand classes, and detectors do as well with fewer.
    """
    last = max(index for index, row in enumerate(config.units) if row.stride == 2)
    first, *others = config.units[last:]
    halved = [row._replace(wide=row.wide // 2, channels=row.channels // 2) for row in others]
    return replace(config, units=(*config.units[:last], first._replace(channels=first.channels // 2), *halved))


class MobileNetV3Head(ClassificationHead):
    """Global average pooling before a dense layer with hard swish, then dropout and the last dense layer (figure 5)."""

    def __init__(self, in_features: int, features: int, num_classes: int, dropout: float) -> None:
        super().__init__(features, num_classes, dropout)
        self.in_channels = in_features
        self.hidden = nn.Linear(in_features, features)
        self.activation = _HardSwish()

    def pool(self, maps: Tensor) -> Tensor:
        """Features (N, features) that the last dense layer reads, of maps (N, C, H, W)."""
        features: Tensor = self.activation(self.hidden(super().pool(maps)))
        return features


def _unit(
    row: _Unit, in_channels: int, ratio: float, width: float, conv: Callable[..., ConvNormActivation]
) -> InvertedResidual:
    """The unit of a row, which widens ``in_channels`` by the ratio printed in the paper."""
    wide = make_divisible(in_channels, ratio)
    squeeze = SqueezeExcitation(wide, make_divisible(wide, 0.25), gate=nn.Hardsigmoid) if row.squeeze == "SE" else None
    conv, out_channels = partial(conv, activation=_ACTIVATIONS[row.activation]), make_divisible(row.channels, width)
    return InvertedResidual(in_channels, wide, out_channels, row.kernel, row.stride, conv, squeeze)


def build(config: MobileNetV3Config, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A MobileNet-v3 for any image size: ``image_size`` changes no shape."""
    norm = partial(nn.BatchNorm2d, eps=config.norm_eps, momentum=0.01)
    conv = partial(ConvNormActivation, same=config.same, norm=norm, activation=_HardSwish)
    channels = max(_STEM_CHANNELS, make_divisible(_STEM_CHANNELS, config.width))
    backbone = nn.Sequential(OrderedDict(stem=conv(in_channels, channels, 3, stride=2)))
    printed, stride, feature_info = _STEM_CHANNELS, 2, {2: ("stem", channels)}
    for number, (printed_out, rows) in enumerate(groupby(config.units, key=lambda row: row.channels), start=1):
        stage = list(rows)
        count = math.ceil(len(stage) * config.depth)
        repeated = stage + count * [stage[-1]._replace(stride=1)]
        part = nn.Sequential()
        for row in repeated[:count]:
            part.append(_unit(row, channels, row.wide / printed, config.width, conv))
            printed, stride = printed_out, stride * row.stride
            channels = make_divisible(printed_out, config.width)
        backbone.add_module(f"stage{number}", part)
        feature_info[stride] = (f"stage{number}", channels)
    top_channels = 6 * channels
    backbone.add_module("top", conv(channels, top_channels, 1))
    feature_info[stride] = ("top", top_channels)
    features = make_divisible(config.features, max(1.0, config.width))
    head = MobileNetV3Head(top_channels, features, num_classes, config.dropout)
    model = Classifier(backbone, head, feature_info)
    initialize_by_fan_out(model, narrow_normal)
    return model


_TABLES = "Howard et al. 2019, arXiv 1905.02244, table"
# Three convolutions per unit, of which the first does not widen; stem, top and two dense layers.
_DEPTHS = [3 * len(units) + 3 for units in (_SMALL, _LARGE)]

ARCHITECTURES = (
    Architecture("mobilenet_v3_small", build, MobileNetV3Config(_SMALL, 1024), _DEPTHS[0], f"{_TABLES} 2"),
    Architecture("mobilenet_v3_large", build, MobileNetV3Config(_LARGE, 1280), _DEPTHS[1], f"{_TABLES} 1"),
)
