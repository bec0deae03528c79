"""ESPCN: three convolutions at the resolution of the small image, and a pixel shuffle.

Shi et al. 2016, "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural
Network", arXiv 1609.05158, section 3: (5 × 5, 64 maps), (3 × 3, 32 maps), (3 × 3, scale² maps), each but the last with
tanh. It enlarges the luma of an image.

Deviations: the network gives what is added to bicubic interpolation, and its last layer starts near zero and without a
checkerboard (ICNR, :func:`hubel.layers.sub_pixel.icnr_`). ``residual=False`` gives the paper's output.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from hubel.layers.sub_pixel import SubPixelConvolution, icnr_
from hubel.models.base import Architecture
from hubel.models.super_resolution.enlarger import Enlarger


@dataclass(frozen=True)
class ESPCNConfig:
    """Options of the family.

    Attributes:
        scale: how many times as wide and high images become.
        residual: the network gives what is added to bicubic interpolation, and not the image itself.
    """

    scale: Literal[2, 3, 4] = 2
    residual: bool = True

    @property
    def margin(self) -> int:
        """Pixels of the small image, on each side, that one of the enlarged depends on."""
        return 2 + 1 + 1


def build(config: ESPCNConfig, num_classes: int, in_channels: int, image_size: int) -> Enlarger:
    """ESPCN for images of any size."""
    backbone = nn.Sequential(
        OrderedDict(
            conv1=nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 64, 5, padding=2), activation=nn.Tanh())),
            conv2=nn.Sequential(OrderedDict(conv=nn.Conv2d(64, 32, 3, padding=1), activation=nn.Tanh())),
        )
    )
    head = SubPixelConvolution(32, 1, 3, config.scale)
    icnr_(head.conv.weight, config.scale, partial(nn.init.normal_, std=0.001))
    nn.init.zeros_(head.conv.bias)  # type: ignore[arg-type]
    return Enlarger(backbone, head, config.scale, in_channels, 32, True, config.residual)


ARCHITECTURES = tuple(
    Architecture(
        f"espcn_x{scale}",
        build,
        ESPCNConfig(scale=scale),
        depth=3,
        reference="Shi et al. 2016, arXiv 1609.05158, section 3",
        task="super-resolve",
        input=(3, 128, 128),
        num_classes=0,
        pixels="unit",
        recipes=2 * ({"learning_rate": 1e-3},),
    )
    for scale in (2, 3, 4)
)
