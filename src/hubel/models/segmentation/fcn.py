"""Fully convolutional networks for semantic segmentation.

Long, Shelhamer and Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038, section 4,
and their published networks (fcn.berkeleyvision.org), which the paper's figure 3 stands for. On ``vgg16``:

========= ============================================================ =================================
part      layers                                                       cut out of what is larger
========= ============================================================ =================================
backbone  VGG-16, the image padded by 100 pixels, pooling rounded up
fc6, fc7  its dense layers as convolutions 7×7 and 1×1, 4096, dropout
scores    1×1 of fc7's maps; of pool4 (16s); of pool3 (8s)             from pixel 5 of pool4, 9 of pool3
upscore   transposed convolutions by 2, by 2 (8s), by 8, 16 or 32      from pixel 31 (8s), 27, 19
========= ============================================================ =================================

The padding makes images of any size come out at their own size. Parameters at 21 classes: 136,152,917 (32s),
134,815,994 (16s), 134,489,759 (8s). Score layers begin at zero, upsampling as bilinear interpolation. With
``at_once`` all streams are trained together, as the published "at-once" networks are: pool4 is scaled by 0.01 and
pool3 by 0.0001 before they are scored. ``at_once=False`` is for the staged training of section 4.2, which has no such
factors: 32s, then 16s from it, then 8s. The new score layer begins at zero, so that a network begins with the scores
of the one before. The paper divides the rate of its SGD by 100 from one to the next. A step of AdamW is as long as its
rate, however small the gradients: at a hundredth, a layer that begins at zero would stay there. Both later stages have
a tenth.

On any other classifier: its maps of stride 32, 16 and 8 are scored by 1×1 convolutions, and added after upsampling by
2, as in the paper; scores at the finest stride are interpolated to the pixels. There are no dense layers, and nothing
is padded by 100 pixels: maps are cut to each other's size instead.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.layers.bilinear import BilinearUpsample2d
from hubel.layers.init import initialize
from hubel.models.base import Architecture, Classifier
from hubel.models.config_schema import ShareBelowOne
from hubel.models.segmentation.segmenter import CLASS_LAYERS, Segmenter, require_strides
from hubel.models.stages import Stages

_PAD = 100  # pixels, of the first convolution
_FIRST_CROP = {8: 31, 16: 27, 32: 19}  # of the enlarged scores, by the finest stride
_SKIP_CROPS = {16: 5, 8: 9}
_SCALES = {16: 0.01, 8: 0.0001}


@dataclass(frozen=True)
class FCNConfig:
    """Options of the family.

    Attributes:
        stride: of the finest map that is scored.
        dropout: fraction of the maps dropped before the scores, channel by channel.
        at_once: scale the skips' maps on VGG, so that all streams can be trained together.
    """

    stride: Literal[8, 16, 32]
    dropout: ShareBelowOne = 0.5
    at_once: bool = True


class SkipHead(nn.Module):
    """Scores of each stride's map, added from coarse to fine: raw (N, classes, h, w) at the finest stride.

    Args:
        channels: stride → channels of its map; the strides halve from 32 on.
        layers: between the coarsest map and its scores; gives ``wide`` channels.
        scales: stride → factor of its map.
        grouped: see :class:`~hubel.layers.bilinear.BilinearUpsample2d`.
        last: factor of the upsampling of the result; ``None``: it is left to others.
        crops: stride → pixels that scores of that map are cut by, on the left and above; the last are ``0``'s.
    """

    def __init__(
        self,
        channels: Mapping[int, int],
        num_classes: int,
        layers: nn.Module,
        wide: int,
        scales: Mapping[int, float],
        last: int | None = None,
        crops: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__()
        coarse, *self.skips = sorted(channels, reverse=True)
        self.coarse, self.scales, self.crops, self.last = coarse, dict(scales), crops, last
        exact = crops is not None
        self.layers = layers
        self.classifier = nn.Conv2d(wide, num_classes, 1)
        self.skip_classifiers = nn.ModuleList([nn.Conv2d(channels[stride], num_classes, 1) for stride in self.skips])
        factors = [2] * len(self.skips) + ([last] if last else [])
        enlarge = partial(BilinearUpsample2d, num_classes, grouped=not exact, cropped=not exact)
        self.upsamplings = nn.ModuleList([enlarge(factor) for factor in factors])
        for layer in (self.classifier, *self.skip_classifiers):
            initialize(layer, nn.init.zeros_)

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Raw scores of {stride: map}, before the last crop."""
        scores: Tensor = self.classifier(self.layers(maps[self.coarse]))
        for stride, classifier, upsampling in zip(self.skips, self.skip_classifiers, self.upsamplings, strict=False):
            scale = self.scales.get(stride)
            skip = classifier(maps[stride] if scale is None else maps[stride] * scale)
            scores = upsampling(scores)
            if self.crops is None:
                height, width = skip.shape[2], skip.shape[3]
                scores = scores[:, :, :height, :width] + skip
            else:
                start, (height, width) = self.crops[stride], scores.shape[2:]
                scores = scores + skip[:, :, start : start + height, start : start + width]
        if self.last:
            scores = self.upsamplings[-1](scores)
        return scores


class PaperFCN(Segmenter):
    """On VGG-16: scores are cut to the images."""

    def __init__(self, backbone: nn.Sequential, head: SkipHead, feature_info: Mapping[int, tuple[str, int]]) -> None:
        super().__init__(backbone, head, feature_info)
        assert head.last is not None
        self.start = _FIRST_CROP[head.last]

    def forward(self, images: Tensor) -> Tensor:
        """Raw class scores (N, classes, H, W) of images (N, C, H, W)."""
        padding = _PAD - 1  # the first convolution pads by 1 itself
        scores: Tensor = self.head(self.features(functional.pad(images, (padding,) * 4)))
        height, width, start = images.shape[2], images.shape[3], self.start
        return scores[:, :, start : start + height, start : start + width]


def _dense_as_convolutions(source: Classifier, dropout: float) -> tuple[nn.Module, int]:
    """VGG's fc6 and fc7 as convolutions with ReLU and dropout, and the channels of the result; weights are copied."""
    head = source.head
    first, second = head.fc1, head.fc2
    assert isinstance(first, nn.Linear) and isinstance(second, nn.Linear)
    channels = source.feature_channels[32]
    fc6 = nn.Conv2d(channels, first.out_features, 7)
    fc7 = nn.Conv2d(first.out_features, second.out_features, 1)
    with torch.no_grad():
        for convolution, dense in ((fc6, first), (fc7, second)):
            if convolution.weight.numel() == dense.weight.numel():
                convolution.weight.copy_(dense.weight.view_as(convolution.weight))
                assert convolution.bias is not None
                convolution.bias.copy_(dense.bias)
    layers = OrderedDict(
        fc6=fc6,
        relu6=nn.ReLU(inplace=True),
        drop6=nn.Dropout2d(dropout),
        fc7=fc7,
        relu7=nn.ReLU(inplace=True),
        drop7=nn.Dropout2d(dropout),
    )
    return nn.Sequential(layers), second.out_features


def build_on(config: FCNConfig, num_classes: int, source: Classifier) -> Segmenter:
    """An FCN on a classifier; raises ``ModelError`` if it lacks maps of a stride."""
    scales = _SCALES if config.at_once else {}
    strides = [stride for stride in (32, 16, 8) if stride >= config.stride]
    if hasattr(source.head, "fc1") and "pool5" in dict(source.backbone.named_children()):
        return _on_vgg(config, num_classes, source, strides, scales)
    require_strides(source, strides, f"fcn{config.stride}s")
    channels = {stride: source.feature_channels[stride] for stride in strides}
    layers = nn.Dropout2d(config.dropout)
    # Their maps are normalized, and need no scaling.
    head = SkipHead(channels, num_classes, layers, channels[32], {})
    feature_info = {stride: info for stride, info in source.feature_info.items() if stride <= 32}
    return Segmenter(source.backbone_up_to(32), head, feature_info)


def _on_vgg(
    config: FCNConfig, num_classes: int, source: Classifier, strides: list[int], scales: Mapping[int, float]
) -> Segmenter:
    backbone = source.backbone
    for part in backbone.children():
        if isinstance(part, nn.MaxPool2d):
            part.ceil_mode = True
    widths = source.feature_channels
    feature_info = {32: ("pool5", widths[32]), 16: ("pool4", widths[8]), 8: ("pool3", widths[4])}
    channels = {stride: feature_info[stride][1] for stride in strides}
    layers, wide = _dense_as_convolutions(source, config.dropout)
    head = SkipHead(channels, num_classes, layers, wide, scales, config.stride, _SKIP_CROPS)
    return PaperFCN(backbone, head, feature_info)


def _row(stride: Literal[8, 16, 32], depth: int, section: str, before: tuple[str, ...] = ()) -> Architecture:
    return Architecture(
        f"fcn{stride}s",
        build_on,
        FCNConfig(stride),
        depth=depth,
        reference=f"Long et al. 2015, arXiv 1411.4038, section {section}",
        task="segment",
        input=(3, 480, 480),
        num_classes=21,
        backbone="efficientnet_lite0",
        class_layers=CLASS_LAYERS,
        stages=Stages(before, r"head\.(skip_classifiers|upsamplings)\.", {"at_once": False}) if before else None,
    )


ARCHITECTURES = (
    _row(32, 49, "4.1"),
    _row(16, 50, "4.2", ("fcn32s",)),
    _row(8, 51, "4.2", ("fcn32s", "fcn16s")),
)
