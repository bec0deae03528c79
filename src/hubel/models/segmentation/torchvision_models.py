"""The networks for segmentation whose weights torchvision publishes, trained on COCO with Pascal VOC's 21 classes.

``deeplabv3_resnet50``: Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv
1706.05587: ResNet-50 whose last two stages have holes in place of strides (maps of stride 8), a pyramid of rates 12,
24, 36, a 3×3 convolution, scores.

``fcn_resnet50``: the same backbone, a 3×3 convolution of a quarter of the channels, scores. The name is torchvision's:
of Long et al. it has the convolutions, and none of the skips (``fcn8s`` has).

``lraspp_mobilenet_v3_large``: Howard et al. 2019, "Searching for MobileNetV3", arXiv 1905.02244, section 6.4 and figure
10: MobileNet-v3 with its last stage at stride 16; its maps, weighted by a gate of the image's means, are scored, and so
is a map of stride 8. torchvision's edition pools the whole image for the gate, where the paper has 49×49 windows.

The first two have an auxiliary head on the third stage, which training adds with half the weight.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from hubel.layers.aspp import AtrousSpatialPyramid, dilate
from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.models.base import Architecture, Classifier
from hubel.models.classification import mobilenet_v3, resnet
from hubel.models.config_schema import Count, ShareBelowOne
from hubel.models.segmentation.deeplab import dilated_backbone
from hubel.models.segmentation.segmenter import CLASS_LAYERS, Segmenter, upsampled

_AUXILIARY_WEIGHT = 0.5


@dataclass(frozen=True)
class ResNetSegmenterConfig:
    """Options of both networks on ResNet-50.

    Attributes:
        rates: of the pyramid's convolutions.
        pyramid: put the pyramid before the scores.
        auxiliary: train a second head on stage 3.
        dropout: before the scores of the heads without a pyramid.
    """

    pyramid: bool
    rates: tuple[Count, ...] = (12, 24, 36)
    auxiliary: bool = True
    dropout: ShareBelowOne = 0.1


class PlainHead(nn.Module):
    """3×3 convolution, normalization, ReLU, dropout, scores of maps (N, C, h, w); of a pyramid the map of stride 8."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        narrow = in_channels // 4
        self.refine = ConvNormActivation(in_channels, narrow, 3)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(narrow, num_classes, 1)

    def forward(self, maps: Tensor | Mapping[int, Tensor]) -> Tensor:
        """Raw class scores (N, classes, h, w)."""
        signal = maps if isinstance(maps, Tensor) else maps[8]
        scores: Tensor = self.classifier(self.dropout(self.refine(signal)))
        return scores


class PyramidHead(nn.Module):
    """Pyramid, 3×3 convolution, scores."""

    def __init__(self, in_channels: int, num_classes: int, rates: tuple[int, ...]) -> None:
        super().__init__()
        self.pyramid = AtrousSpatialPyramid(in_channels, 256, rates)
        self.refine = ConvNormActivation(256, 256, 3)
        self.classifier = nn.Conv2d(256, num_classes, 1)

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Raw class scores (N, classes, h, w)."""
        scores: Tensor = self.classifier(self.refine(self.pyramid(maps[8])))
        return scores


def build_resnet(config: ResNetSegmenterConfig, num_classes: int, in_channels: int, image_size: int) -> Segmenter:
    """A network on ResNet-50, for any image size."""
    row = next(row for row in resnet.ARCHITECTURES if row.name == "resnet50")
    source = row.build(row.config, 1, in_channels, image_size)
    assert isinstance(source, Classifier)
    backbone, feature_info = dilated_backbone(source, 8, ())
    channels = feature_info[8][1]
    head: nn.Module = PlainHead(channels, num_classes, config.dropout)
    if config.pyramid:
        head = PyramidHead(channels, num_classes, config.rates)
    extra = {"stage3": PlainHead(channels // 2, num_classes, config.dropout)} if config.auxiliary else None
    return Segmenter(backbone, head, feature_info, extra, _AUXILIARY_WEIGHT)


@dataclass(frozen=True)
class LRASPPConfig:
    """Options of the family: channels of the branches between the backbone and the scores."""

    branch_channels: Count = 128


class LRASPPHead(nn.Module):
    """Scores (N, classes, h, w) at stride 8: of the coarse map, times a gate of its means, plus of the fine one."""

    def __init__(self, low: int, high: int, branch: int, num_classes: int) -> None:
        super().__init__()
        self.branch = ConvNormActivation(high, branch, 1)
        self.gate = nn.Conv2d(high, branch, 1, bias=False)
        self.classifier = nn.Conv2d(branch, num_classes, 1)
        self.skip_classifiers = nn.ModuleList([nn.Conv2d(low, num_classes, 1)])

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Raw class scores of {8: map, 16: map}."""
        low, high = maps[8], maps[16]
        gate = torch.sigmoid(self.gate(high.mean((2, 3), keepdim=True)))
        # The 1×1 convolution could come before the interpolation, in a quarter of the time; its rounding would differ.
        coarse = upsampled(self.branch(high) * gate, (low.shape[2], low.shape[3])).to(low.dtype)
        scores: Tensor = self.classifier(coarse) + self.skip_classifiers[0](low)
        return scores


def build_lraspp(config: LRASPPConfig, num_classes: int, in_channels: int, image_size: int) -> Segmenter:
    """LR-ASPP on MobileNet-v3 (large), for any image size."""
    row = next(row for row in mobilenet_v3.ARCHITECTURES if row.name == "mobilenet_v3_large")
    source = row.build(row.config, 1, in_channels, image_size)
    assert isinstance(source, Classifier)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for name, part in source.backbone.named_children():
        if name == "stage3":  # the map of stride 8 is that of its first unit
            first, *others = part.children()
            parts[name], part = nn.Sequential(first), nn.Sequential(*others)
            name = "stage3_rest"
        parts[name] = part
    dilate([parts["stage6"]], first_unit_too=True)
    (_, low), (_, high) = source.feature_info[8], source.feature_info[32]
    head = LRASPPHead(low, high, config.branch_channels, num_classes)
    return Segmenter(nn.Sequential(parts), head, {8: ("stage3", low), 16: ("top", high)})


_row = partial(Architecture, task="segment", input=(3, 520, 520), num_classes=21, class_layers=CLASS_LAYERS)
_CHEN, _HOWARD = "Chen et al. 2017, arXiv 1706.05587", "Howard et al. 2019, arXiv 1905.02244, section 6.4"
_LONG = "torchvision; Long et al. 2015, arXiv 1411.4038"

ARCHITECTURES = (
    _row("fcn_resnet50", build_resnet, ResNetSegmenterConfig(pyramid=False), 51, _LONG),
    _row("deeplabv3_resnet50", build_resnet, ResNetSegmenterConfig(pyramid=True), 53, _CHEN),
    _row("lraspp_mobilenet_v3_large", build_lraspp, LRASPPConfig(), 48, _HOWARD),
)
