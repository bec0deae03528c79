"""SSD on MobileNet-v2 as in TensorFlow's Object Detection API (Huang et al. 2017, "Speed/accuracy trade-offs for modern
convolutional object detectors", arXiv 1611.10012; Sandler et al. 2018, "MobileNetV2", arXiv 1801.04381).

``ssd300_mobilenet_v2``, whose weights for COCO Google has published as ``ssd_mobilenet_v2_coco_2018_03_29``. All
convolutions pad as TensorFlow's ``SAME``; batch normalization has an epsilon of 1e-3, activations are ReLU6:

============= ========================================== ========== =====
map           layers                                     300 px     boxes
============= ========================================== ========== =====
stage6_expand MobileNet-v2 up to the convolution that    576@19×19  3
              widens the maps of the first unit with 160
top           its other units, 1×1                       1280@10×10 6
extra1        1×1 256, 3×3/2 on each channel, 1×1        512@5×5    6
extra2        1×1 128, 3×3/2 on each channel, 1×1        256@3×3    6
extra3        1×1 128, 3×3/2 on each channel, 1×1        256@2×2    6
extra4        1×1 64, 3×3/2 on each channel, 1×1         128@1×1    6
============= ========================================== ========== =====

1,917 boxes. Each map has two 3×3 convolutions, as in SSD, not the light ones of Sandler et al., section 6.2. Scales
of the boxes go evenly from 0.2 to 0.95. A cell of the first map has a square of 0.1, and boxes of 0.2 with aspect
ratios 2 and 1/2; a cell of the others a square, four boxes of the ratios 2, 1/2, 3 and 0.3333, and a square of the
geometric mean of this scale and the next. A box that is larger than the image stays so.

A class's score is the sigmoid of its own output, not a softmax, and the loss is the sum of the binary cross-entropies
of all classes and of background, which has an output that prediction does not use. Matching, hard negatives and offsets
are SSD's.

Deviations: momentum of the normalization 0.03, as in torchvision's SSDLite, where Google's training over 200,000 steps
has a decay of 0.9997; exponents of decoded sizes are limited as in the other SSDs (:data:`hubel.boxes.MAX_LOG_RATIO`).
Initialization of extra maps and predictors: a normal distribution of deviation 0.03.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.boxes import decode
from hubel.layers.init import initialize
from hubel.models.base import Architecture, DetectionTargets
from hubel.models.classification import mobilenet
from hubel.models.config_schema import Count, Factor
from hubel.models.detection.multibox import VARIANCES, DefaultBoxes, evenly_scaled, multibox_loss
from hubel.models.detection.ssd import CLASS_LAYERS, EXPANSION_AND_TOP, SSD, light_extras, with_expansion_apart

_LOWEST_MAP = ((0.1, 1.0), (0.2, 2.0), (0.2, 0.5))  # scale, aspect ratio
_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)


class SigmoidSSD(SSD):
    """SSD whose classes are independent of each other."""

    def losses(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> dict[str, Tensor]:
        """``"class"`` and ``"box"`` of :func:`~hubel.models.detection.multibox.multibox_loss`, with sigmoids."""
        anchors = self.anchors(*targets.size).to(outputs["scores"].device)
        terms = multibox_loss(outputs["scores"], outputs["offsets"], anchors, targets.objects, _sigmoid_loss)
        return self.weighted(terms)

    def predictions(self, outputs: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Boxes by equation 2 of SSD with the variances of the published code; sigmoids without background."""
        anchors = self.anchors(*size).to(outputs["offsets"].device)
        boxes = decode(outputs["offsets"].float(), anchors, VARIANCES)
        return {"boxes": boxes, "scores": torch.sigmoid(outputs["scores"][..., 1:].float())}


def _sigmoid_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropies of a row of scores (M, 1 + classes), summed (M,)."""
    expected = functional.one_hot(labels, scores.shape[1]).to(scores.dtype)
    return functional.binary_cross_entropy_with_logits(scores, expected, reduction="none").sum(1)


@dataclass(frozen=True)
class SSDMobileNetV2Config:
    """Options of the family: channels of the extra maps; range of the boxes' scales."""

    extras: tuple[Count, ...] = (512, 256, 256, 128)
    smallest: Factor = 0.2
    largest: Factor = 0.95


def build(config: SSDMobileNetV2Config, num_classes: int, in_channels: int, image_size: int) -> SigmoidSSD:
    """The network for any image size: ``image_size`` changes no shape."""
    options = replace(mobilenet.MobileNetV2Config(), norm_eps=1e-3, same=True)
    classifier = mobilenet.build_v2(options, 1, in_channels, image_size)
    backbone, channels = with_expansion_apart(classifier.backbone)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    extras = light_extras(channels[-1], config.extras, same=True)
    channels += config.extras
    boxes = _default_boxes(evenly_scaled(len(channels), config.smallest, config.largest))
    predictor = partial(nn.Conv2d, kernel_size=3, padding=1)
    model = SigmoidSSD(backbone, EXPANSION_AND_TOP, extras, channels, boxes, predictor, num_classes)
    for part in (model.extras, model.head):
        initialize(part, partial(nn.init.normal_, std=0.03))
    return model


def _default_boxes(scales: tuple[float, ...]) -> DefaultBoxes:
    """Of maps with these scales, and one more scale for the last map's larger square."""
    others = [
        (*((scale, ratio) for ratio in _RATIOS), (math.sqrt(scale * following), 1.0))
        for scale, following in pairwise(scales[1:])
    ]
    sizes = [
        tuple((scale * math.sqrt(ratio), scale / math.sqrt(ratio)) for scale, ratio in of_map)
        for of_map in (_LOWEST_MAP, *others)
    ]
    return DefaultBoxes(tuple(sizes))


_SANDLER = "Sandler et al. 2018, arXiv 1801.04381; TensorFlow Object Detection API"

ARCHITECTURES = (
    Architecture(
        "ssd300_mobilenet_v2", build, SSDMobileNetV2Config(), 65, _SANDLER,
        task="detect", input=(3, 300, 300), num_classes=80, class_layers=CLASS_LAYERS,
    ),
)  # fmt: skip
