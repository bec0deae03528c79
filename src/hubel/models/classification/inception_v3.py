"""Inception-v3 (Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, "Rethinking the Inception Architecture for Computer
Vision", arXiv 1512.00567).

The paper's table 1 as its authors' code has it, for 299 × 299 input. Batch normalization and ReLU follow every
convolution. What is not marked "padded" adds no pixels; in the modules, what has stride 1 is padded.

====== ================================================================== ===========
part   layers                                                             output
====== ================================================================== ===========
stem   3×3, 32, stride 2                                                  149×149×32
..     3×3, 32; 3×3, 64, padded                                           147×147×64
pool   3×3 max, stride 2                                                  73×73×64
stage1 1×1, 80; 3×3, 192                                                  71×71×192
stage2 3×3 max, stride 2; 3 modules A (figure 5)                          35×35×288
stage3 reduction (figure 10); 4 modules B (figure 6, n = 7)               17×17×768
stage4 reduction; 2 modules C (figure 7)                                  8×8×2048
head   average pool, dropout, 1000-d dense
====== ================================================================== ===========

23,834,568 parameters, and 3,326,696 in the auxiliary classifier on stage3 (figure 8).

Where the authors' code (tensorflow/models, ``research/inception`` and ``research/slim``), to which all published
weights belong and which we follow, deviates from the paper: table 1 has three 3×3 convolutions (80; 192 with stride
2; 288) where the code has stage1 and a pooling; it counts five modules at 17×17; figure 5 has a 3×3 in the branch
where the code has a 5×5. The code also settles what the paper leaves open: numbers of channels, dropout of 0.2,
epsilon 1e-3 in batch normalization, the weight 0.4 of the auxiliary classifier's loss, and weights that start from
normal distributions cut off at two standard deviations: 0.1, but 0.01 for the dense layer, and in the auxiliary
classifier 0.01 for the 5×5 and 0.001 for the dense layer.

Deviations from the code: running statistics take in a tenth of each batch's, as is usual in torch, not 0.0003.
The auxiliary classifier also works for images that leave less than 17×17. ``depth`` in the registry is the longest
path; the paper says 42 without saying how it counts.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.inception import Concat
from hubel.layers.init import truncated_normal_
from hubel.layers.squeeze_excitation import with_se
from hubel.models.base import Architecture, ClassificationHead, Classifier
from hubel.models.config_schema import ShareBelowOne

# Every convolution of the Inception networks of 2015 and 2016.
Conv = partial(ConvNormActivation, norm=partial(nn.BatchNorm2d, eps=1e-3))

# Channels, kernel, and where there is no padding the stride of a convolution.
Step = tuple[int, int | tuple[int, int]] | tuple[int, int | tuple[int, int], int]


@dataclass(frozen=True)
class InceptionV3Config:
    """Options of the family.

    Attributes:
        count_padding: average pooling in the modules divides by 9 at the border too, where padding is part of the
            window, as torchvision and timm do; the authors' code and Keras divide by the pixels there are.
        se: squeeze and excitation after each module (Hu et al. 2018, arXiv 1709.01507, figure 2).
    """

    auxiliary: bool = True
    dropout: ShareBelowOne = 0.2
    count_padding: bool = False
    se: bool = False


def branch(in_channels: int, *steps: Step) -> nn.Sequential:
    """Convolutions one after the other; those whose stride is given are not padded, the others keep the size."""
    convolutions = nn.Sequential()
    for channels, kernel, *stride in steps:
        padding = 0 if stride else None
        convolutions.append(Conv(in_channels, channels, kernel, stride[0] if stride else 1, padding))
        in_channels = channels
    return convolutions


def pooled(in_channels: int, channels: int, count_padding: bool = False) -> nn.Sequential:
    """The branch that averages over 3×3 pixels before a 1×1 convolution."""
    pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=count_padding)
    return nn.Sequential(pool, Conv(in_channels, channels, 1))


def forked(in_channels: int, channels: int) -> Concat:
    """A 1×3 and a 3×1 convolution side by side, which end a branch where maps are 8×8 (figure 7)."""
    return Concat(Conv(in_channels, channels, (1, 3)), Conv(in_channels, channels, (3, 1)))


def module_a(in_channels: int, pool_channels: int, count_padding: bool = False, first: int = 64) -> Concat:
    """The module of figure 5, which Inception-ResNet-v2 has with other numbers of channels."""
    return Concat(
        branch(in_channels, (first, 1)),
        branch(in_channels, (48, 1), (64, 5)),
        branch(in_channels, (64, 1), (96, 3), (96, 3)),
        pooled(in_channels, pool_channels, count_padding),
    )


def _module_b(width: int, count_padding: bool) -> Concat:
    """``width`` is that of the layers before the last of a branch."""
    return Concat(
        branch(768, (192, 1)),
        branch(768, (width, 1), (width, (1, 7)), (192, (7, 1))),
        branch(768, (width, 1), (width, (7, 1)), (width, (1, 7)), (width, (7, 1)), (192, (1, 7))),
        pooled(768, 192, count_padding),
    )


def _module_c(in_channels: int, count_padding: bool) -> Concat:
    return Concat(
        branch(in_channels, (320, 1)),
        branch(in_channels, (384, 1)).append(forked(384, 384)),
        branch(in_channels, (448, 1), (384, 3)).append(forked(384, 384)),
        pooled(in_channels, 192, count_padding),
    )


def reduction_a(in_channels: int, k: int, l: int, m: int, n: int) -> Concat:  # noqa: E741
    """Figure 10, and Inception-v4's figure 7 with the letters of its table 1."""
    return Concat(
        branch(in_channels, (n, 3, 2)),
        branch(in_channels, (k, 1), (l, 3), (m, 3, 2)),
        nn.MaxPool2d(3, stride=2),
    )


def _reduction_b() -> Concat:
    return Concat(
        branch(768, (192, 1), (320, 3, 2)),
        branch(768, (192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)),
        nn.MaxPool2d(3, stride=2),
    )


class AuxiliaryHead(nn.Module):
    """The classifier on the last 17×17 maps: average pool to 5×5, 1×1, 5×5, dense (figure 8)."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.reduce = Conv(in_channels, 128, 1)
        self.conv = Conv(128, 768, 5, padding=0)
        self.classifier = nn.Linear(768, num_classes)

    def forward(self, maps: Tensor) -> Tensor:
        """Raw class scores (N, classes) of feature maps (N, C, H, W)."""
        # Below 17×17 that would leave the 5×5 convolution too little.
        large_enough = min(maps.shape[2:]) >= 17
        maps = F.avg_pool2d(maps, 5, stride=3) if large_enough else F.adaptive_avg_pool2d(maps, 5)
        scores: Tensor = self.classifier(self.conv(self.reduce(maps)).mean((2, 3)))
        return scores


def stem(in_channels: int) -> nn.Sequential:
    """The first three convolutions of all Inception networks since this one."""
    return branch(in_channels, (32, 3, 2), (32, 3, 1), (64, 3))


def entry(in_channels: int) -> nn.Sequential:
    """The parts stem, pool and stage1, which Inception-ResNet-v2 shares."""
    first, pool = stem(in_channels), nn.MaxPool2d(3, stride=2)
    return nn.Sequential(OrderedDict(stem=first, pool=pool, stage1=branch(64, (80, 1), (192, 3, 1))))


def stage(reduce: nn.Module, *units: nn.Module) -> nn.Sequential:
    """A part of the backbone: what halves the size, and the modules after it."""
    return nn.Sequential(OrderedDict(reduce=reduce, units=nn.Sequential(*units)))


def _initialize(model: Classifier) -> None:
    """As in the authors' code."""
    special = {"head.classifier": 0.01, "auxiliary.stage3.conv.conv": 0.01, "auxiliary.stage3.classifier": 0.001}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            truncated_normal_(module.weight, special.get(name, 0.1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def build(config: InceptionV3Config, num_classes: int, in_channels: int, image_size: int) -> Classifier:
    """An Inception-v3 for any image size from 75 pixels: ``image_size`` changes no shape."""
    counted, excite = config.count_padding, partial(with_se, se=config.se)
    backbone = entry(in_channels)
    rows = ((192, 32, 256), (256, 64, 288), (288, 64, 288))
    units = [excite(module_a(before, pool, counted), channels) for before, pool, channels in rows]
    backbone.add_module("stage2", stage(nn.MaxPool2d(3, stride=2), *units))
    units = [excite(_module_b(width, counted), 768) for width in (128, 160, 160, 192)]
    backbone.add_module("stage3", stage(excite(reduction_a(288, 64, 96, 96, 384), 768), *units))
    units = [excite(_module_c(before, counted), 2048) for before in (1280, 2048)]
    backbone.add_module("stage4", stage(excite(_reduction_b(), 1280), *units))
    feature_info = {2: ("stem", 64), 4: ("stage1", 192), 8: ("stage2", 288), 16: ("stage3", 768), 32: ("stage4", 2048)}
    auxiliary = {"stage3": AuxiliaryHead(768, num_classes)} if config.auxiliary else {}
    head = ClassificationHead(2048, num_classes, config.dropout)
    model = Classifier(backbone, head, feature_info, auxiliary, auxiliary_weight=0.4)
    _initialize(model)
    return model


_SZEGEDY = "Szegedy et al. 2015, arXiv 1512.00567, table 1"

ARCHITECTURES = (Architecture("inception_v3", build, InceptionV3Config(), 48, _SZEGEDY, input=(3, 299, 299)),)
