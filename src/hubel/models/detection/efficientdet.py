"""EfficientDet (Tan, Pang and Le 2020, "EfficientDet: Scalable and Efficient Object Detection", arXiv 1911.09070).

A backbone's maps of stride 8, 16 and 32 (P3 to P5), two coarser ones (P6, P7), all fused by layers of BiFPN
(:mod:`hubel.layers.bifpn`), and two heads that all levels share, for classes and boxes. Compound scaling (section 4.2)
takes one coefficient φ for all: BiFPN has 64 · 1.35^φ channels (rounded, equation 1) and 3 + φ layers, the heads
3 + ⌊φ / 3⌋ (equation 2), images 512 + 128 φ pixels (equation 3). What it comes to, table 1:

==== ========== ======== ======== ====== ===== ====== ===========================
name input      backbone channels layers heads anchor parameters (paper's table 2)
==== ========== ======== ======== ====== ===== ====== ===========================
d0   512×512    b0       64       3      3     4      3.9 million
d1   640×640    b1       88       4      3     4      6.6
d2   768×768    b2       112      5      3     4      8.1
d3   896×896    b3       160      6      4     4      12
d4   1024×1024  b4       224      7      4     4      21
d5   1280×1280  b5       288      7      4     4      34
d6   1280×1280  b6       384      8      5     4      52
d7   1536×1536  b6       384      8      5     5      52
==== ========== ======== ======== ====== ===== ====== ===========================

Each layer of a head is a separable 3×3 convolution, a normalization and SiLU; the convolutions are shared by all
levels, the normalizations are each level's own. Nine anchors a cell, three sizes by the shapes 1:1, 2:1 and 1:2, from
``anchor`` times the stride. D6 and D7 sum maps without weights; D7 is D6 for larger images with larger anchors.

The loss: focal loss with α 0.25 and γ 1.5 (section 5.1) over all anchors and classes, and 50 times the Huber loss of
the offsets of the anchors with an object, with δ 0.1. An anchor answers for the object that it overlaps most, from an
IoU of 0.5, and each object has its best anchor; all others are background. Sums over the batch are divided by one more
than the number of anchors with an object (the boxes' by four times that).

Not in the paper, as in the authors' published code (google/automl): the loss of the boxes with its weight and δ, the
one in the divisor, the sizes of anchors (D7's 5 too), ``SAME`` padding, and that D6 and D7 sum ("for training
stability"). The code ignores anchors between two thresholds of IoU (label -2), but both are 0.5: there are none.

Deviations: convolutions before a normalization have no biases, which it would cancel (a published file's are added to
the running means); where an offset to be learned is exactly 0, the authors' code leaves it out of the loss, here it
counts; any classifier may be the backbone, whose top and classes are not used. Initialization is theirs: Glorot's
(BiFPN), normal with variance 1 / fan-in (heads), the classes' biases -log 99.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.boxes import decode, encode
from hubel.layers.bifpn import BiFPN
from hubel.layers.init import initialize
from hubel.layers.separable_convolution import SeparableConv2d
from hubel.models.base import Architecture, Classifier, ClassLayers, DetectionTargets, Detector
from hubel.models.classification import efficientnet
from hubel.models.config_schema import Count, Factor
from hubel.models.detection.anchors import PyramidAnchors, by_anchor
from hubel.models.detection.focal_loss import focal_loss
from hubel.models.detection.multibox import match
from hubel.models.partly_labelled import without_unknown_of_batch

_STRIDES, _LEVELS = (8, 16, 32), 5
_ALPHA, _GAMMA, _DELTA = 0.25, 1.5, 0.1
_RARE = -math.log(99)  # raw score of 0.01: hardly any anchor has an object (arXiv 1708.02002, section 4.1)

_BatchNorm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


@dataclass(frozen=True)
class EfficientDetConfig:
    """A row of the table.

    Attributes:
        pyramid_channels: of all maps that BiFPN gives.
        layers: of BiFPN.
        head_layers: of either head before its last convolution.
        anchor: side of a cell's smallest square anchor over the level's stride.
        fusion: ``"fast"``: fast normalized fusion; ``"sum"``: maps are added as they are.
        same: pool with ``SAME`` padding.
    """

    pyramid_channels: Count
    layers: Count
    head_layers: Count
    anchor: Factor = 4.0
    fusion: Literal["fast", "sum"] = "fast"
    same: bool = True


class LevelHead(nn.Module):
    """Convolutions that all levels share, with normalizations of their own, and a last one with biases."""

    def __init__(self, channels: int, layers: int, out_channels: int) -> None:
        super().__init__()
        # Without biases: the normalizations follow, those of the level.
        convs = (SeparableConv2d(channels, channels, 3, norm=nn.Identity) for _ in range(layers))
        self.convs = nn.ModuleList(convs)
        self.norms = nn.ModuleList(nn.ModuleList(_BatchNorm(channels) for _ in range(_LEVELS)) for _ in range(layers))
        self.activation = nn.SiLU(inplace=True)
        self.predictor = SeparableConv2d(channels, out_channels, 3)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, out_channels, H, W) of the maps (N, channels, H, W) of each level."""
        outputs = []
        for level, each in enumerate(maps):
            for conv, norms in zip(self.convs, self.norms, strict=True):
                assert isinstance(norms, nn.ModuleList)
                each = self.activation(norms[level](conv(each)))
            outputs.append(self.predictor(each))
        return outputs


class EfficientDetHead(nn.Module):
    """The two heads: raw scores of each anchor's classes, and the offsets of its object's box."""

    def __init__(self, config: EfficientDetConfig, num_classes: int, per_cell: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.classifier = LevelHead(config.pyramid_channels, config.head_layers, per_cell * num_classes)
        self.regressor = LevelHead(config.pyramid_channels, config.head_layers, per_cell * 4)

    def forward(self, maps: Sequence[Tensor]) -> dict[str, Tensor]:
        """``"scores"`` (N, A, classes) and ``"offsets"`` (N, A, 4) of all anchors of all levels."""
        scores = [by_anchor(each, self.num_classes) for each in self.classifier(maps)]
        offsets = [by_anchor(each, 4) for each in self.regressor(maps)]
        return {"scores": torch.cat(scores, 1), "offsets": torch.cat(offsets, 1)}


class EfficientDet(Detector):
    """A classifier's backbone, BiFPN, two heads; for any image size."""

    loss_weights: Mapping[str, float] = {"class": 1.0, "box": 50.0}

    def __init__(self, config: EfficientDetConfig, num_classes: int, source: Classifier) -> None:
        self._anchors = PyramidAnchors(config.anchor)
        head = EfficientDetHead(config, num_classes, self._anchors.per_cell)
        read = {stride: source.feature_info[stride] for stride in _STRIDES}
        super().__init__(source.backbone_up_to(_STRIDES[-1]), head, num_classes, read)
        channels = list(self.feature_channels.values())
        weighted = config.fusion == "fast"
        self.pyramid = BiFPN(
            channels, config.pyramid_channels, config.layers, _LEVELS, _BatchNorm, weighted, config.same
        )

    def maps(self, images: Tensor) -> list[Tensor]:
        """P3 to P7, large to small."""
        features = self.features(images)
        levels: list[Tensor] = self.pyramid([features[stride] for stride in _STRIDES])
        return levels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``"scores"``, raw (N, A, classes), and ``"offsets"`` (N, A, 4) from the anchors."""
        outputs: dict[str, Tensor] = self.head(self.maps(images))
        return outputs

    def losses(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> dict[str, Tensor]:
        """``"class"``, the focal loss, and ``"box"``, the Huber loss of the offsets, times their weights.

        Of an image that labels only some classes, the focal loss is of those.
        """
        anchors = self.anchors(*targets.size).to(outputs["scores"].device)
        matches = [match(anchors, each, earlier=True) for each in targets.objects]
        labels = torch.stack([each.labels for each in matches]) - 1
        positive = labels >= 0
        offsets = [
            encode(each.boxes[matched.objects[own]], anchors[own])
            for each, matched, own in zip(targets.objects, matches, positive, strict=True)
        ]
        count = positive.sum() + 1
        found, wanted = outputs["offsets"][positive].float(), torch.cat(offsets)
        box = functional.huber_loss(found, wanted, reduction="sum", delta=_DELTA) / (4 * count)
        scores = without_unknown_of_batch(outputs["scores"].float(), labels, targets.objects)
        classes = focal_loss(scores, labels, _ALPHA, _GAMMA) / count
        return self.weighted({"class": classes, "box": box})

    def predictions(self, outputs: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Boxes by their offsets from the anchors; sigmoids of the scores, a class each."""
        anchors = self.anchors(*size).to(outputs["offsets"].device)
        boxes = decode(outputs["offsets"].float(), anchors)
        return {"boxes": boxes, "scores": torch.sigmoid(outputs["scores"].float())}

    def anchors(self, height: int, width: int) -> Tensor:
        """The anchors of images of that size: float32 (A, 4), x1, y1, x2, y2 in pixels."""
        return self._anchors.boxes(self.grids(height, width), height, width)


def build_on(config: EfficientDetConfig, num_classes: int, source: Classifier) -> EfficientDet:
    """EfficientDet on a classifier; raises ``ModelError`` if that lacks a map of stride 8, 16 or 32."""
    source.require_detection_maps("efficientdet")
    model = EfficientDet(config, num_classes, source)
    # Small depthwise weights: with He's, which are eight times as large, the first epochs find no objects.
    initialize(model.pyramid, nn.init.xavier_uniform_)
    initialize(model.head, partial(nn.init.kaiming_normal_, nonlinearity="linear"))
    assert isinstance(model.head, EfficientDetHead)
    nn.init.constant_(model.head.classifier.predictor.get_parameter("pointwise.conv.bias"), _RARE)
    return model


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    """An anchor has four offsets, and a score for each class."""
    scores, offsets = (state.get(f"head.{part}.predictor.pointwise.conv.bias") for part in ("classifier", "regressor"))
    return None if scores is None or offsets is None or not offsets.numel() else 4 * scores.numel() // offsets.numel()


_CLASS_LAYERS = ClassLayers(r"head\.classifier\.predictor\.pointwise\.", _classes_of)
_TAN = "Tan et al. 2020, arXiv 1911.09070, table 1"


def _row(name: str, size: int, backbone: str, config: EfficientDetConfig) -> Architecture:
    name, backbone = f"efficientdet_{name}", f"efficientnet_{backbone}"
    classifier = next(row for row in efficientnet.ARCHITECTURES if row.name == backbone)
    # A backbone without its top and dense layer; P6; down and up, four nodes each of two convolutions; a head.
    depth = classifier.depth - 2 + 1 + 16 * config.layers + 2 * (config.head_layers + 1)
    row = partial(Architecture, task="detect", num_classes=80, class_layers=_CLASS_LAYERS)
    return row(name, build_on, config, depth, _TAN, input=(3, size, size), backbone=backbone)


ARCHITECTURES = (
    _row("d0", 512, "b0", EfficientDetConfig(64, 3, 3)),
    _row("d1", 640, "b1", EfficientDetConfig(88, 4, 3)),
    _row("d2", 768, "b2", EfficientDetConfig(112, 5, 3)),
    _row("d3", 896, "b3", EfficientDetConfig(160, 6, 4)),
    _row("d4", 1024, "b4", EfficientDetConfig(224, 7, 4)),
    _row("d5", 1280, "b5", EfficientDetConfig(288, 7, 4)),
    _row("d6", 1280, "b6", EfficientDetConfig(384, 8, 5, fusion="sum")),
    _row("d7", 1536, "b6", EfficientDetConfig(384, 8, 5, anchor=5.0, fusion="sum")),
)
