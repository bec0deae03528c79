"""VGG (Simonyan and Zisserman 2014, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv
1409.1556).

The paper's table 1, for 224 × 224 input. All convolutions are 3×3, keep the size and end in ReLU; a stage is followed
by 2×2 max pooling with stride 2:

========== ======= =========== =========== =========== ===========
part       output  11 (A)      13 (B)      16 (D)      19 (E)
========== ======= =========== =========== =========== ===========
stage1     224×224 64          64, 64      64, 64      64, 64
stage2     112×112 128         128, 128    128, 128    128, 128
stage3     56×56   256 ×2      256 ×2      256 ×3      256 ×4
stage4     28×28   512 ×2      512 ×2      512 ×3      512 ×4
stage5     14×14   512 ×2      512 ×2      512 ×3      512 ×4
pool5      7×7
head       1×1     dense 4096, 4096, dropout 0.5 after each; dense 1000
parameters         132,863,336 133,047,848 138,357,544 143,667,240
========== ======= =========== =========== =========== ===========

``se=True`` puts squeeze and excitation after each convolution's ReLU (Hu et al. 2018, arXiv 1709.01507, section 3.3).

Left out: the paper's A-LRN, which is no better than A, and C, with 1×1 convolutions, which is worse than D.

``batch_norm=True`` puts batch normalization, which is younger than the paper, before each ReLU of the convolutions, as
in torchvision's and timm's ``vgg16_bn``. Theirs have biases in those convolutions too, which the normalization cancels;
loading moves them into its running mean.

Initialization is Glorot's (Glorot and Bengio 2010, equation 16) with biases 0, which section 3.1 found to work without
training A first and starting the others from its layers.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.init import initialize
from hubel.layers.mbconv import make_divisible
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import Architecture, Classifier
from hubel.models.classification.alexnet import DenseHead, grid_side
from hubel.models.config_schema import Count, Factor, ShareBelowOne

_WIDTHS = (64, 128, 256, 512, 512)


@dataclass(frozen=True)
class VGGConfig:
    """Options of the family.

    Attributes:
        depths: convolutions in each of the five stages.
        batch_norm: normalize before each ReLU of the convolutions.
        grid: size of the maps that the dense layers read; by default that of the image size.
        se: squeeze and excitation after each convolution.
    """

    depths: tuple[Count, Count, Count, Count, Count]
    batch_norm: bool = False
    dropout: ShareBelowOne = 0.5
    grid: Count | None = None
    width: Factor = 1.0
    se: bool = False


def build(config: VGGConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A VGG for square images of ``image_size`` pixels; raises ``ModelError`` for fewer than 32."""
    grid = grid_side("VGG", image_size, 0, config.grid)
    norm = nn.BatchNorm2d if config.batch_norm else None
    backbone = nn.Sequential()
    feature_info = {}
    channels = in_channels
    widths = [make_divisible(width, config.width) for width in _WIDTHS]
    for number, (depth, width) in enumerate(zip(config.depths, widths, strict=True), start=1):
        stage = nn.Sequential()
        for _ in range(depth):
            stage.append(ConvNormActivation(channels, width, 3, norm=norm))
            if config.se:
                stage.append(SqueezeExcitation(width))
            channels = width
        backbone.add_module(f"stage{number}", stage)
        backbone.add_module(f"pool{number}", nn.MaxPool2d(2))
        feature_info[2 ** (number - 1)] = (f"stage{number}", width)
    feature_info[32] = ("pool5", channels)
    model = Classifier(backbone, DenseHead(channels, grid, num_classes, config.dropout), feature_info)
    initialize(model, nn.init.xavier_uniform_, nn.init.xavier_uniform_)
    return model


_TABLE = "Simonyan and Zisserman 2014, arXiv 1409.1556, table 1"

ARCHITECTURES = (
    Architecture("vgg11", build, VGGConfig((1, 1, 2, 2, 2)), 11, f"{_TABLE}, A"),
    Architecture("vgg13", build, VGGConfig((2, 2, 2, 2, 2)), 13, f"{_TABLE}, B"),
    Architecture("vgg16", build, VGGConfig((2, 2, 3, 3, 3)), 16, f"{_TABLE}, D"),
    Architecture("vgg19", build, VGGConfig((2, 2, 4, 4, 4)), 19, f"{_TABLE}, E"),
)
