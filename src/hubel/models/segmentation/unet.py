"""U-Net on any classifier.

Ronneberger, Fischer, Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", arXiv 1505.04597,
section 2: from the coarsest map upwards, maps are enlarged by 2, joined with the backbone's map of that stride, and two
3×3 convolutions with ReLU follow; a step has half the channels of the one before: 256, 128, 64, 32.

Deviations: the contracting path is a classifier, whose weights may be pretrained; its last map is that of stride 32,
and the finest that is read that of stride 2, whose scores are interpolated to the pixels. Convolutions are padded, so
that nothing of the image is lost, and normalized; maps are enlarged by interpolation, not by transposed convolutions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.init import he_fan_out, initialize
from hubel.models.base import Architecture, Classifier
from hubel.models.config_schema import Count
from hubel.models.segmentation.segmenter import CLASS_LAYERS, Segmenter, require_strides, upsampled


@dataclass(frozen=True)
class UNetConfig:
    """Options of the family: channels of each step of the expanding path, coarse to fine; each halves the stride."""

    widths: tuple[Count, ...] = (256, 128, 64, 32)


class ExpandingPath(nn.Module):
    """Scores (N, classes, h, w) at the stride of the last step."""

    def __init__(self, config: UNetConfig, channels: Mapping[int, int], num_classes: int) -> None:
        super().__init__()
        self.strides = sorted(channels, reverse=True)
        self.steps = nn.ModuleList()
        before = channels[self.strides[0]]
        for stride, width in zip(self.strides[1:], config.widths, strict=True):
            first = ConvNormActivation(before + channels[stride], width, 3)
            self.steps.append(nn.Sequential(first, ConvNormActivation(width, width, 3)))
            before = width
        self.classifier = nn.Conv2d(before, num_classes, 1)

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Raw class scores of {stride: map}."""
        signal = maps[self.strides[0]]
        for stride, step in zip(self.strides[1:], self.steps, strict=True):
            skip = maps[stride]
            enlarged = upsampled(signal, (skip.shape[2], skip.shape[3])).to(skip.dtype)
            signal = step(torch.cat((enlarged, skip), 1))
        scores: Tensor = self.classifier(signal)
        return scores


def build_on(config: UNetConfig, num_classes: int, source: Classifier) -> Segmenter:
    """A U-Net on a classifier; raises ``ModelError`` if it lacks maps of a stride."""
    strides = [32 >> step for step in range(len(config.widths) + 1)]
    require_strides(source, strides, "unet")
    info = {stride: source.feature_info[stride] for stride in sorted(strides)}
    head = ExpandingPath(config, {stride: channels for stride, (_, channels) in info.items()}, num_classes)
    initialize(head, he_fan_out)
    return Segmenter(source.backbone_up_to(32), head, info)


ARCHITECTURES = (
    Architecture(
        "unet",
        build_on,
        UNetConfig(),
        depth=57,
        reference="Ronneberger et al. 2015, arXiv 1505.04597",
        task="segment",
        input=(3, 480, 480),
        num_classes=21,
        backbone="efficientnet_lite0",
        class_layers=CLASS_LAYERS,
    ),
)
