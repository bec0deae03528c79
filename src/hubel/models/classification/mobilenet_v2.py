"""MobileNet-v2 (Sandler, Howard, Zhu, Zhmoginov, Chen 2018, "MobileNetV2: Inverted Residuals and Linear
Bottlenecks", arXiv 1801.04381).

The paper's table 2, for 224 × 224 input; t is the expansion of the units, and the first unit of a stage takes the
stride:

====== =========== = ==== ===== ====== =======
part   operator    t out  units stride output
====== =========== = ==== ===== ====== =======
stem   3×3         – 32   1     2      112×112
stage1 bottleneck  1 16   1     1      112×112
stage2 bottleneck  6 24   2     2      56×56
stage3 bottleneck  6 32   3     2      28×28
stage4 bottleneck  6 64   4     2      14×14
stage5 bottleneck  6 96   3     1      14×14
stage6 bottleneck  6 160  3     2      7×7
stage7 bottleneck  6 320  1     1      7×7
top    1×1         – 1280 1     1      7×7
head   pool, dense – 1000 1     –      1×1
====== =========== = ==== ===== ====== =======

3,504,872 parameters at width 1.

A width multiplier narrows or widens all layers, but the top only widens (section 4). The paper writes the last
layer as a 1×1 convolution of the means, which is the dense layer here.

Error in the paper: its table 4 prints 6.9 million parameters for width 1.4, whose layers have 6.1.

Not specified in the paper: padding (``same=True`` pads as the authors' code and Keras do, the default as torchvision
and timm), the normalization's epsilon (Keras's weights need 1e-3), dropout (0.2, the authors' code's),
initialization (He's by the fan-out; of the dense layer normal with standard deviation 0.01). ``depth`` in the registry
counts convolutions and the dense layer; the paper counts none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU6
from hubel.layers.mbconv import make_divisible
from hubel.models.base import Classifier
from hubel.models.classification import imagenet_classifier
from hubel.models.classification.inverted_residual_network import (
    Stage,
    build_mbconv_backbone,
    depth,
    initialize_convolutions,
    initialize_dense,
    scaled,
    se_channels,
)
from hubel.models.config_schema import Factor, ShareBelowOne

_STAGES = (
    Stage(expansion=1, channels=16, units=1, stride=1),
    Stage(6, 24, 2, 2),
    Stage(6, 32, 3, 2),
    Stage(6, 64, 4, 2),
    Stage(6, 96, 3, 1),
    Stage(6, 160, 3, 2),
    Stage(6, 320, 1, 1),
)


@dataclass(frozen=True)
class MobileNetV2Config:
    """Options of the family.

    Attributes:
        width: factor on the channels; the paper has 0.35 to 1.4.
        dropout: fraction of features dropped before the dense layer.
        norm_eps: epsilon of batch normalization.
        same: pad as TensorFlow's ``SAME`` does.
        se: squeeze and excitation of the filtered maps within each unit, where MobileNet-v3 has it (figure 4 there),
            with the reduction of Hu et al. 2018, arXiv 1709.01507.
        depth: factor on the units of the stages.
    """

    width: Factor = 1.0
    dropout: ShareBelowOne = 0.2
    norm_eps: Factor = 1e-5
    same: bool = False
    se: bool = False
    depth: Factor = 1.0


def build(config: MobileNetV2Config, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """A MobileNet-v2 for any image size: ``image_size`` changes no shape."""
    norm = partial(nn.BatchNorm2d, eps=config.norm_eps)
    model = build_mbconv_backbone(
        scaled(_STAGES, config.width, config.depth),
        stem_channels=make_divisible(32, config.width),
        top_channels=make_divisible(1280, max(1.0, config.width)),
        conv=partial(ConvNormActivation, same=config.same, norm=norm, activation=ReLU6),
        num_classes=num_classes,
        in_channels=in_channels,
        dropout=config.dropout,
        squeeze=se_channels if config.se else None,
    )
    initialize_convolutions(model)
    initialize_dense(model)
    return model


_TABLE = "Sandler et al. 2018, arXiv 1801.04381, table 2"

ARCHITECTURES = (imagenet_classifier("mobilenet_v2", build, MobileNetV2Config(), depth(_STAGES), _TABLE),)
