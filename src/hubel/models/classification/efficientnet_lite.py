"""EfficientNet-Lite (Google 2020; the architecture of Tan and Le 2019, arXiv 1905.11946, made fit for
phones).

Source: the tensorflow/tpu repository, ``models/official/efficientnet/lite``, and the TensorFlow blog of March
2020. Against EfficientNet: no squeeze-and-excitation, ReLU6 in place of swish, and stem, top and the numbers
of units of the first and last stage are not scaled. Table 1 of the paper, with the Lite edition's numbers for
lite0:

====== ============ ====== ====== ======== ===== ==============
part   operator     kernel stride channels units output at 224
====== ============ ====== ====== ======== ===== ==============
stem   convolution  3      2      32       1     112×112
stage1 MBConv1      3      1      16       1     112×112
stage2 MBConv6      3      2      24       2     56×56
stage3 MBConv6      5      2      40       2     28×28
stage4 MBConv6      3      2      80       3     14×14
stage5 MBConv6      5      1      112      3     14×14
stage6 MBConv6      5      2      192      4     7×7
stage7 MBConv6      3      1      320      1     7×7
top    convolution  1      1      1280     1     7×7
====== ============ ====== ====== ======== ===== ==============

====== ===== ===== ========== ======= ===========
name   width depth input      dropout parameters
====== ===== ===== ========== ======= ===========
lite0  1.0   1.0   224×224    0.2     4,652,008
lite1  1.0   1.1   240×240    0.2     5,416,680
lite2  1.1   1.2   260×260    0.3     6,092,072
lite3  1.2   1.4   280×280    0.3     8,197,096
lite4  1.4   1.8   300×300    0.3     13,006,568
====== ===== ===== ========== ======= ===========

All convolutions pad as TensorFlow's ``SAME``; batch normalization has epsilon 1e-3 and momentum 0.01
(TensorFlow says 0.99).

Where we deviate: no stochastic depth while training by default; ``stochastic_depth=0.2`` is the authors' code's.
``depth`` in the registry counts convolutions and the dense layer; the paper counts none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU6
from hubel.models.base import Architecture, Classifier
from hubel.models.classification.efficientnet import STAGES, STEM_CHANNELS, TOP_CHANNELS, initialize
from hubel.models.classification.inverted_residual_network import Stage, assemble, depth, scaled, se_channels
from hubel.models.config_schema import Factor, ShareBelowOne

_BatchNorm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
_Conv = partial(ConvNormActivation, same=True, norm=_BatchNorm, activation=ReLU6)


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """What varies within the family.

    Attributes:
        width: factor on the channels of the stages.
        depth: factor on the units of the stages except the first and last.
        dropout: share of features dropped before the dense layer, 0..1.
        stochastic_depth: share of images for which the last units are passed by while training, 0..1.
        se: squeeze and excitation of the filtered maps within each unit, where EfficientNet has it, with the reduction
            of Hu et al. 2018, arXiv 1709.01507.
    """

    width: Factor
    depth: Factor
    dropout: ShareBelowOne
    stochastic_depth: ShareBelowOne = 0.0
    se: bool = False


def _stages(width: float, depth_factor: float) -> list[Stage]:
    """All channels scaled, the units of the first and last stage not."""
    first, *others, last = STAGES
    return [*scaled([first], width, 1), *scaled(others, width, depth_factor), *scaled([last], width, 1)]


def build(config: EfficientNetLiteConfig, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """An EfficientNet-Lite of any image size: ``image_size`` changes no shape."""
    model = assemble(
        _stages(config.width, config.depth),
        STEM_CHANNELS,
        TOP_CHANNELS,
        _Conv,
        num_classes,
        in_channels,
        config.dropout,
        squeeze=se_channels if config.se else None,
        stochastic_depth=config.stochastic_depth,
    )
    initialize(model)
    return model


def _row(number: int, width: float, depth_factor: float, image_size: int, dropout: float) -> Architecture:
    return Architecture(
        name=f"efficientnet_lite{number}",
        task="classify",
        build=build,
        config=EfficientNetLiteConfig(width, depth_factor, dropout),
        input=(3, image_size, image_size),
        num_classes=1000,
        depth=depth(_stages(width, depth_factor)),
        reference="tensorflow/tpu, models/official/efficientnet/lite; Tan and Le 2019, arXiv 1905.11946",
    )


ARCHITECTURES = (
    _row(0, 1.0, 1.0, 224, 0.2),
    _row(1, 1.0, 1.1, 240, 0.2),
    _row(2, 1.1, 1.2, 260, 0.3),
    _row(3, 1.2, 1.4, 280, 0.3),
    _row(4, 1.4, 1.8, 300, 0.3),
)
