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
14); the paper cites it without saying which of the two equations it took. Of a grouped convolution all groups'
channels count, as in the code of ResNeXt's authors.

The units take what later papers vary in them: groups (``resnext.py``), squeeze and excitation (``senet.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.layers.conv_norm_act import ConvNormActivation, ReLU
from hubel.layers.mbconv import make_divisible
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.config_schema import Count, Factor, Groups, OddSide, ShareBelowOne

_WIDTHS = (64, 128, 256, 512)

Norm = Callable[[int], nn.Module]


@dataclass(frozen=True)
class ResNetConfig:
    """What varies within the family.

    Attributes:
        unit: ``"basic"`` (two 3×3) or ``"bottleneck"`` (1×1, 3×3, 1×1).
        depths: units in each of the four stages.
        stride_in: which convolution of a bottleneck unit halves the size, ``"3x3"`` (v1.5) or ``"1x1"``
            (paper).
        groups: of a bottleneck unit's 3×3 convolution; the ResNeXts' "cardinality".
        group_width: channels of each group in stage 1; every further stage has twice as many.
        se: squeeze and excitation at the end of every unit, before the sum.
        stem: ``"7x7"``, one convolution, or ``"3x3"``, three, the last of them twice as wide.
        first_halved: the first 1×1 of a bottleneck unit has half as many channels as the 3×3.
        projection: side of the kernel of the projections that halve the size.
        pool_past_end: the pooling that follows the stem pads nothing, but goes over the right and lower edge, as
            Caffe's does.
        dropout: share of features dropped before the dense layer, 0..1.
        norm_eps: what batch normalization adds to the variance.
        width: factor on the channels.
    """

    unit: Literal["basic", "bottleneck"]
    depths: tuple[Count, Count, Count, Count]
    stride_in: Literal["3x3", "1x1"] = "3x3"
    groups: Groups = 1
    group_width: Count = 64
    se: bool = False
    stem: Literal["7x7", "3x3"] = "7x7"
    first_halved: bool = False
    projection: OddSide = 1
    pool_past_end: bool = False
    dropout: ShareBelowOne = 0.0
    norm_eps: Factor = 1e-5
    width: Factor = 1.0

    def __post_init__(self) -> None:
        if self.unit == "basic" and (self.groups, self.group_width, self.first_halved) != (1, 64, False):
            raise ModelError(
                "groups, group_width and first_halved are for bottleneck units; this network has basic ones.",
                "Leave them out, or take resnet50 or deeper.",
            )


def _shortcut(in_channels: int, out_channels: int, stride: int, kernel: int, norm: Norm) -> nn.Module:
    """The paper's option B, section 3.3: a projection where the shape changes, the identity elsewhere."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return ConvNormActivation(
        in_channels, out_channels, kernel if stride > 1 else 1, stride, norm=norm, activation=None
    )


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (figure 2, and figure 5 on the left).

    The sum is taken before the last ReLU. Maps (N, in_channels, H, W) become
    (N, channels, ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels: of the maps that come in.
        channels: of both convolutions.
        stride: of the first convolution and of the shortcut.
        se: squeeze and excitation before the sum.
        projection: side of the kernel of a shortcut that halves the size.
        norm: makes the normalizations.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        se: bool = False,
        projection: int = 1,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormActivation(in_channels, channels, 3, stride, norm=norm)
        self.conv2 = ConvNormActivation(channels, channels, 3, norm=norm, activation=None)
        self.se = SqueezeExcitation(channels) if se else nn.Identity()
        self.shortcut = _shortcut(in_channels, channels, stride, projection, norm)
        self.activation = ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, H / stride, W / stride) of maps (N, in_channels, H, W)."""
        out: Tensor = self.se(self.conv2(self.conv1(maps)))
        out += self.shortcut(maps)  # in place: a copy would cost as much time as the sum
        out = self.activation(out)
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions, the last four times ``channels`` wide, and a shortcut (figure 5 on the right).

    Args:
        in_channels: of the maps that come in.
        channels: a quarter of those of the maps that go out.
        stride: of the unit.
        stride_in: which convolution takes it, ``"3x3"`` or ``"1x1"``.
        inner: channels of the 3×3 convolution; ``channels`` by default.
        first: channels of the first 1×1 convolution; ``inner`` by default.
        groups: of the 3×3 convolution.
        se: squeeze and excitation before the sum.
        projection: side of the kernel of a shortcut that halves the size.
        norm: makes the normalizations.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        stride_in: Literal["3x3", "1x1"] = "3x3",
        inner: int | None = None,
        first: int | None = None,
        groups: int = 1,
        se: bool = False,
        projection: int = 1,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        stride1, stride2 = (stride, 1) if stride_in == "1x1" else (1, stride)
        out_channels = channels * self.expansion
        inner = inner or channels
        first = first or inner
        self.conv1 = ConvNormActivation(in_channels, first, 1, stride1, norm=norm)
        self.conv2 = ConvNormActivation(first, inner, 3, stride2, groups=groups, norm=norm)
        self.conv3 = ConvNormActivation(inner, out_channels, 1, norm=norm, activation=None)
        self.se = SqueezeExcitation(out_channels) if se else nn.Identity()
        self.shortcut = _shortcut(in_channels, out_channels, stride, projection, norm)
        self.activation = ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, 4 * channels, H / stride, W / stride) of maps (N, in_channels, H, W)."""
        out: Tensor = self.se(self.conv3(self.conv2(self.conv1(maps))))
        out += self.shortcut(maps)  # in place: a copy would cost as much time as the sum
        out = self.activation(out)
        return out


def _unit(config: ResNetConfig, in_channels: int, channels: int, stride: int, norm: Norm) -> nn.Module:
    if config.unit == "basic":
        return BasicBlock(in_channels, channels, stride, config.se, config.projection, norm)
    inner = max(1, channels * config.group_width // _WIDTHS[0]) * config.groups
    return Bottleneck(
        in_channels,
        channels,
        stride,
        config.stride_in,
        inner=inner,
        first=max(1, inner // 2) if config.first_halved else inner,
        groups=config.groups,
        se=config.se,
        projection=config.projection,
        norm=norm,
    )


def _stem(config: ResNetConfig, in_channels: int, norm: Norm) -> tuple[nn.Module, int]:
    """The convolutions before the pooling, and how many channels they give."""
    width = make_divisible(_WIDTHS[0], config.width)
    if config.stem == "7x7":
        return ConvNormActivation(in_channels, width, 7, stride=2, norm=norm), width
    convolutions = nn.Sequential(
        ConvNormActivation(in_channels, width, 3, stride=2, norm=norm),
        ConvNormActivation(width, width, 3, norm=norm),
        ConvNormActivation(width, 2 * width, 3, norm=norm),
    )
    return convolutions, 2 * width


def _initialize(model: nn.Module) -> None:
    """He's initialization of the convolutions; batch normalization starts as the identity, as in torch."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build(config: ResNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A ResNet for any image size: ``image_size`` changes nothing, since the head averages over positions."""
    expansion = BasicBlock.expansion if config.unit == "basic" else Bottleneck.expansion
    norm = partial(nn.BatchNorm2d, eps=config.norm_eps)
    backbone = nn.Sequential()
    stem, channels = _stem(config, in_channels, norm)
    feature_info = {2: ("stem", channels)}
    backbone.add_module("stem", stem)
    padding = 0 if config.pool_past_end else 1
    backbone.add_module("pool", nn.MaxPool2d(3, stride=2, padding=padding, ceil_mode=config.pool_past_end))
    widths = [make_divisible(width, config.width) for width in _WIDTHS]
    for number, (depth, width) in enumerate(zip(config.depths, widths, strict=True), start=1):
        stage = nn.Sequential()
        for index in range(depth):
            stride = 2 if number > 1 and index == 0 else 1
            stage.append(_unit(config, channels, width, stride, norm))
            channels = width * expansion
        backbone.add_module(f"stage{number}", stage)
        feature_info[2 ** (number + 1)] = (f"stage{number}", channels)
    model = Classifier(backbone, ClassificationHead(channels, num_classes, config.dropout), feature_info)
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
