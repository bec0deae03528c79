"""ResNeXt (Xie, Girshick, Dollár, Tu, He 2016, "Aggregated Residual Transformations for Deep Neural Networks",
arXiv 1611.05431).

A ResNet whose units add up many narrow paths. In the form that the paper trains (figure 3c) these are one
bottleneck unit with a grouped 3×3 convolution of C groups of d channels in stage 1, twice as many in each further
stage. Table 1, and what it gives for 101 layers:

====== ======= ================================== ====================================
part   output  50 (32×4d)                         101 (32×8d)
====== ======= ================================== ====================================
stem   112×112 7×7, 64, stride 2
pool   56×56   3×3 max, stride 2
stage1 56×56   [128; 3×3, 128, C=32; 256] ×3      [256; 3×3, 256, C=32; 256] ×3
stage2 28×28   [256; 3×3, 256, C=32; 512] ×4      [512; 3×3, 512, C=32; 512] ×4
stage3 14×14   [512; 3×3, 512, C=32; 1024] ×6     [1024; 3×3, 1024, C=32; 1024] ×23
stage4 7×7     [1024; 3×3, 1024, C=32; 2048] ×3   [2048; 3×3, 2048, C=32; 2048] ×3
head   1×1     average pool, 1000-d dense
====== ======= ================================== ====================================

25,028,904 and 88,791,336 parameters; the paper prints 25.0 million for the first. The size is halved in the 3×3
convolution, as the paper has it (section 4). 32×8d is not in the paper: it is from Mahajan et al. 2018, "Exploring
the Limits of Weakly Supervised Pretraining", arXiv 1805.00932. Initialization is ResNet's.
"""

from __future__ import annotations

from hubel.models.base import Architecture
from hubel.models.classification.resnet import ResNetConfig, build


def _row(depth: int, depths: tuple[int, int, int, int], groups: int, group_width: int, reference: str) -> Architecture:
    return Architecture(
        name=f"resnext{depth}_{groups}x{group_width}d",
        task="classify",
        build=build,
        config=ResNetConfig("bottleneck", depths, groups=groups, group_width=group_width),
        input=(3, 224, 224),
        num_classes=1000,
        depth=depth,
        reference=reference,
    )


ARCHITECTURES = (
    _row(50, (3, 4, 6, 3), 32, 4, "Xie et al. 2016, arXiv 1611.05431, table 1"),
    _row(
        101, (3, 4, 23, 3), 32, 8, "Xie et al. 2016, arXiv 1611.05431; width of Mahajan et al. 2018, arXiv 1805.00932"
    ),
)
