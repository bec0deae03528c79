"""Xception (Chollet 2016, "Xception: Deep Learning with Depthwise Separable Convolutions", arXiv 1610.02357).

Figure 5, for 299 × 299 input; "sep" are separable 3×3 convolutions. Batch normalization
follows every convolution. Each bracket is a unit: it begins with a ReLU, except the first, and its input is added
to what it gives, through a 1×1 convolution where the shape changes.

====== ======================================================= =============
part   layers                                                  output
====== ======================================================= =============
stem   3×3, 32, stride 2; 3×3, 64; not padded, with ReLU       147×147×64
stage1 [sep, 128; sep, 128; 3×3 max, stride 2]                 74×74×128
stage2 [sep, 256; sep, 256; 3×3 max, stride 2]                 37×37×256
stage3 [sep, 728; sep, 728; 3×3 max, stride 2]                 19×19×728
..     [sep, 728; sep, 728; sep, 728] ×8, the middle flow
stage4 [sep, 728; sep, 1024; 3×3 max, stride 2]                10×10×1024
top    sep, 1536; sep, 2048; with ReLU                         10×10×2048
head   average pool, dropout, 1000-d dense
====== ======================================================= =============

34 separable convolutions and 2 others make the paper's 36 layers. 22,855,952 parameters, as its table 3 says; Keras's
22,910,480 has the running statistics among them.

The maps of strides 4, 8 and 16 are sums as they leave their unit; the next unit begins with the ReLU.

What the paper does not say is the author's code, which is Keras's: padding as TensorFlow's ``SAME``, epsilon 1e-3 and
momentum 0.01 (Keras says 0.99) in batch normalization, Glorot's uniform initialization.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU
from hubel.layers.init import initialize
from hubel.layers.mbconv import make_divisible
from hubel.layers.pooling import SameMaxPool2d
from hubel.layers.separable_convolution import SeparableConv2d
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.config_schema import Factor, ShareBelowOne

_WIDTHS = (32, 64, 128, 256, 728, 1024, 1536, 2048)


@dataclass(frozen=True)
class XceptionConfig:
    """Options of the family.

    Attributes:
        same: max pooling pads as TensorFlow's ``SAME``, else a pixel on each side.
        dropout: fraction of features dropped before the dense layer (section 4.3: 0.5 on ImageNet, none on JFT).
        se: squeeze and excitation at the end of every unit, before the sum (Hu et al. 2018, arXiv 1709.01507).
        depth: factor on the units of the middle flow.
    """

    same: bool = True
    norm_eps: Factor = 1e-3
    dropout: ShareBelowOne = 0.5
    se: bool = False
    width: Factor = 1.0
    depth: Factor = 1.0


class XceptionUnit(nn.Module):
    """Separable convolutions and a shortcut around them.

    Maps (N, in_channels, H, W) become maps (N, channels[-1], H', W'). ``pool`` halves the size at the end; then the
    shortcut is a 1×1 convolution with stride 2, else the identity. ``activated`` units begin with a ReLU; squeeze and
    excitation, if any, precedes the sum.
    """

    def __init__(
        self,
        in_channels: int,
        channels: tuple[int, ...],
        norm: partial[nn.BatchNorm2d],
        pool: nn.Module | None = None,
        activated: bool = True,
        se: bool = False,
    ) -> None:
        super().__init__()
        self.activation = nn.ReLU() if activated else nn.Identity()  # not in place: the shortcut needs the input
        self.convs = nn.Sequential()
        before = in_channels
        for number, width in enumerate(channels, start=1):
            activation = ReLU if number < len(channels) else None
            self.convs.append(SeparableConv2d(before, width, 3, norm=norm, activation=activation))
            before = width
        self.pool = nn.Identity() if pool is None else pool
        self.se = SqueezeExcitation(before) if se else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if pool is not None:
            self.shortcut = ConvNormActivation(in_channels, before, 1, stride=2, norm=norm, activation=None)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels[-1], H', W') of maps (N, in_channels, H, W)."""
        out: Tensor = self.se(self.pool(self.convs(self.activation(maps))))
        out += self.shortcut(maps)
        return out


def build(config: XceptionConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """An Xception for any image size: ``image_size`` changes no shape."""
    norm = partial(nn.BatchNorm2d, eps=config.norm_eps, momentum=0.01)
    conv = partial(ConvNormActivation, norm=norm, padding=0)
    sep = partial(SeparableConv2d, kernel_size=3, norm=norm, activation=ReLU)

    def halving(before: int, *channels: int, activated: bool = True) -> XceptionUnit:
        pool = SameMaxPool2d(3, stride=2) if config.same else nn.MaxPool2d(3, stride=2, padding=1)
        return XceptionUnit(before, channels, norm, pool, activated, config.se)

    c32, c64, c128, c256, c728, c1024, c1536, c2048 = (make_divisible(width, config.width) for width in _WIDTHS)
    backbone = nn.Sequential()
    backbone.add_module("stem", nn.Sequential(conv(in_channels, c32, 3, stride=2), conv(c32, c64, 3)))
    backbone.add_module("stage1", nn.Sequential(halving(c64, c128, c128, activated=False)))
    backbone.add_module("stage2", nn.Sequential(halving(c128, c256, c256)))
    middle = (XceptionUnit(c728, (c728,) * 3, norm, se=config.se) for _ in range(math.ceil(8 * config.depth)))
    backbone.add_module("stage3", nn.Sequential(halving(c256, c728, c728), *middle))
    backbone.add_module("stage4", nn.Sequential(halving(c728, c728, c1024)))
    backbone.add_module("top", nn.Sequential(sep(c1024, c1536), sep(c1536, c2048)))
    feature_info = {
        2: ("stem", c64),
        4: ("stage1", c128),
        8: ("stage2", c256),
        16: ("stage3", c728),
        32: ("top", c2048),
    }
    model = Classifier(backbone, ClassificationHead(c2048, num_classes, config.dropout), feature_info)
    initialize(model, nn.init.xavier_uniform_, nn.init.xavier_uniform_)
    return model


ARCHITECTURES = (
    Architecture(
        "xception", build, XceptionConfig(), 36, "Chollet 2016, arXiv 1610.02357, figure 5", input=(3, 299, 299)
    ),
)
