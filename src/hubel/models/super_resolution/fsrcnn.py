"""FSRCNN: a network that works at the resolution of the small image, and enlarges last, by a transposed convolution.

Dong, Loy and Tang 2016, "Accelerating the Super-Resolution Convolutional Neural Network", arXiv 1608.00367, section 3.

| layer (``d = 56, s = 12, m = 4``) | kernel | maps | weights |
| --- | --- | --- | --- |
| feature extraction | 5 × 5 | d | 1,400 |
| shrinking | 1 × 1 | s | 672 |
| m × non-linear mapping | 3 × 3 | s | 5,184 |
| expanding | 1 × 1 | d | 672 |
| transposed convolution, stride = scale | 9 × 9 | 1 | 4,536 |

12,464 weights in all, as table 1 of the paper counts: without biases, and without the slopes of the PReLU after each
layer but the last. It enlarges the luma of an image. All scales have the same layers: only the stride of the last
differs.

Deviations: the network gives what is added to bicubic interpolation (Kim et al. 2016, arXiv 1511.04587, section 3.2),
with a transposed convolution that starts near zero, as the paper's does: so it starts as bicubic interpolation, and
learns in minutes. ``residual=False`` gives the paper's.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from torch import nn

from hubel.layers.sub_pixel import BICUBIC_RADIUS
from hubel.models.base import Architecture
from hubel.models.config_schema import Count, Natural
from hubel.models.super_resolution.enlarger import Enlarger

_KERNEL = 9  # of the transposed convolution


@dataclass(frozen=True)
class FSRCNNConfig:
    """Options of the family.

    Attributes:
        scale: how many times as wide and high images become.
        features: d, maps of the first and the last but one layer.
        shrunk: s, maps in between.
        mappings: m, layers in between.
        residual: the network gives what is added to bicubic interpolation, and not the image itself.
    """

    scale: Literal[2, 3, 4] = 2
    features: Count = 56
    shrunk: Count = 12
    mappings: Natural = 4
    residual: bool = True

    @property
    def margin(self) -> int:
        """Pixels of the small image, on each side, that one of the enlarged depends on."""
        return max(BICUBIC_RADIUS, 2 + self.mappings + math.ceil(_KERNEL / 2 / self.scale))


def build(config: FSRCNNConfig, num_classes: int, in_channels: int, image_size: int) -> Enlarger:
    """FSRCNN(d, s, m) for images of any size."""
    d, s = config.features, config.shrunk
    backbone: OrderedDict[str, nn.Module] = OrderedDict(extract=_layer(1, d, 5), shrink=_layer(d, s, 1))
    for number in range(1, config.mappings + 1):
        backbone[f"map{number}"] = _layer(s, s, 3)
    backbone["expand"] = _layer(s, d, 1)
    last = nn.ConvTranspose2d(d, 1, _KERNEL, config.scale, padding=_KERNEL // 2, output_padding=config.scale - 1)
    nn.init.normal_(last.weight, std=0.001)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    return Enlarger(nn.Sequential(backbone), last, config.scale, in_channels, d, True, config.residual)


def _layer(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Convolution and PReLU, drawn for it (He et al. 2015, arXiv 1502.01852, equation 15)."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2)
    nn.init.kaiming_normal_(conv.weight, a=0.25)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(OrderedDict(conv=conv, activation=nn.PReLU(out_channels)))


ARCHITECTURES = tuple(
    Architecture(
        f"fsrcnn_x{scale}",
        build,
        FSRCNNConfig(scale=scale),
        depth=8,
        reference="Dong et al. 2016, arXiv 1608.00367, table 1",
        task="super-resolve",
        input=(3, 128, 128),
        num_classes=0,
        pixels="unit",
    )
    for scale in (2, 3, 4)
)
