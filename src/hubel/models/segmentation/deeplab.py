"""DeepLabv3+ on any classifier.

Chen, Zhu, Papandreou, Schroff, Adam 2018, "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
Segmentation", arXiv 1802.02611. For an input of 320 × 320:

========== ======== ================================================================================
part       output
========== ======== ================================================================================
backbone   20×20    its last stages without strides and with holes instead ("output stride" 16)
pyramid    20×20    1×1 and 3×3 of rates 3, 6, 9, 128 channels each, then 1×1 on all
skips      40×40    interpolated; beside it the backbone's map of stride 8, reduced to 48 channels; 3×3
           80×80    the same with the map of stride 4; two 3×3
classifier 80×80    1×1, interpolated to the image's size
========== ======== ================================================================================

All 3×3 convolutions are separable, as section 3.1 has them.

Deviations: the decoder reads two maps of the backbone, as Panoptic-DeepLab's does (Cheng et al. 2020, arXiv
1911.10194, figure 2), and has 128 channels, since it stands on a light backbone and 256 would cost more than that. The
paper's decoder is ``skips=(4,), decoder_channels=256``. The paper's rates, 6, 12 and 18, are for crops of 513 pixels.
In crops of 320, most taps of rate 18 lie beside the map, in whole images they do not, so that the statistics of
normalization are not theirs. The pyramid has no mean of the whole image (``image_pooling=True`` is the paper's): it
would be normalized over a value of each image, and differ from crops and tiles to the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.layers.aspp import AtrousSpatialPyramid, atrous_separable_conv, dilate
from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.init import he_fan_out, initialize
from hubel.models.base import Architecture, Classifier
from hubel.models.config_schema import Count, ShareBelowOne
from hubel.models.segmentation.segmenter import CLASS_LAYERS, Segmenter, require_strides


@dataclass(frozen=True)
class DeepLabConfig:
    """Options of the family.

    Attributes:
        output_stride: of the map that the pyramid reads.
        rates: of the pyramid's convolutions, for a stride of 16; at 8 they are doubled, at 32 halved.
        skips: strides of the backbone's maps that the decoder reads, falling.
        decoder_channels: of the pyramid and the decoder.
        image_pooling: with the mean of the image as a branch of the pyramid.
        skip_channels: to which each of the backbone's maps is reduced.
    """

    output_stride: Literal[8, 16, 32] = 16
    rates: tuple[Count, ...] = (3, 6, 9)
    skips: tuple[Literal[2, 4, 8], ...] = (8, 4)
    decoder_channels: Count = 128
    skip_channels: Count = 48
    image_pooling: bool = False
    dropout: ShareBelowOne = 0.1


class DecoderHead(nn.Module):
    """The pyramid, the decoder and the classifier: scores (N, classes, h, w) at the last of the skips' strides."""

    def __init__(self, config: DeepLabConfig, channels: Mapping[int, int], num_classes: int) -> None:
        super().__init__()
        wide, narrow = config.decoder_channels, config.skip_channels
        self.stride = max(channels)
        self.skips = config.skips
        rates = [max(1, rate * 16 // self.stride) for rate in config.rates]
        conv = atrous_separable_conv
        self.pyramid = AtrousSpatialPyramid(
            channels[self.stride], wide, rates, conv, config.dropout, config.image_pooling
        )
        self.reduce = nn.ModuleList([ConvNormActivation(channels[stride], narrow, 1) for stride in self.skips])
        self.decode = nn.ModuleList([conv(wide + narrow, wide) for _ in self.skips])
        self.refine = conv(wide, wide)
        self.classifier = nn.Conv2d(wide, num_classes, 1)

    def forward(self, maps: Mapping[int, Tensor]) -> Tensor:
        """Raw class scores (N, classes, h, w) of {stride: map}."""
        signal = self.pyramid(maps[self.stride])
        for stride, reduce, decode in zip(self.skips, self.reduce, self.decode, strict=True):
            skip = maps[stride]
            size = (skip.shape[2], skip.shape[3])
            signal = functional.interpolate(signal, size, mode="bilinear", align_corners=False)
            signal = decode(torch.cat((signal, reduce(skip)), 1))
        scores: Tensor = self.classifier(self.refine(signal))
        return scores


def dilated_backbone(
    source: Classifier, output_stride: int, strides: Sequence[int], first_unit_too: bool = False
) -> tuple[nn.Sequential, dict[int, tuple[str, int]]]:
    """A classifier up to its map of stride 32, which comes out at ``output_stride``, and where its maps are.

    Of the maps of other ``strides`` those below the output stride are kept. Raises ``ModelError`` if the classifier
    halves its maps otherwise than by convolutions.
    """
    backbone = source.backbone_up_to(32)
    if output_stride < 32:
        names = [name for name, _ in backbone.named_children()]
        first = names.index(source.feature_info[output_stride][0]) + 1
        dilate(list(backbone.children())[first:], first_unit_too)
    info = {stride: source.feature_info[stride] for stride in sorted(strides) if stride < output_stride}
    return backbone, {**info, output_stride: source.feature_info[32]}


def build_on(config: DeepLabConfig, num_classes: int, source: Classifier) -> Segmenter:
    """DeepLabv3+ on a classifier; raises ``ModelError`` if it lacks maps of a stride."""
    require_strides(source, [*config.skips, config.output_stride, 32], "deeplabv3plus")
    backbone, feature_info = dilated_backbone(source, config.output_stride, config.skips)
    channels = {stride: width for stride, (_, width) in feature_info.items()}
    head = DecoderHead(config, channels, num_classes)
    initialize(head, he_fan_out)
    # By what it reads, not by its few classes; with weights near zero, rare classes are not found in a thousand steps.
    nn.init.kaiming_normal_(head.classifier.weight)
    return Segmenter(backbone, head, feature_info)


ARCHITECTURES = (
    Architecture(
        "deeplabv3plus",
        build_on,
        DeepLabConfig(),
        depth=58,
        reference="Chen et al. 2018, arXiv 1802.02611",
        task="segment",
        input=(3, 480, 480),
        num_classes=21,
        backbone="efficientnet_lite0",
        class_layers=CLASS_LAYERS,
    ),
)
