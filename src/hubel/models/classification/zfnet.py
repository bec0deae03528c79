"""ZFNet (Zeiler and Fergus 2013, "Visualizing and Understanding Convolutional Networks", arXiv 1311.2901).

The paper's figure 3, for 224 × 224 input:

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

62,357,608 parameters. ReLU follows every layer but the last, before the pooling.

What the figure leaves open: its sizes 110, 55, 26, 13, 6 come about with one pixel of padding around the image (or
none around one of 225 × 225), none before the second convolution, and pooling windows that may reach over the border.
The contrast normalization has no constants there; those of AlexNet's local response normalization are taken, whose
architecture the paper starts from.

Where we deviate: weights start from a Gaussian of deviation 0.01, where the paper says "initialized to 10⁻²" (all
filters of a layer would remain equal), and the renormalization of filters while training (section 3) is not done.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.local_response_norm import local_response_norm
from hubel.models.base import Architecture, Classifier
from hubel.models.classification.dense_head import DenseHead, grid_side
from hubel.models.config_schema import Count, ShareBelowOne

_Conv = partial(ConvNormActivation, norm=None)
_Pool = partial(nn.MaxPool2d, 3, stride=2, ceil_mode=True)


@dataclass(frozen=True)
class ZFNetConfig:
    """What may be varied.

    Attributes:
        dropout: share of values that the hidden dense layers drop in training, 0..1.
        grid: side of the maps that the dense layers read; by default what the image size gives.
    """

    dropout: ShareBelowOne = 0.5
    grid: Count | None = None


def build(config: ZFNetConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """ZFNet for square images of ``image_size`` pixels; raises ``ModelError`` for fewer than 47."""
    grid = grid_side("ZFNet", image_size, 15, config.grid)
    backbone = nn.Sequential()
    backbone.add_module("stage1", _Conv(in_channels, 96, 7, stride=2, padding=1))
    backbone.add_module("pool1", _Pool())
    backbone.add_module("norm1", local_response_norm())
    backbone.add_module("stage2", _Conv(96, 256, 5, stride=2, padding=0))
    backbone.add_module("pool2", _Pool())
    backbone.add_module("norm2", local_response_norm())
    backbone.add_module("stage3", nn.Sequential(_Conv(256, 384, 3), _Conv(384, 384, 3), _Conv(384, 256, 3)))
    backbone.add_module("pool3", _Pool())
    feature_info = {2: ("stage1", 96), 4: ("norm1", 96), 8: ("stage2", 256), 16: ("stage3", 256), 32: ("pool3", 256)}
    model = Classifier(backbone, DenseHead(256, grid, num_classes, config.dropout), feature_info)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert module.bias is not None
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    return model


ARCHITECTURES = (
    Architecture(
        name="zfnet",
        task="classify",
        build=build,
        config=ZFNetConfig(),
        input=(3, 224, 224),
        num_classes=1000,
        depth=8,
        reference="Zeiler and Fergus 2013, arXiv 1311.2901, figure 3",
    ),
)
