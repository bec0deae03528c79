"""SRResNet: sixteen residual blocks at the resolution of the small image, then two sub-pixel convolutions by 2.

Ledig et al. 2016, "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network", arXiv
1609.04802, section 3.2 and figure 4: the generator, trained for the squared error alone, without the adversary.

| part | layers |
| --- | --- |
| stem | 9 × 9, 64, PReLU |
| 16 blocks | 3 × 3, 64, BN, PReLU; 3 × 3, 64, BN; + input |
| end of the blocks | 3 × 3, 64, BN; + stem |
| twice | 3 × 3, 256, pixel shuffle by 2, PReLU |
| last | 9 × 9, 3 |

It enlarges RGB images. Each PReLU has one slope for all maps; the paper does not say how many.

Deviations: values of the large image are 0..1, not -1..1; the network gives what is added to bicubic interpolation, and
its last layer starts near zero. ``residual=False`` gives the paper's output.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.sub_pixel import SubPixelConvolution
from hubel.models.base import Architecture
from hubel.models.config_schema import Natural
from hubel.models.super_resolution.enlarger import Enlarger

_MAPS = 64


@dataclass(frozen=True)
class SRResNetConfig:
    """Options of the family.

    Attributes:
        scale: how many times as wide and high images become.
        blocks: number of residual blocks.
        residual: the network gives what is added to bicubic interpolation, and not the image itself.
    """

    scale: Literal[2, 4] = 4
    blocks: Natural = 16
    residual: bool = True

    @property
    def margin(self) -> int:
        """Pixels of the small image, on each side, that one of the enlarged depends on."""
        # 9 × 9, the blocks and the convolution after them; then, in ever smaller pixels, 3 × 3 each and 9 × 9.
        return 4 + 2 * self.blocks + 1 + 2 + 4 // self.scale


class ResidualBlock(nn.Module):
    """``images + norm(conv(PReLU(norm(conv(images)))))`` (figure 4): maps (N, C, H, W) keep their shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvNormActivation(channels, channels, 3, activation=nn.PReLU)
        self.conv2 = ConvNormActivation(channels, channels, 3, activation=None)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps with the residual added."""
        changed: Tensor = maps + self.conv2(self.conv1(maps))
        return changed


class ResidualTrunk(nn.Module):
    """The blocks and the convolution after them, around which the maps are added once more."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.last = ConvNormActivation(channels, channels, 3, activation=None)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) of the same shape."""
        changed: Tensor = maps + self.last(self.blocks(maps))
        return changed


def build(config: SRResNetConfig, num_classes: int, in_channels: int, image_size: int) -> Enlarger:
    """SRResNet for images of any size."""
    backbone = nn.Sequential(
        OrderedDict(
            stem=ConvNormActivation(in_channels, _MAPS, 9, norm=None, activation=nn.PReLU),
            trunk=ResidualTrunk(_MAPS, config.blocks),
        )
    )
    head: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, config.scale // 2 + 1):
        head[f"enlarge{number}"] = SubPixelConvolution(_MAPS, _MAPS, 3, 2)
        head[f"activation{number}"] = nn.PReLU()
    last = nn.Conv2d(_MAPS, in_channels, 9, padding=4)
    nn.init.normal_(last.weight, std=0.001)
    nn.init.zeros_(last.bias)  # type: ignore[arg-type]
    head["last"] = last
    return Enlarger(backbone, nn.Sequential(head), config.scale, in_channels, _MAPS, False, config.residual)


ARCHITECTURES = (
    Architecture(
        "srresnet_x4",
        build,
        SRResNetConfig(),
        depth=37,
        reference="Ledig et al. 2016, arXiv 1609.04802, section 3.2",
        task="super-resolve",
        input=(3, 160, 160),
        num_classes=0,
        pixels="unit",
        recipes=2 * ({"learning_rate": 2e-4},),
    ),
)
