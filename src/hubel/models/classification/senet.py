"""SE-ResNets and SENet-154 (Hu, Shen, Albanie, Sun, Wu 2018, "Squeeze-and-Excitation Networks", arXiv 1709.01507).

A ResNet in which a squeeze-and-excitation block weighs the maps of each unit before they are added to its shortcut
(figure 3). Table 1, its column SE-ResNet-50; [16, 256] are the outputs of the block's two dense layers:

====== ======= ==========================================================
part   output  SE-ResNet-50
====== ======= ==========================================================
stem   112×112 7×7, 64, stride 2
pool   56×56   3×3 max, stride 2
stage1 56×56   [1×1, 64; 3×3, 64; 1×1, 256; dense [16, 256]] ×3
stage2 28×28   [1×1, 128; 3×3, 128; 1×1, 512; dense [32, 512]] ×4
stage3 14×14   [1×1, 256; 3×3, 256; 1×1, 1024; dense [64, 1024]] ×6
stage4 7×7     [1×1, 512; 3×3, 512; 1×1, 2048; dense [128, 2048]] ×3
head   1×1     average pool, 1000-d dense
====== ======= ==========================================================

SE-ResNet-101 and -152 have ResNet's 3, 4, 23, 3 and 3, 8, 36, 3 units: 28,088,024, 49,326,872 and 66,821,848
parameters. SENet-154 (115,088,984 parameters) is made of ResNeXt-152 with 64 groups of 4 channels; by the paper's
appendix, besides the blocks: the first 1×1 of each unit has half as many channels; three 3×3 convolutions are the
stem (64, 64, 128 channels); projections that halve the size have 3×3 kernels; dropout of 0.2 before the dense
layer. The layers of the blocks do not count in the networks' names.

Where we deviate: SE-ResNets halve the size in the 3×3 convolution, as our ResNets, and the pooling pads both sides;
this is the edition of timm's ``seresnet*`` and ``senet154``. What the authors trained in Caffe (timm's ``legacy_*``)
strides in the first 1×1 (SENet-154: in the 3×3) and pools past the end: ``stride_in="1x1", pool_past_end=True``.
Initialization is He's throughout, with biases of 0.

``se=True`` puts the blocks into the units of any other network that has units (docs/models.md says where, and which
networks go without).
"""

from __future__ import annotations

from typing import Any

from hubel.models.base import Architecture
from hubel.models.classification.resnet import ResNetConfig, build


def _row(name: str, depth: int, depths: tuple[int, int, int, int], table: str, **varied: Any) -> Architecture:
    return Architecture(
        name=name,
        task="classify",
        build=build,
        config=ResNetConfig("bottleneck", depths, se=True, **varied),
        input=(3, 224, 224),
        num_classes=1000,
        depth=depth,
        reference=f"Hu et al. 2018, arXiv 1709.01507, {table}",
    )


ARCHITECTURES = (
    _row("se_resnet50", 50, (3, 4, 6, 3), "table 1"),
    _row("se_resnet101", 101, (3, 4, 23, 3), "table 2"),
    _row("se_resnet152", 152, (3, 8, 36, 3), "table 2"),
    _row(
        "senet154",
        154,
        (3, 8, 36, 3),
        "appendix",
        groups=64,
        group_width=4,
        stem="3x3",
        first_halved=True,
        projection=3,
        dropout=0.2,
    ),
)
