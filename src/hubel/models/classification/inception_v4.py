"""Inception-v4 and Inception-ResNet-v2 (Szegedy, Ioffe, Vanhoucke, Alemi 2016, "Inception-v4, Inception-ResNet and the
Impact of Residual Connections on Learning", arXiv 1602.07261).

For 299 × 299 input; batch normalization and ReLU follow every convolution, except the last one of a residual module.
``inception_v4`` is figure 9; ``inception_resnet_v2`` is the network of the authors' code (tensorflow/models,
``research/slim``), to which all published weights belong; ``inception_resnet_v2_paper`` is the one that the paper
draws (figure 15):

====== ======= ====================== ============================== =======================================
part   output  inception_v4           inception_resnet_v2            inception_resnet_v2_paper
====== ======= ====================== ============================== =======================================
stem   147×147 3×3, 32, stride 2; 3×3, 32; 3×3, 64, padded (figure 3, below, in all three)
pool   73×73                          3×3 max, stride 2
stage1 71×71   figure 3, middle: 192  1×1, 80; 3×3, 192              figure 3, middle: 192
stage2 35×35   figure 3, top: 384;    3×3 max; Inception-v3's        figure 3, top: 384;
..             4 A (figure 4)         module: 320; 10 A              5 A (figure 16)
stage3 17×17   reduction A (figure 7, table 1): 1024, 1088, 1152
..             7 B (figure 5)         20 B                           10 B (figure 17)
stage4 8×8     reduction B            reduction B: 2080              reduction B (figure 18): 2144
..             (figure 8): 1536;      10 C                           5 C (figure 19)
..             3 C (figure 6)
top    8×8                            1×1, 1536
head   1×1     average pool, dropout of 0.2, 1000-d dense
====== ======= ====================== ============================== =======================================

========================= ===========
name                      parameters
========================= ===========
inception_v4              42,679,816
inception_resnet_v2       55,843,464
inception_resnet_v2_paper 32,433,928
========================= ===========

A residual module adds its branches, brought to the width of its input by a 1×1 convolution and multiplied by a small
number, to its input (section 3.3, figure 20). The paper says 0.1 to 0.3; the code has 0.17, 0.1 and 0.2 for A, B and C,
and leaves out factor and ReLU in the last C.

Misprints in the paper: figures 17 and 19 end in 1154 and 2048 channels, which cannot be added to the 1152 and 2144
that come in; figure 3's last convolution needs a stride of 2.

From the code, since the paper does not say: epsilon 1e-3 in batch normalization; average pooling divides by the pixels
there are; He's initialization with the fan-in (He et al. 2015, arXiv 1502.01852, equation 10) from a normal
distribution cut off at two standard deviations, Glorot's for the dense layer. The order of 1×7 and 7×1 is the code's
too. Deviations from the code: running statistics take in a tenth of each batch's, as is usual in torch, not
0.0003; there is no auxiliary classifier, of which the paper says nothing and which neither timm's nor Keras's weights
have. ``depth`` in the registry is the longest path; the paper counts none.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU
from hubel.layers.inception import Concat
from hubel.layers.init import initialize, truncated_normal_
from hubel.layers.squeeze_excitation import SqueezeExcitation, with_se
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.classification.inception_v3 import (
    Conv,
    Step,
    branch,
    entry,
    forked,
    module_a,
    pooled,
    reduction_a,
    stage,
    stem,
)
from hubel.models.config_schema import Count, PositiveShare, ShareBelowOne

# Branches of the residual modules A, B and C (figures 16, 17, 19): channels and kernel of each convolution.
_RESIDUAL_BRANCHES: tuple[tuple[tuple[Step, ...], ...], ...] = (
    (((32, 1),), ((32, 1), (32, 3)), ((32, 1), (48, 3), (64, 3))),
    (((192, 1),), ((128, 1), (160, (1, 7)), (192, (7, 1)))),
    (((192, 1),), ((192, 1), (224, (1, 3)), (256, (3, 1)))),
)


@dataclass(frozen=True)
class InceptionV4Config:
    """Options; ``se`` is after each module and reduction (Hu et al. 2018, arXiv 1709.01507, figure 2)."""

    dropout: ShareBelowOne = 0.2
    se: bool = False


@dataclass(frozen=True)
class InceptionResNetConfig:
    """Differences between the paper's network and its authors' code.

    Attributes:
        edition: ``"code"`` or ``"paper"``: whose first and last layers.
        units: residual modules A, B and C.
        scales: what their branches are multiplied by.
        se: squeeze and excitation in the residual modules, before they are multiplied (Hu et al. 2018, arXiv
            1709.01507, table 2).
    """

    edition: Literal["code", "paper"]
    units: tuple[Count, Count, Count]
    scales: tuple[PositiveShare, PositiveShare, PositiveShare] = (0.17, 0.1, 0.2)
    dropout: ShareBelowOne = 0.2
    se: bool = False


def _entry(in_channels: int) -> nn.Sequential:
    """The parts stem, pool and stage1 of figure 3."""
    first, pool = stem(in_channels), Concat(nn.MaxPool2d(3, stride=2), branch(64, (96, 3, 2)))
    stage1 = Concat(
        branch(160, (64, 1), (96, 3, 1)),
        branch(160, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1)),
    )
    return nn.Sequential(OrderedDict(stem=first, pool=pool, stage1=stage1))


def _halved_entry() -> Concat:
    """The end of figure 3."""
    return Concat(branch(192, (192, 3, 2)), nn.MaxPool2d(3, stride=2))


def _module_a() -> Concat:
    """Figure 4."""
    return Concat(
        branch(384, (96, 1)),
        branch(384, (64, 1), (96, 3)),
        branch(384, (64, 1), (96, 3), (96, 3)),
        pooled(384, 96),
    )


def _module_b() -> Concat:
    """Figure 5."""
    return Concat(
        branch(1024, (384, 1)),
        branch(1024, (192, 1), (224, (1, 7)), (256, (7, 1))),
        branch(1024, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
        pooled(1024, 128),
    )


def _module_c() -> Concat:
    """Figure 6."""
    return Concat(
        branch(1536, (256, 1)),
        branch(1536, (384, 1)).append(forked(384, 256)),
        branch(1536, (384, 1), (448, (3, 1)), (512, (1, 3))).append(forked(512, 256)),
        pooled(1536, 256),
    )


def _reduction_b() -> Concat:
    """Figure 8."""
    return Concat(
        branch(1024, (192, 1), (192, 3, 2)),
        branch(1024, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2)),
        nn.MaxPool2d(3, stride=2),
    )


def _residual_reduction_b(in_channels: int) -> Concat:
    """Figure 18."""
    return Concat(
        branch(in_channels, (256, 1), (384, 3, 2)),
        branch(in_channels, (256, 1), (288, 3, 2)),
        branch(in_channels, (256, 1), (288, 3), (320, 3, 2)),
        nn.MaxPool2d(3, stride=2),
    )


class ResidualModule(nn.Module):
    """``activation(maps + scale * se(project(branches(maps))))``; maps keep their shape (N, channels, H, W).

    Branches are given by channels and kernel of each of their convolutions; the scale keeps training stable (section
    3.3).
    """

    def __init__(
        self,
        channels: int,
        branches: tuple[tuple[Step, ...], ...],
        scale: float,
        activated: bool = True,
        se: bool = False,
    ) -> None:
        super().__init__()
        self.branches = Concat(*(branch(channels, *steps) for steps in branches))
        joined = sum(steps[-1][0] for steps in branches)
        self.project = ConvNormActivation(joined, channels, 1, norm=None, activation=None)
        self.se = SqueezeExcitation(channels) if se else nn.Identity()
        self.activation = ReLU() if activated else nn.Identity()
        self.scale = scale

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, H, W) of maps (N, channels, H, W)."""
        added = self.se(self.project(self.branches(maps)))
        out: Tensor = self.activation(torch.add(maps, added, alpha=self.scale))
        return out

    def extra_repr(self) -> str:
        """Arguments shown by ``print``."""
        return f"scale={self.scale}"


def _truncated_he(weight: Tensor) -> None:
    truncated_normal_(weight, math.sqrt(1.3 * 2 / weight[0].numel()))  # cutting off leaves 1 / 1.3 of the variance


def build(config: InceptionV4Config, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """An Inception-v4 for any image size from 75 pixels: ``image_size`` changes no shape."""
    excite = partial(with_se, se=config.se)
    backbone = _entry(in_channels)
    backbone.add_module("stage2", stage(_halved_entry(), *(excite(_module_a(), 384) for _ in range(4))))
    reduction = excite(reduction_a(384, 192, 224, 256, 384), 1024)
    backbone.add_module("stage3", stage(reduction, *(excite(_module_b(), 1024) for _ in range(7))))
    backbone.add_module("stage4", stage(excite(_reduction_b(), 1536), *(excite(_module_c(), 1536) for _ in range(3))))
    feature_info = {2: ("stem", 64), 4: ("stage1", 192), 8: ("stage2", 384), 16: ("stage3", 1024), 32: ("stage4", 1536)}
    model = Classifier(backbone, ClassificationHead(1536, num_classes, config.dropout), feature_info)
    initialize(model, _truncated_he, nn.init.xavier_uniform_)
    return model


def build_residual(config: InceptionResNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """An Inception-ResNet-v2 for any image size from 75 pixels: ``image_size`` changes no shape."""
    code = config.edition == "code"
    backbone = entry(in_channels) if code else _entry(in_channels)
    first = nn.Sequential(nn.MaxPool2d(3, stride=2), module_a(192, 64, first=96)) if code else _halved_entry()
    widths = (320, 1088, 2080) if code else (384, 1152, 2144)
    reductions = (first, reduction_a(widths[0], 256, 256, 384, 384), _residual_reduction_b(widths[1]))
    kinds = zip(reductions, widths, _RESIDUAL_BRANCHES, config.units, config.scales, strict=True)
    for number, (reduction, width, branches, units, scale) in enumerate(kinds, start=2):
        modules = [ResidualModule(width, branches, scale, se=config.se) for _ in range(units)]
        if code and number == 4:
            modules[-1] = ResidualModule(width, branches, scale=1.0, activated=False, se=config.se)
        backbone.add_module(f"stage{number}", stage(reduction, *modules))
    feature_info = {2: ("stem", 64), 4: ("stage1", 192), 8: ("stage2", widths[0]), 16: ("stage3", widths[1])}
    feature_info[32] = ("stage4", widths[2])
    if code:
        backbone.add_module("top", Conv(widths[2], 1536, 1))
        feature_info[32] = ("top", 1536)
    model = Classifier(backbone, ClassificationHead(feature_info[32][1], num_classes, config.dropout), feature_info)
    initialize(model, _truncated_he, nn.init.xavier_uniform_)
    return model


_row = partial(Architecture, input=(3, 299, 299))
_PAPER = "Szegedy et al. 2016, arXiv 1602.07261, figure"
_CODE_CONFIG = InceptionResNetConfig("code", (10, 20, 10))
_PAPER_CONFIG = InceptionResNetConfig("paper", (5, 10, 5))

ARCHITECTURES = (
    _row("inception_v4", build, InceptionV4Config(), 76, f"{_PAPER} 9"),
    _row("inception_resnet_v2", build_residual, _CODE_CONFIG, 176, f"{_PAPER} 15"),
    _row("inception_resnet_v2_paper", build_residual, _PAPER_CONFIG, 96, f"{_PAPER} 15"),
)
