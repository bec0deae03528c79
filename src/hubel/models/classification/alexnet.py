"""AlexNet (Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS), its edition with one tower that torchvision's weights belong to, and ZFNet.

AlexNet as in section 3.5 and figure 2:

====== ======================================= =========== ========================== ===========
part   alexnet, 227 × 227 input                output      alexnet_owt, 224 × 224     output
====== ======================================= =========== ========================== ===========
stage1 11×11, 96, stride 4; normalization      96@55×55    11×11, 64, stride 4, pad 2 64@55×55
pool1  3×3 max, stride 2                       96@27×27    the same                   64@27×27
stage2 5×5, 256, two groups; normalization     256@27×27   5×5, 192                   192@27×27
pool2  3×3 max, stride 2                       256@13×13   the same                   192@13×13
stage3 3×3, 384                                384@13×13   3×3, 384                   384@13×13
       3×3, 384, two groups                    384@13×13   3×3, 256                   256@13×13
       3×3, 256, two groups                    256@13×13   3×3, 256                   256@13×13
pool3  3×3 max, stride 2                       256@6×6     the same                   256@6×6
head   dense 4096, 4096, each with dropout 0.5 1000        dropout before each, not   1000
       after it; dense 1000                                after
params                                         60,965,224                             61,100,840
====== ======================================= =========== ========================== ===========

ReLU follows every layer but the last, before normalization and pooling. The two groups are the two GPUs: each half of
the maps sees one half of those before. Misprints of the paper: the input is 227 × 227, not 224 × 224, from which a
stride of 4 does not give 55; the first layer then has 55 · 55 · 96 = 290,400 neurons, not 253,440.

``alexnet_owt`` is torchvision's, after Krizhevsky 2014 ("One weird trick for parallelizing convolutional neural
networks", arXiv 1404.5997): no groups, no normalization. It is initialized like the original, not by torch's defaults.

ZFNet (Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901, figure 3), for
224 × 224 input:

====== ============================================= ========== ==========
part   layer                                         output     parameters
====== ============================================= ========== ==========
stage1 7×7, 96, stride 2                             96@110×110 14,208
pool1  3×3 max, stride 2                             96@55×55
norm1  contrast normalization across maps            96@55×55
stage2 5×5, 256, stride 2                            256@26×26  614,656
pool2  3×3 max, stride 2                             256@13×13
norm2  contrast normalization across maps            256@13×13
stage3 3×3, 384; 3×3, 384; 3×3, 256                  256@13×13  3,097,600
pool3  3×3 max, stride 2                             256@6×6
head   dense 4096, 4096, dropout 0.5 after each      4096       54,534,144
       dense 1000                                    1000       4,097,000
====== ============================================= ========== ==========

62,357,608 parameters. ReLU follows every layer but the last, before the pooling. The figure's sizes result from one
pixel of padding around the image (or none around 225 × 225), none before the second convolution, and pooling windows
that may reach over the border. It gives no constants of the contrast normalization; AlexNet's are used.

Deviations from ZFNet: weights start from a Gaussian of standard deviation 0.01, where the paper says "initialized to
10⁻²" (all filters of a layer would remain equal); filters are not renormalized during training (section 3).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from hubel.errors import ModelError
from hubel.layers.conv_norm_act import ConvNormActivation, ReLU, local_response_norm
from hubel.layers.init import initialize
from hubel.models.base import Architecture, Classifier
from hubel.models.config_schema import Count, Groups, ShareBelowOne

_Conv = partial(ConvNormActivation, norm=None)
_HIDDEN = 4096
# Section 5, for five convolutions and three dense layers: ones give ReLUs positive inputs from the start.
_BIASES = (0, 1, 0, 1, 1, 1, 1, 0)


@dataclass(frozen=True)
class AlexNetConfig:
    """Differences between the two editions of AlexNet.

    Attributes:
        channels: of the five convolutions.
        padding: of the first convolution in pixels, at most half its kernel.
        groups: of the second, fourth and fifth convolution.
        normalized: local response normalization after the first two convolutions.
        dropout_before: dropout before the hidden dense layers, not after them.
        grid: size of the maps that the dense layers read; by default that of the image size.
    """

    channels: tuple[Count, Count, Count, Count, Count] = (96, 256, 384, 384, 256)
    padding: Literal[0, 1, 2, 3, 4, 5] = 0
    groups: Groups = 2
    normalized: bool = True
    dropout_before: bool = False
    dropout: ShareBelowOne = 0.5
    grid: Count | None = None


def _initialize(model: nn.Module) -> None:
    """Section 5: weights from a Gaussian of standard deviation 0.01, biases of 0 or 1."""
    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    for layer, bias in zip(layers, _BIASES, strict=True):
        assert layer.bias is not None
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.constant_(layer.bias, bias)


def build(config: AlexNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """AlexNet for square images of ``image_size`` pixels; raises ``ModelError`` where they leave no map.

    The pyramid's maps at strides 4 and 8 are the normalized ones.
    """
    grid = grid_side("AlexNet", image_size, 35 - 2 * config.padding, config.grid)
    (c1, c2, c3, c4, c5), groups = config.channels, config.groups
    backbone = nn.Sequential()
    backbone.add_module("stage1", nn.Sequential(_Conv(in_channels, c1, 11, stride=4, padding=config.padding)))
    backbone.add_module("pool1", nn.MaxPool2d(3, stride=2))
    backbone.add_module("stage2", nn.Sequential(_Conv(c1, c2, 5, groups=groups)))
    backbone.add_module("pool2", nn.MaxPool2d(3, stride=2))
    stage3 = (_Conv(c2, c3, 3), _Conv(c3, c4, 3, groups=groups), _Conv(c4, c5, 3, groups=groups))
    backbone.add_module("stage3", nn.Sequential(*stage3))
    backbone.add_module("pool3", nn.MaxPool2d(3, stride=2))
    if config.normalized:
        for stage in ("stage1", "stage2"):
            backbone.get_submodule(stage).add_module("norm", local_response_norm())
    feature_info = {4: ("stage1", c1), 8: ("stage2", c2), 16: ("stage3", c5), 32: ("pool3", c5)}
    head = DenseHead(c5, grid, num_classes, config.dropout, config.dropout_before)
    model = Classifier(backbone, head, feature_info)
    _initialize(model)
    return model


class DenseHead(nn.Sequential):
    """Dense layers of AlexNet, ZFNet and VGG: two hidden ones of 4096 units with ReLU and dropout, and the classes.

    Maps (N, channels, H, W) are averaged over ``grid`` × ``grid`` cells, which changes nothing at the image size that
    the network was built for, and become scores (N, num_classes). Dropout is after the hidden layers (Krizhevsky et al.
    2012, section 4.2) or before them (torchvision's AlexNet).
    """

    classifier: nn.Linear

    def __init__(
        self, channels: int, grid: int, num_classes: int, dropout: float = 0.5, dropout_before: bool = False
    ) -> None:
        super().__init__()
        self.add_module("pool", nn.AdaptiveAvgPool2d(grid))
        self.add_module("flatten", nn.Flatten())
        for number, features in ((1, channels * grid**2), (2, _HIDDEN)):
            if dropout_before:
                self.add_module(f"dropout{number}", nn.Dropout(dropout))
            self.add_module(f"fc{number}", nn.Linear(features, _HIDDEN))
            self.add_module(f"activation{number}", ReLU())
            if not dropout_before:
                self.add_module(f"dropout{number}", nn.Dropout(dropout))
        self.add_module("classifier", nn.Linear(_HIDDEN, num_classes))


def grid_side(family: str, image_size: int, lost: int, grid: int | None) -> int:
    """Size of the maps that the dense layers read: the user's choice, or what five halvings leave of the image.

    ``lost`` pixels go to convolutions and pooling without padding; raises ``ModelError`` if the images are too small.
    """
    left = (image_size - lost) // 32
    if left < 1:
        raise ModelError(f"{family} requires images larger than {image_size} pixels", f"use at least {lost + 32}")
    return left if grid is None else grid


@dataclass(frozen=True)
class ZFNetConfig:
    """Options of ZFNet; see :class:`AlexNetConfig`."""

    dropout: ShareBelowOne = 0.5
    grid: Count | None = None


def build_zfnet(config: ZFNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """ZFNet for square images of ``image_size`` pixels; raises ``ModelError`` for fewer than 47."""
    grid = grid_side("ZFNet", image_size, 15, config.grid)
    pool = partial(nn.MaxPool2d, 3, stride=2, ceil_mode=True)
    backbone = nn.Sequential()
    backbone.add_module("stage1", _Conv(in_channels, 96, 7, stride=2, padding=1))
    backbone.add_module("pool1", pool())
    backbone.add_module("norm1", local_response_norm())
    backbone.add_module("stage2", _Conv(96, 256, 5, stride=2, padding=0))
    backbone.add_module("pool2", pool())
    backbone.add_module("norm2", local_response_norm())
    backbone.add_module("stage3", nn.Sequential(_Conv(256, 384, 3), _Conv(384, 384, 3), _Conv(384, 256, 3)))
    backbone.add_module("pool3", pool())
    feature_info = {2: ("stage1", 96), 4: ("norm1", 96), 8: ("stage2", 256), 16: ("stage3", 256), 32: ("pool3", 256)}
    model = Classifier(backbone, DenseHead(256, grid, num_classes, config.dropout), feature_info)
    initialize(model, partial(nn.init.normal_, std=0.01), partial(nn.init.normal_, std=0.01))
    return model


_OWT = AlexNetConfig((64, 192, 384, 256, 256), padding=2, groups=1, normalized=False, dropout_before=True)
_KRIZHEVSKY = ("Krizhevsky et al. 2012, NIPS, section 3.5", "Krizhevsky 2014, arXiv 1404.5997, as torchvision has it")
_ZEILER = "Zeiler and Fergus 2013, arXiv 1311.2901, figure 3"

ARCHITECTURES = (
    Architecture("alexnet", build, AlexNetConfig(), 8, _KRIZHEVSKY[0], input=(3, 227, 227)),
    Architecture("alexnet_owt", build, _OWT, 8, _KRIZHEVSKY[1]),
    Architecture("zfnet", build_zfnet, ZFNetConfig(), 8, _ZEILER),
)
