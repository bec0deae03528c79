"""ResNet (He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition", arXiv 1512.03385) and what
grew from it: ResNeXt and SE-ResNet.

The paper's table 1, for 224 × 224 input. Every convolution is followed by batch normalization; the first block of
stages 2, 3 and 4 (the paper's conv3_x, conv4_x, conv5_x) halves the size:

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

ResNeXt (Xie, Girshick, Dollár, Tu, He 2016, "Aggregated Residual Transformations for Deep Neural Networks", arXiv
1611.05431) sums many narrow paths. As trained in the paper (figure 3c), they are one bottleneck block with a grouped
3×3 convolution: C groups of d channels in stage 1, twice as many channels in each further stage. Table 1, and its
equivalent for 101 layers; 32×8d is from Mahajan et al. 2018, "Exploring the Limits of Weakly Supervised Pretraining",
arXiv 1805.00932:

====== ======= ================================== ====================================
part   output  50 (32×4d): 25,028,904 parameters  101 (32×8d): 88,791,336 parameters
====== ======= ================================== ====================================
stage1 56×56   [128; 3×3, 128, C=32; 256] ×3      [256; 3×3, 256, C=32; 256] ×3
stage2 28×28   [256; 3×3, 256, C=32; 512] ×4      [512; 3×3, 512, C=32; 512] ×4
stage3 14×14   [512; 3×3, 512, C=32; 1024] ×6     [1024; 3×3, 1024, C=32; 1024] ×23
stage4 7×7     [1024; 3×3, 1024, C=32; 2048] ×3   [2048; 3×3, 2048, C=32; 2048] ×3
====== ======= ================================== ====================================

SE-ResNet (Hu, Shen, Albanie, Sun, Wu 2018, "Squeeze-and-Excitation Networks", arXiv 1709.01507, figure 3) scales the
maps of each block before they are added to its shortcut. In table 1 the two dense layers have [16, 256], [32, 512],
[64, 1024], [128, 2048] outputs in the four stages. SE-ResNet-50, -101, -152: 28,088,024, 49,326,872, 66,821,848
parameters. SENet-154 (115,088,984) is ResNeXt-152 with 64 groups of 4 channels and, by the appendix: half as many
channels in the first 1×1 of each block; a stem of three 3×3 convolutions (64, 64, 128 channels); 3×3 projections where
the size is halved; dropout of 0.2. Names do not count the dense layers.

ResNet-D (He, Zhang, Zhang, Zhang, Xie, Li 2019, "Bag of Tricks for Image Classification with Convolutional Neural
Networks", arXiv 1812.01187, figure 2) is ``stem="deep", avg_down=True`` for any of them: the 7×7 becomes three 3×3
convolutions (32, 32, 64 channels), and projections that halve the size average 2×2 pixels before a 1×1 of stride 1, so
that no pixel is skipped. ResNet-50-D has 25,576,264 parameters.

Deviations: bottlenecks that halve the size stride in their 3×3 convolution ("v1.5", to which the weights and results
in use belong; ResNeXt's paper says so, too); ``stride_in="1x1"`` is the papers' ResNet and SE-ResNet, which stride in
the first 1×1. SE-ResNets pad both sides in pooling, as timm's ``seresnet*`` and ``senet154`` do; the authors' Caffe
weights (timm's ``legacy_*``) need ``stride_in="1x1", pool_ceil_mode=True``, SENet-154's only the latter.
Initialization is He's with the fan-out (He et al. 2015, arXiv 1502.01852, equation 14; the paper does not say which of
the two equations it uses); all groups of a grouped convolution count, as in the code of ResNeXt's authors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.layers.conv_norm_act import ConvNormActivation, ReLU
from hubel.layers.init import he_fan_out, initialize
from hubel.layers.mbconv import make_divisible
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.config_schema import Count, Factor, Groups, OddSide, ShareBelowOne

_WIDTHS = (64, 128, 256, 512)

Norm = Callable[[int], nn.Module]


@dataclass(frozen=True)
class ResNetConfig:
    """Options of the family.

    Attributes:
        unit: ``"basic"`` (two 3×3) or ``"bottleneck"`` (1×1, 3×3, 1×1).
        depths: blocks in each of the four stages.
        stride_in: the convolution of a bottleneck that halves the size, ``"3x3"`` (v1.5) or ``"1x1"`` (paper).
        groups: of a bottleneck's 3×3 convolution; ResNeXt's "cardinality".
        base_width: channels of each group in stage 1; each further stage has twice as many.
        se: squeeze and excitation at the end of each block, before the sum.
        stem: ``"7x7"``: one convolution; three 3×3, the last of them twice as wide: ``"deep"`` (as many channels as the
            7×7) or ``"3x3"`` (twice as many).
        reduce_first: the first 1×1 of a bottleneck has half as many channels as the 3×3.
        downsample_kernel: kernel size of the projections that halve the size.
        avg_down: average 2×2 pixels in these projections, instead of striding in their convolution.
        pool_ceil_mode: pool after the stem without padding, but over the right and lower edge, as Caffe does.
    """

    ALIASES: ClassVar[Mapping[str, str]] = {  # spellings of the first version, which saved models contain
        "group_width": "base_width",
        "first_halved": "reduce_first",
        "projection": "downsample_kernel",
        "pool_past_end": "pool_ceil_mode",
    }

    unit: Literal["basic", "bottleneck"]
    depths: tuple[Count, Count, Count, Count]
    stride_in: Literal["3x3", "1x1"] = "3x3"
    groups: Groups = 1
    base_width: Count = 64
    se: bool = False
    stem: Literal["7x7", "3x3", "deep"] = "7x7"
    reduce_first: bool = False
    downsample_kernel: OddSide = 1
    avg_down: bool = False
    pool_ceil_mode: bool = False
    dropout: ShareBelowOne = 0.0
    norm_eps: Factor = 1e-5
    width: Factor = 1.0

    def __post_init__(self) -> None:
        if self.unit == "basic" and (self.groups, self.base_width, self.reduce_first) != (1, 64, False):
            raise ModelError(
                "groups, base_width and reduce_first require bottleneck blocks, and this network has basic ones",
                "omit them, or choose resnet50 or deeper",
            )


def _shortcut(
    in_channels: int, out_channels: int, stride: int, norm: Norm, kernel: int = 1, avg_down: bool = False
) -> nn.Module:
    """The paper's option B, section 3.3: a projection where the shape changes, the identity elsewhere."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    kernel = kernel if stride > 1 else 1
    project = partial(ConvNormActivation, in_channels, out_channels, kernel, norm=norm, activation=None)
    if not avg_down:
        return project(stride)
    pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
    return nn.Sequential(pool, project())


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut (figure 2, and figure 5 on the left).

    Maps (N, in_channels, H, W) become (N, channels, ceil(H / stride), ceil(W / stride)). The first convolution and the
    shortcut take the stride; squeeze and excitation, if any, precedes the sum.
    """

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        se: bool = False,
        shortcut: Callable[..., nn.Module] = _shortcut,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormActivation(in_channels, channels, 3, stride, norm=norm)
        self.conv2 = ConvNormActivation(channels, channels, 3, norm=norm, activation=None)
        self.se = SqueezeExcitation(channels) if se else nn.Identity()
        self.shortcut = shortcut(in_channels, channels, stride, norm)
        self.activation = ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, H / stride, W / stride)."""
        out: Tensor = self.se(self.conv2(self.conv1(maps)))
        out += self.shortcut(maps)  # in place: a copy would cost as much time as the sum
        out = self.activation(out)
        return out


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1 convolutions, the last four times ``channels`` wide, and a shortcut (figure 5 on the right).

    The shortcut and the convolution ``stride_in`` take the stride. The 3×3 has ``inner`` channels, by default
    ``channels``; the first 1×1 has ``first``, by default ``inner``.
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
        shortcut: Callable[..., nn.Module] = _shortcut,
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
        self.shortcut = shortcut(in_channels, out_channels, stride, norm)
        self.activation = ReLU()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, 4 · channels, H / stride, W / stride)."""
        out: Tensor = self.se(self.conv3(self.conv2(self.conv1(maps))))
        out += self.shortcut(maps)  # in place: a copy would cost as much time as the sum
        out = self.activation(out)
        return out


def _unit(config: ResNetConfig, in_channels: int, channels: int, stride: int, norm: Norm) -> nn.Module:
    shortcut = partial(_shortcut, kernel=config.downsample_kernel, avg_down=config.avg_down)
    if config.unit == "basic":
        return BasicBlock(in_channels, channels, stride, config.se, shortcut, norm)
    inner = max(1, channels * config.base_width // _WIDTHS[0]) * config.groups
    first = max(1, inner // 2) if config.reduce_first else inner
    return Bottleneck(
        in_channels, channels, stride, config.stride_in, inner, first, config.groups, config.se, shortcut, norm
    )


def _stem(config: ResNetConfig, in_channels: int, norm: Norm) -> tuple[nn.Module, int]:
    """The convolutions before the pooling, and the number of their output channels."""
    width = make_divisible(_WIDTHS[0], config.width)
    if config.stem == "7x7":
        return ConvNormActivation(in_channels, width, 7, stride=2, norm=norm), width
    if config.stem == "deep":
        width //= 2
    convolutions = nn.Sequential(
        ConvNormActivation(in_channels, width, 3, stride=2, norm=norm),
        ConvNormActivation(width, width, 3, norm=norm),
        ConvNormActivation(width, 2 * width, 3, norm=norm),
    )
    return convolutions, 2 * width


def build(config: ResNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A ResNet for any image size: ``image_size`` changes nothing, as the head averages over positions."""
    expansion = (BasicBlock if config.unit == "basic" else Bottleneck).expansion
    norm = partial(nn.BatchNorm2d, eps=config.norm_eps)
    backbone = nn.Sequential()
    stem, channels = _stem(config, in_channels, norm)
    feature_info = {2: ("stem", channels)}
    backbone.add_module("stem", stem)
    padding = 0 if config.pool_ceil_mode else 1
    backbone.add_module("pool", nn.MaxPool2d(3, stride=2, padding=padding, ceil_mode=config.pool_ceil_mode))
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
    initialize(model, he_fan_out)
    return model


def _resnet(name: str, depth: int, depths: tuple[int, int, int, int], source: str, **options: Any) -> Architecture:
    unit: Literal["basic", "bottleneck"] = "basic" if depth < 50 else "bottleneck"
    return Architecture(name, build, ResNetConfig(unit, depths, **options), depth, source)


_HE, _XIE = "He et al. 2015, arXiv 1512.03385", "Xie et al. 2016, arXiv 1611.05431"
_HU = "Hu et al. 2018, arXiv 1709.01507"
_MAHAJAN = "width of Mahajan et al. 2018, arXiv 1805.00932"
_SENET = {"reduce_first": True, "downsample_kernel": 3, "dropout": 0.2}

ARCHITECTURES = (
    _resnet("resnet18", 18, (2, 2, 2, 2), f"{_HE}, table 1"),
    _resnet("resnet34", 34, (3, 4, 6, 3), f"{_HE}, table 1"),
    _resnet("resnet50", 50, (3, 4, 6, 3), f"{_HE}, table 1"),
    _resnet("resnet101", 101, (3, 4, 23, 3), f"{_HE}, table 1"),
    _resnet("resnet152", 152, (3, 8, 36, 3), f"{_HE}, table 1"),
    _resnet("resnext50_32x4d", 50, (3, 4, 6, 3), f"{_XIE}, table 1", groups=32, base_width=4),
    _resnet("resnext101_32x8d", 101, (3, 4, 23, 3), f"{_XIE}; {_MAHAJAN}", groups=32, base_width=8),
    _resnet("se_resnet50", 50, (3, 4, 6, 3), f"{_HU}, table 1", se=True),
    _resnet("se_resnet101", 101, (3, 4, 23, 3), f"{_HU}, table 2", se=True),
    _resnet("se_resnet152", 152, (3, 8, 36, 3), f"{_HU}, table 2", se=True),
    _resnet("senet154", 154, (3, 8, 36, 3), f"{_HU}, appendix", se=True, groups=64, base_width=4, stem="3x3", **_SENET),
)
