"""AlexNet (Krizhevsky, Sutskever, Hinton 2012, "ImageNet Classification with Deep Convolutional Neural Networks",
NIPS), as in section 3.5 and figure 2; and the edition with one tower that torchvision's weights belong to.

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

ReLU follows every layer but the last; local response normalization comes after it, pooling after that. The two groups
are the two GPUs: each half of the maps sees one half of those before.

Misprints of the paper: the input is 227 × 227, not 224 × 224, from which a stride of 4 does not give 55; the first
layer then has 55 · 55 · 96 = 290,400 neurons, not 253,440.

``alexnet_owt`` is torchvision's, after Krizhevsky 2014 ("One weird trick for parallelizing convolutional neural
networks", arXiv 1404.5997): no groups, no normalization. It starts like the original here, from Gaussians;
torchvision's starts as torch's layers do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.local_response_norm import local_response_norm
from hubel.models.base import Architecture, Classifier
from hubel.models.classification.dense_head import DenseHead, grid_side
from hubel.models.config_schema import Count, Groups, ShareBelowOne

_Conv = partial(ConvNormActivation, norm=None)
# Section 5, for five convolutions and three dense layers: ones give ReLUs positive inputs from the start.
_BIASES = (0, 1, 0, 1, 1, 1, 1, 0)


@dataclass(frozen=True)
class AlexNetConfig:
    """What the two editions differ in.

    Attributes:
        channels: of the five convolutions.
        padding: of the first convolution in pixels, at most half its kernel.
        groups: of the second, fourth and fifth convolution.
        normalized: local response normalization after the first two convolutions.
        dropout_before: drop what the hidden dense layers read, instead of what they give.
        dropout: share of values dropped, 0..1.
        grid: side of the maps that the dense layers read; by default what the image size gives.
    """

    channels: tuple[Count, Count, Count, Count, Count] = (96, 256, 384, 384, 256)
    padding: Literal[0, 1, 2, 3, 4, 5] = 0
    groups: Groups = 2
    normalized: bool = True
    dropout_before: bool = False
    dropout: ShareBelowOne = 0.5
    grid: Count | None = None


def _initialize(model: nn.Module) -> None:
    """Section 5: weights from a Gaussian of deviation 0.01, biases of 0 or 1."""
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
    c1, c2, c3, c4, c5 = config.channels
    groups = config.groups
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


def _row(name: str, config: AlexNetConfig, image_size: int, reference: str) -> Architecture:
    return Architecture(
        name=name,
        task="classify",
        build=build,
        config=config,
        input=(3, image_size, image_size),
        num_classes=1000,
        depth=8,
        reference=reference,
    )


_OWT = AlexNetConfig((64, 192, 384, 256, 256), padding=2, groups=1, normalized=False, dropout_before=True)

ARCHITECTURES = (
    _row("alexnet", AlexNetConfig(), 227, "Krizhevsky et al. 2012, NIPS, section 3.5"),
    _row("alexnet_owt", _OWT, 224, "Krizhevsky 2014, arXiv 1404.5997, as torchvision has it"),
)
