"""EfficientNet-Lite (Google 2020; the architecture of Tan and Le 2019, arXiv 1905.11946, made fit for
phones).

Source: the tensorflow/tpu repository, ``models/official/efficientnet/lite``, and the TensorFlow blog of March
2020. Against EfficientNet: no squeeze-and-excitation, ReLU6 in place of swish, and stem, top and the numbers
of units of the first and last stage are not scaled. Table 1 of the paper, with the Lite edition's numbers for
lite0:

====== ============ ====== ====== ======== ===== ==============
part   operator     kernel stride channels units output at 224
====== ============ ====== ====== ======== ===== ==============
stem   convolution  3      2      32       1     112×112
stage1 MBConv1      3      1      16       1     112×112
stage2 MBConv6      3      2      24       2     56×56
stage3 MBConv6      5      2      40       2     28×28
stage4 MBConv6      3      2      80       3     14×14
stage5 MBConv6      5      1      112      3     14×14
stage6 MBConv6      5      2      192      4     7×7
stage7 MBConv6      3      1      320      1     7×7
top    convolution  1      1      1280     1     7×7
====== ============ ====== ====== ======== ===== ==============

====== ===== ===== ========== ======= ===========
name   width depth input      dropout parameters
====== ===== ===== ========== ======= ===========
lite0  1.0   1.0   224×224    0.2     4,652,008
lite1  1.0   1.1   240×240    0.2     5,416,680
lite2  1.1   1.2   260×260    0.3     6,092,072
lite3  1.2   1.4   280×280    0.3     8,197,096
lite4  1.4   1.8   300×300    0.3     13,006,568
====== ===== ===== ========== ======= ===========

All convolutions pad as TensorFlow's ``SAME``; batch normalization has epsilon 1e-3 and momentum 0.01
(TensorFlow says 0.99).

Where we deviate: no stochastic depth while training (the authors' code drops units with up to 20 %).
``depth`` in the registry counts convolutions and the dense layer; the paper counts none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from hubel.layers.conv_norm_activation import ConvNormActivation, ReLU6
from hubel.models.registry import Architecture, ClassificationHead, Classifier

_BatchNorm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
_Conv = partial(ConvNormActivation, same=True, norm=_BatchNorm, activation=ReLU6)

_STEM_CHANNELS = 32
_TOP_CHANNELS = 1280


@dataclass(frozen=True)
class _Stage:
    """A row of table 1: units with the expansion ratio, the first of which takes the stride."""

    kernel: int
    stride: int
    expansion: int
    channels: int
    units: int


_STAGES = (
    _Stage(3, 1, 1, 16, 1),
    _Stage(3, 2, 6, 24, 2),
    _Stage(5, 2, 6, 40, 2),
    _Stage(3, 2, 6, 80, 3),
    _Stage(5, 1, 6, 112, 3),
    _Stage(5, 2, 6, 192, 4),
    _Stage(3, 1, 6, 320, 1),
)
# The last stage of each stride; the numbers are those of _STAGES, from 1.
_PYRAMID = {2: 1, 4: 2, 8: 3, 16: 5, 32: 7}


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """What varies within the family.

    Attributes:
        width: factor on the channels of the stages.
        depth: factor on the units of the stages except the first and last.
        dropout: share of features dropped before the dense layer, 0..1.
    """

    width: float
    depth: float
    dropout: float


def scaled_channels(channels: int, width: float) -> int:
    """``channels * width`` to the nearest multiple of 8, but never more than 10 % below the product."""
    product = channels * width
    rounded = max(8, int(product + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * product else rounded


def scaled_units(units: int, depth: float) -> int:
    """``units * depth``, rounded up."""
    return math.ceil(units * depth)


class MBConv(nn.Module):
    """The inverted residual unit: widen by a 1×1, filter each channel by itself, narrow by a 1×1 without
    activation (Sandler et al. 2018, arXiv 1801.04381, table 1), with a shortcut where the shape stays.

    Args:
        in_channels: of the maps that come in.
        out_channels: of the maps that go out.
        kernel: side of the depthwise kernel.
        stride: of the depthwise convolution.
        expansion: factor of the widening; at 1 there is none.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = in_channels * expansion
        self.expand = nn.Identity() if expansion == 1 else _Conv(in_channels, wide, 1)
        self.depthwise = _Conv(wide, wide, kernel, stride, groups=wide)
        self.project = _Conv(wide, out_channels, 1, activation=None)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, out_channels, ceil(H / stride), ceil(W / stride)) of maps (N, in_channels, H, W)."""
        out: Tensor = self.project(self.depthwise(self.expand(maps)))
        return out + maps if self.has_shortcut else out


def _scaled_stages(config: EfficientNetLiteConfig) -> list[tuple[_Stage, int, int]]:
    """Each stage with its scaled number of channels and of units."""
    rows = []
    for number, stage in enumerate(_STAGES):
        fixed = number in (0, len(_STAGES) - 1)
        units = stage.units if fixed else scaled_units(stage.units, config.depth)
        rows.append((stage, scaled_channels(stage.channels, config.width), units))
    return rows


def _initialize(model: nn.Module) -> None:
    """As the authors' code: convolutions normal by their fan-out, the dense layer uniform by its classes."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            bound = 1 / math.sqrt(module.out_features)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)


def build(config: EfficientNetLiteConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """An EfficientNet-Lite of any image size: ``image_size`` changes no shape."""
    backbone = nn.Sequential()
    backbone.add_module("stem", _Conv(in_channels, _STEM_CHANNELS, 3, stride=2))
    channels = _STEM_CHANNELS
    outputs: dict[int, int] = {}
    for number, (stage, out_channels, units) in enumerate(_scaled_stages(config), start=1):
        part = nn.Sequential()
        for index in range(units):
            stride = stage.stride if index == 0 else 1
            part.append(MBConv(channels, out_channels, stage.kernel, stride, stage.expansion))
            channels = out_channels
        backbone.add_module(f"stage{number}", part)
        outputs[number] = out_channels
    backbone.add_module("top", _Conv(channels, _TOP_CHANNELS, 1))
    pyramid = {stride: (f"stage{number}", outputs[number]) for stride, number in _PYRAMID.items()}
    model = Classifier(backbone, ClassificationHead(_TOP_CHANNELS, num_classes, config.dropout), pyramid)
    _initialize(model)
    return model


def _row(number: int, width: float, depth: float, image_size: int, dropout: float) -> Architecture:
    config = EfficientNetLiteConfig(width, depth, dropout)
    convolutions = sum(units * (2 if stage.expansion == 1 else 3) for stage, _, units in _scaled_stages(config))
    return Architecture(
        name=f"efficientnet_lite{number}",
        task="classify",
        build=build,
        config=config,
        input=(3, image_size, image_size),
        num_classes=1000,
        depth=convolutions + 3,  # and stem, top, dense
        reference="tensorflow/tpu, models/official/efficientnet/lite; Tan and Le 2019, arXiv 1905.11946",
    )


ARCHITECTURES = (
    _row(0, 1.0, 1.0, 224, 0.2),
    _row(1, 1.0, 1.1, 240, 0.2),
    _row(2, 1.1, 1.2, 260, 0.3),
    _row(3, 1.2, 1.4, 280, 0.3),
    _row(4, 1.4, 1.8, 300, 0.3),
)
