"""ResNet (He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition", arXiv 1512.03385).

The paper's table 1, for 224 × 224 input; every convolution is followed by batch normalization, and the first
unit of stages 2, 3 and 4 (the paper's conv3_x, conv4_x, conv5_x) halves the size:

========== ======= ============== ============== =================== =================== ===================
part       output  18             34             50                  101                 152
========== ======= ============== ============== =================== =================== ===================
stem       112×112 7×7, 64, stride 2
pool       56×56   3×3 max, stride 2
stage1     56×56   [3×3, 64]² ×2  [3×3, 64]² ×3  [1×1, 64; 3×3, 64; 1×1, 256] ×3 in all three
stage2     28×28   [3×3, 128]² ×2 [3×3, 128]² ×4 [128; 128; 512] ×4  [128; 128; 512] ×4  [128; 128; 512] ×8
stage3     14×14   [3×3, 256]² ×2 [3×3, 256]² ×6 [256; 256; 1024] ×6 [..] ×23            [..] ×36
stage4     7×7     [3×3, 512]² ×2 [3×3, 512]² ×3 [512; 512; 2048] ×3 [..] ×3             [..] ×3
head       1×1     average pool, 1000-d dense
parameters         11,689,512     21,797,672     25,557,032          44,549,160          60,192,808
========== ======= ============== ============== =================== =================== ===================

Shortcuts are the paper's option B: a 1×1 projection where the shape changes, the identity elsewhere.

Where we deviate from the paper: bottleneck units that halve the size stride in their 3×3 convolution ("v1.5",
the edition that the field's weights and figures belong to); ``stride_in="1x1"`` gives the paper's, which
strides in the first 1×1. Initialization is He's with the fan-out (He et al. 2015, arXiv 1502.01852, equation
14); the paper cites it without saying which of the two equations it took.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.layers.conv_norm_activation import ConvNormActivation, ReLU
from hubel.models.registry import Architecture, ClassificationHead, Classifier

_WIDTHS = (64, 128, 256, 512)


@dataclass(frozen=True)
class ResNetConfig:
    """What varies within the family.

    Attributes:
        unit: ``"basic"`` (two 3×3) or ``"bottleneck"`` (1×1, 3×3, 1×1).
        depths: units in each of the four stages.
        stride_in: which convolution of a bottleneck unit halves the size, ``"3x3"`` (v1.5) or ``"1x1"``
            (paper).
    """

    unit: Literal["basic", "bottleneck"]
    depths: tuple[int, int, int, int]
    stride_in: Literal["3x3", "1x1"] = "3x3"

    def __post_init__(self) -> None:
        if self.stride_in not in ("3x3", "1x1"):
            raise ModelError(
                f"stride_in={self.stride_in!r} is not known to the ResNets.",
                'Choose "3x3" (v1.5) or "1x1" (paper).',
            )


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The paper's option B, section 3.3: a projection where the shape changes, the identity elsewhere."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNormActivation(in_channels, out_channels, 1, stride, activation=None)


class ResidualUnit(nn.Module):
    """Two 3×3 convolutions and a shortcut (figure 2, and figure 5 on the left).

    The sum is taken before the last ReLU. Maps (N, in_channels, H, W) become
    (N, channels, ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels: of the maps that come in.
        channels: of both convolutions.
        stride: of the first convolution and of the shortcut.
    """

    expansion = 1

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = ConvNormActivation(in_channels, channels, 3, stride)
        self.conv2 = ConvNormActivation(channels, channels, 3, activation=None)
        self.shortcut = _shortcut(in_channels, channels, stride)
        self.activation = ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, H / stride, W / stride) of maps (N, in_channels, H, W)."""
        out: Tensor = self.activation(self.conv2(self.conv1(maps)) + self.shortcut(maps))
        return out


class BottleneckUnit(nn.Module):
    """1×1, 3×3, 1×1 convolutions, the last four times as wide, and a shortcut (figure 5 on the right).

    Args:
        in_channels: of the maps that come in.
        channels: of the first two convolutions.
        stride: of the unit.
        stride_in: which convolution takes it, ``"3x3"`` or ``"1x1"``.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, stride_in: Literal["3x3", "1x1"] = "3x3"
    ) -> None:
        super().__init__()
        stride1, stride2 = (stride, 1) if stride_in == "1x1" else (1, stride)
        out_channels = channels * self.expansion
        self.conv1 = ConvNormActivation(in_channels, channels, 1, stride1)
        self.conv2 = ConvNormActivation(channels, channels, 3, stride2)
        self.conv3 = ConvNormActivation(channels, out_channels, 1, activation=None)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.activation = ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, 4 * channels, H / stride, W / stride) of maps (N, in_channels, H, W)."""
        out: Tensor = self.activation(self.conv3(self.conv2(self.conv1(maps))) + self.shortcut(maps))
        return out


def _unit(config: ResNetConfig, in_channels: int, channels: int, stride: int) -> nn.Module:
    if config.unit == "basic":
        return ResidualUnit(in_channels, channels, stride)
    return BottleneckUnit(in_channels, channels, stride, config.stride_in)


def _initialize(model: nn.Module) -> None:
    """He's initialization of the convolutions; batch normalization starts as the identity, as in torch."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def build(config: ResNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A ResNet for any image size: ``image_size`` changes nothing, since the head averages over positions."""
    expansion = ResidualUnit.expansion if config.unit == "basic" else BottleneckUnit.expansion
    backbone = nn.Sequential()
    backbone.add_module("stem", ConvNormActivation(in_channels, _WIDTHS[0], 7, stride=2))
    backbone.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
    outputs = (_WIDTHS[0], *(width * expansion for width in _WIDTHS))
    for number, (depth, width, (before, after)) in enumerate(
        zip(config.depths, _WIDTHS, pairwise(outputs), strict=True), start=1
    ):
        first = _unit(config, before, width, stride=1 if number == 1 else 2)
        rest = [_unit(config, after, width, stride=1) for _ in range(depth - 1)]
        backbone.add_module(f"stage{number}", nn.Sequential(first, *rest))
    pyramid = {2: ("stem", _WIDTHS[0])}
    pyramid |= {2 ** (n + 1): (f"stage{n}", channels) for n, channels in enumerate(outputs[1:], start=1)}
    model = Classifier(backbone, ClassificationHead(outputs[-1], num_classes), pyramid)
    _initialize(model)
    return model


def _row(depth: int, unit: Literal["basic", "bottleneck"], depths: tuple[int, int, int, int]) -> Architecture:
    return Architecture(
        name=f"resnet{depth}",
        task="classify",
        build=build,
        config=ResNetConfig(unit, depths),
        input=(3, 224, 224),
        num_classes=1000,
        depth=depth,
        reference="He et al. 2015, arXiv 1512.03385, table 1",
    )


ARCHITECTURES = (
    _row(18, "basic", (2, 2, 2, 2)),
    _row(34, "basic", (3, 4, 6, 3)),
    _row(50, "bottleneck", (3, 4, 6, 3)),
    _row(101, "bottleneck", (3, 4, 23, 3)),
    _row(152, "bottleneck", (3, 8, 36, 3)),
)
