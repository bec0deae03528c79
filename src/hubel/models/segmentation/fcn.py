"""Fully convolutional networks for semantic segmentation.

Long, Shelhamer and Darrell 2015, "Fully Convolutional Networks for Semantic Segmentation", arXiv 1411.4038, section 4.

``fcn32s`` stands on any classifier: its map of stride 32, a 1×1 convolution that scores the classes (started at zero),
and one upsampling by 32 with bilinear weights. The paper's own network reads VGG-16's dense layers as convolutions
before; here the last map of the backbone is scored, whatever the backbone.

Deviations: images are not padded by 100 pixels and the scores cropped, as the authors' published nets do to fit any
size; the upsampled scores are aligned with the centres of the pixels that they stand for instead. The bilinear weights
are fixed, as the paper's final layer is.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from hubel.errors import ModelError
from hubel.layers.init import initialize
from hubel.models.base import Architecture, Classifier, Model
from hubel.models.config_schema import ShareBelowOne

IGNORE_INDEX = 255
"""Class of pixels that do not count."""


@dataclass(frozen=True)
class FCNConfig:
    """Options of the family: the fraction of the backbone's maps dropped before the scores, channel by channel."""

    dropout: ShareBelowOne = 0.5


@dataclass(frozen=True)
class SegmentationTargets:
    """Class maps of a batch: int64 (N, H, W), classes from 0 or :data:`IGNORE_INDEX`."""

    class_maps: Tensor

    @property
    def weight(self) -> float:
        """The pixels that count."""
        return float((self.class_maps != IGNORE_INDEX).sum())


class ScoreHead(nn.Sequential):
    """Raw class scores (N, classes, H, W) at every cell of maps (N, C, H, W)."""

    def __init__(self, in_channels: int, num_classes: int, dropout: float) -> None:
        classifier = nn.Conv2d(in_channels, num_classes, 1)
        initialize(classifier, nn.init.zeros_)
        super().__init__(OrderedDict(dropout=nn.Dropout2d(dropout), classifier=classifier))


class FCN32s(Model):
    """A backbone and scores at stride 32; targets are :class:`SegmentationTargets`."""

    prediction_names = ("class_map",)
    loss_weights: Mapping[str, float] = {"class": 1.0}

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        """The best class of every pixel of the input, int32 (N, H, W)."""
        return {"class_map": _upsampled(outputs, size).argmax(1).int()}

    def losses(self, outputs: Tensor, targets: SegmentationTargets) -> dict[str, Tensor]:
        """Cross-entropy, mean over the pixels that count (section 4.3; the paper sums)."""
        scores = _upsampled(outputs, (targets.class_maps.shape[1], targets.class_maps.shape[2]))
        total = functional.cross_entropy(scores, targets.class_maps, ignore_index=IGNORE_INDEX, reduction="sum")
        return {"class": self.loss_weights["class"] * total / max(1.0, targets.weight)}

    def training_metrics(self, outputs: Tensor, targets: SegmentationTargets) -> dict[str, float]:
        """Pixel accuracy of each image, summed."""
        class_maps = targets.class_maps
        best = _upsampled(outputs.detach(), (class_maps.shape[1], class_maps.shape[2])).argmax(1)
        counted = (class_maps != IGNORE_INDEX).sum((1, 2)).clamp(min=1)
        return {"pixel_accuracy": float(((best == class_maps).sum((1, 2)) / counted).sum())}


def _upsampled(scores: Tensor, size: tuple[int, int]) -> Tensor:
    """Scores (N, classes, h, w) at every pixel: what a transposed convolution with bilinear weights gives."""
    return functional.interpolate(scores.float(), size, mode="bilinear", align_corners=False)


def build_on(config: FCNConfig, num_classes: int, source: Classifier) -> FCN32s:
    """FCN-32s on a classifier, up to its map of stride 32; raises ``ModelError`` if it has none."""
    if 32 not in source.feature_info:
        has = ", ".join(map(str, source.feature_info))
        raise ModelError(f"fcn32s needs a map of stride 32; the backbone has {has}", "choose another backbone")
    head = ScoreHead(source.feature_channels[32], num_classes, config.dropout)
    feature_info = {stride: info for stride, info in source.feature_info.items() if stride <= 32}
    return FCN32s(source.backbone_up_to(32), head, feature_info)


ARCHITECTURES = (
    Architecture(
        "fcn32s",
        build_on,
        FCNConfig(),
        depth=51,
        reference="Long et al. 2015, arXiv 1411.4038, section 4.2",
        task="segment",
        input=(3, 320, 320),
        num_classes=21,
        backbone="efficientnet_lite0",
    ),
)
