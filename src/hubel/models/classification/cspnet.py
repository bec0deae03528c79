"""CSPResNet, CSPResNeXt and CSPDarknet: known networks made of cross-stage partial stages.

Wang et al. 2019, "CSPNet: A New Backbone that can Enhance Learning Capability of CNN", arXiv 1911.11929;
CSPDarknet53: Bochkovskiy, Wang, Liao 2020, "YOLOv4", arXiv 2004.10934, section 3.4. The papers print no tables of
layers; these follow the authors' Darknet files (github.com/WongKinYiu/CrossStagePartialNetworks, ``cfg/cs*.cfg``),
for 256 × 256 input. "128+128: [64; 64; 128] ×3 → 256" is a cross-stage partial block
(:class:`CrossStagePartial`): it splits into two times 128 maps, of which one goes through three units,
and merges both into 256.

========== ======= =================================== =======================================
part       output  cspresnet50                         cspresnext50 (3×3 in 32 groups)
========== ======= =================================== =======================================
stem       128×128 7×7, 64, stride 2
pool       64×64   3×3 max, stride 2
stage1     64×64   128+128: [64; 64; 128] ×3 → 128     128+128: [128; 128; 128] ×3 → 256
stage2     32×32   256+256: [128; 128; 256] ×3 → 256   256+256: [256; 256; 256] ×3 → 512
stage3     16×16   512+512: [256; 256; 512] ×5 → 512   512+512: [512; 512; 512] ×5 → 1024
stage4     8×8     1024+1024: [512; 512; 1024] ×2      1024+1024: [1024; 1024; 1024] ×2 → 2048
                   → 1024
parameters         21,616,168                          20,569,896
========== ======= =================================== =======================================

========== ======= =================================
part       output  cspdarknet53
========== ======= =================================
stem       256×256 3×3, 32
stage1     128×128 64+64: [32; 64] ×1 → 64
stage2     64×64   64+64: [64; 64] ×2 → 128
stage3     32×32   128+128: [128; 128] ×8 → 256
stage4     16×16   256+256: [256; 256] ×8 → 512
stage5     8×8     512+512: [512; 512] ×4 → 1024
parameters         27,642,184
========== ======= =================================

All end in an average pool and a 1000-d dense layer. A unit of three convolutions is ResNet's 1×1, 3×3, 1×1, its sum
taken before the last activation; one of two is Darknet-53's 1×1, 3×3, its sum not activated. A stage that halves the
size begins with a 3×3 convolution of stride 2, which gives as many maps as it gets, in CSPDarknet53 as many as the
stage.

This is timm's edition, which published weights belong to. It departs from the authors' files so:

- leaky ReLU has slope 0.01, Darknet's 0.1 (``leaky_slope=0.1``); CSPDarknet53 within YOLOv4 has Mish
  (``activation="mish"``);
- CSPResNet and CSPResNeXt pool 3×3, Darknet 2×2; their stage 1 splits into 128+128 maps, Darknet's into 128+64, with
  64 of the first unit's 128 maps having a shortcut; none of their splits has an activation, in Darknet those of
  stages 1 and 4 have;
- the part that bypasses the block comes first in the concatenation, in Darknet last: an order of maps, no other
  network.

The names keep the number of layers of the networks they come from; ``depth`` in the registry counts splits,
transitions and merges too: 56, 56 and 68. The papers say nothing of the initialization; it is He's with the fan-out
(He et al. 2015, arXiv 1502.01852, equation 14), and a standard deviation of 0.01 for the dense layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU
from hubel.layers.init import he_fan_out, initialize
from hubel.layers.mbconv import make_divisible
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.config_schema import Count, Factor, Groups, ShareBelowOne


@dataclass(frozen=True)
class Stage:
    """A row of the table: units, their channels before the last convolution, those of each part, of the merge."""

    units: Count
    narrow: Count
    part: Count
    out: Count


@dataclass(frozen=True)
class CSPNetConfig:
    """Options of the family.

    Attributes:
        unit: ``"bottleneck"`` (of ResNet) or ``"dark"`` (of Darknet-53); stem, pooling and splits follow it.
        groups: those of the 3×3 convolutions.
        leaky_slope: slope of leaky ReLU below 0.
        se: squeeze and excitation at the end of every unit, before the sum (Hu et al. 2018, arXiv 1709.01507).
    """

    unit: Literal["bottleneck", "dark"]
    stages: tuple[Stage, ...]
    groups: Groups = 1
    activation: Literal["leaky_relu", "mish"] = "leaky_relu"
    leaky_slope: ShareBelowOne = 0.01
    se: bool = False
    width: Factor = 1.0
    depth: Factor = 1.0


class CrossStagePartial(nn.Module):
    """Splits maps in two, sends the second part through any block and a transition, and merges both.

    Section 3.1, figures 2b and 5: gradients of the part that crosses the stage are not computed again in every layer of
    the block, and the block works on fewer maps::

        maps ── split ─┬─────────────────────── first part ──┐
                       └─ second part ── block ── transition ─┴─ concatenation ── merge

    Split, transition and merge are 1×1 convolutions with normalization. Darknet's files have two parallel convolutions
    in place of the split, which is equivalent, but concatenate the second part before the first.

    Args:
        block: maps (N, part_channels, H, W) to (N, block_channels, H, W); by default as many channels as it reads.
        part_channels: of each part; ``None``: the input itself is cut in halves, of which the second is the larger if
            the number of channels is odd (figure 2b).
        activation: that of transition and merge.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        block: nn.Module,
        part_channels: int | None = None,
        block_channels: int | None = None,
        activation: Callable[[], nn.Module] | None = ReLU,
        split_activation: Callable[[], nn.Module] | None = ReLU,
    ) -> None:
        super().__init__()
        self.split: nn.Module = nn.Identity()
        first, second = in_channels // 2, in_channels - in_channels // 2
        if part_channels is not None:
            self.split = ConvNormActivation(in_channels, 2 * part_channels, 1, activation=split_activation)
            first = second = part_channels
        self.parts = (first, second)
        self.block = block
        self.transition = ConvNormActivation(block_channels or second, second, 1, activation=activation)
        self.merge = ConvNormActivation(first + second, out_channels, 1, activation=activation)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, in_channels, H, W) to (N, out_channels, H, W)."""
        first, second = self.split(maps).split(self.parts, dim=1)
        second = self.transition(self.block(second))
        merged: Tensor = self.merge(torch.cat((first, second), dim=1))
        return merged


class ResidualUnit(nn.Module):
    """Convolutions and a shortcut, maps keep their shape (N, channels, H, W).

    ``"bottleneck"`` is ResNet's 1×1, 3×3, 1×1, the sum taken before the last activation; ``"dark"`` is Darknet-53's
    1×1, 3×3, the sum not activated (Redmon and Farhadi 2018, arXiv 1804.02767, table 1). Squeeze and excitation, if
    any, precedes the sum; ``groups`` are those of the 3×3.
    """

    def __init__(
        self,
        kind: Literal["bottleneck", "dark"],
        channels: int,
        narrow: int,
        groups: int,
        activation: Callable[[], nn.Module],
        se: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = ConvNormActivation(channels, narrow, 1, activation=activation)
        if kind == "dark":
            self.conv2 = ConvNormActivation(narrow, channels, 3, groups=groups, activation=activation)
            self.conv3: nn.Module = nn.Identity()
        else:
            self.conv2 = ConvNormActivation(narrow, narrow, 3, groups=groups, activation=activation)
            self.conv3 = ConvNormActivation(narrow, channels, 1, activation=None)
        self.se = SqueezeExcitation(channels) if se else nn.Identity()
        self.activation = nn.Identity() if kind == "dark" else activation()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps of the same shape."""
        out: Tensor = self.activation(self.se(self.conv3(self.conv2(self.conv1(maps)))) + maps)
        return out


def _scaled(stage: Stage, config: CSPNetConfig) -> Stage:
    units = math.ceil(stage.units * config.depth)
    if config.width == 1:  # channels stay as they are given, multiples of 8 or not
        return replace(stage, units=units)
    return Stage(units, *(make_divisible(width, config.width) for width in (stage.narrow, stage.part, stage.out)))


def _stage(
    config: CSPNetConfig, stage: Stage, in_channels: int, halves: bool, activation: Callable[[], nn.Module]
) -> nn.Sequential:
    """A convolution of stride 2, where the stage halves the size, and the cross-stage partial block."""
    is_dark = config.unit == "dark"
    part, channels = nn.Sequential(), in_channels
    if halves:
        channels = stage.out if is_dark else in_channels
        downsample = ConvNormActivation(in_channels, channels, 3, 2, groups=config.groups, activation=activation)
        part.add_module("downsample", downsample)
    unit = partial(ResidualUnit, config.unit, stage.part, stage.narrow, config.groups, activation, config.se)
    partial_block = CrossStagePartial(
        channels,
        stage.out,
        block=nn.Sequential(*(unit() for _ in range(stage.units))),
        part_channels=stage.part,
        activation=activation,
        split_activation=activation if is_dark else None,
    )
    part.add_module("partial", partial_block)
    return part


def build(config: CSPNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A CSPNet for any image size: ``image_size`` changes nothing, as the head averages over positions."""
    leaky = partial(nn.LeakyReLU, config.leaky_slope, inplace=True)
    activation = nn.Mish if config.activation == "mish" else leaky
    conv = partial(ConvNormActivation, activation=activation)
    backbone = nn.Sequential()
    feature_info: dict[int, tuple[str, int]] = {}
    if config.unit == "dark":
        channels, stride = make_divisible(32, config.width), 1
        backbone.add_module("stem", conv(in_channels, channels, 3))
    else:
        channels, stride = make_divisible(64, config.width), 4
        backbone.add_module("stem", conv(in_channels, channels, 7, stride=2))
        backbone.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
        feature_info[2] = ("stem", channels)
    for number, stage in enumerate((_scaled(stage, config) for stage in config.stages), start=1):
        halves = number > 1 or config.unit == "dark"
        backbone.add_module(f"stage{number}", _stage(config, stage, channels, halves, activation))
        channels, stride = stage.out, 2 * stride if halves else stride
        feature_info[stride] = (f"stage{number}", channels)
    model = Classifier(backbone, ClassificationHead(channels, num_classes), feature_info)
    initialize(model, he_fan_out, partial(nn.init.normal_, std=0.01))
    return model


def _row(name: str, config: CSPNetConfig, reference: str) -> Architecture:
    in_units = sum(stage.units for stage in config.stages) * (2 if config.unit == "dark" else 3)
    # A stage also has a convolution with stride 2 (but for ResNets' first), a split, a transition and a merge; stem
    # and dense layer come on top.
    depth = in_units + 4 * len(config.stages) + (2 if config.unit == "dark" else 1)
    return Architecture(name, build, config, depth, reference, input=(3, 256, 256))


_CSPNET = "Wang et al. 2019, arXiv 1911.11929, figure 5"
_RESNET = (Stage(3, 64, 128, 128), Stage(3, 128, 256, 256), Stage(5, 256, 512, 512), Stage(2, 512, 1024, 1024))
_RESNEXT = (Stage(3, 128, 128, 256), Stage(3, 256, 256, 512), Stage(5, 512, 512, 1024), Stage(2, 1024, 1024, 2048))
_DARKNET = (
    *(Stage(1, 32, 64, 64), Stage(2, 64, 64, 128), Stage(8, 128, 128, 256)),
    *(Stage(8, 256, 256, 512), Stage(4, 512, 512, 1024)),
)

ARCHITECTURES = (
    _row("cspresnet50", CSPNetConfig("bottleneck", _RESNET), _CSPNET),
    _row("cspresnext50", CSPNetConfig("bottleneck", _RESNEXT, groups=32), _CSPNET),
    _row("cspdarknet53", CSPNetConfig("dark", _DARKNET), "Bochkovskiy et al. 2020, arXiv 2004.10934, section 3.4"),
)
