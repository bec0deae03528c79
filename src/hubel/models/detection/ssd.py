"""SSD (Liu et al. 2016, "SSD: Single Shot MultiBox Detector", arXiv 1512.02325), and SSDLite (Sandler et al. 2018,
arXiv 1801.04381, section 6.2), its light form with depthwise separable heads.

``ssd300_vgg16`` and ``ssd512_vgg16``, figure 2 and section 3.1: VGG-16 up to conv4_3, whose maps are scaled to length
20 at each position; its fully connected layers as convolutions, the first dilated; then ever smaller maps:

======== ================================= ========= =========
map      layers                            300 px    512 px
======== ================================= ========= =========
conv4_3  VGG-16's, L2 normalization × 20   512@38×38 512@64×64
fc7      pool5 3×3/1, 3×3 with holes of 6, 1024@19×19 1024@32×32
         1×1
extra1   1×1 256, 3×3/2 512                512@10×10 512@16×16
extra2   1×1 128, 3×3/2 256                256@5×5   256@8×8
extra3   1×1 128, 3×3 256 (512 px: /2)     256@3×3   256@4×4
extra4   1×1 128, 3×3 256 (512 px: /2)     256@1×1   256@2×2
extra5   1×1 128, 4×4 256, padding 1                 256@1×1
boxes                                      8,732     24,564
======== ================================= ========= =========

Four or six boxes per cell; scales as the paper has them for COCO, 0.07 (300 px) and 0.04 (512 px) at conv4_3 upwards.
Each map has two 3×3 convolutions: four offsets per box, and the scores of all classes and of background.

``ssdlite320_mobilenet_v3_large``: Howard et al. 2019, arXiv 1905.02244, section 6.3: the first map is what the unit
that halves the maps to 10 × 10 widens to, the second the top's; the last units have half the channels (table 6). Batch
normalization with momentum 0.03, as in torchvision, whose weights it takes.

``ssd``: the light form on any classifier, on its maps of stride 8, 16 and 32 and three extra ones.

Initialization is Glorot's (VGG) or a normal distribution of deviation 0.03 (light), biases 0.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.boxes import decode
from hubel.layers.conv_norm_act import ConvNormActivation, ReLU6
from hubel.layers.init import initialize
from hubel.models.base import Architecture, Classifier, ClassLayers, DetectionTargets, Detector
from hubel.models.classification import mobilenet_v3, vgg
from hubel.models.config_schema import Count, Factor, Natural
from hubel.models.detection.anchors import by_anchor
from hubel.models.detection.multibox import VARIANCES, DefaultBoxes, evenly_scaled, multibox_loss, scaled_boxes

_ConvReLU = partial(ConvNormActivation, norm=None)
_ConvBNReLU6 = partial(ConvNormActivation, norm=partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03), activation=ReLU6)


class L2Norm(nn.Module):
    """Scales the vectors of all channels at a position to length 1, then each channel by a learned factor.

    Liu et al. 2015, "ParseNet", arXiv 1506.04579, section 3.3; SSD starts the factors at 20.
    """

    def __init__(self, channels: int, start: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), start))

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) of maps of the same shape."""
        return functional.normalize(maps) * self.weight.view(1, -1, 1, 1)


class SSDHead(nn.Module):
    """Two predictors on each map, from its channels: the scores of its boxes at each cell, and their offsets."""

    def __init__(
        self, predictor: Callable[[int, int], nn.Module], channels: Sequence[int], boxes: Sequence[int], scores: int
    ) -> None:
        super().__init__()
        both = list(zip(channels, boxes, strict=True))
        self.scores = scores
        self.classifiers = nn.ModuleList(predictor(maps, scores * count) for maps, count in both)
        self.regressors = nn.ModuleList(predictor(maps, 4 * count) for maps, count in both)

    def forward(self, maps: list[Tensor]) -> dict[str, Tensor]:
        """``"scores"`` (N, A, scores) and ``"offsets"`` (N, A, 4) of all boxes of all maps (N, C, H, W)."""
        scores = [by_anchor(part(each), self.scores) for part, each in zip(self.classifiers, maps, strict=True)]
        offsets = [by_anchor(part(each), 4) for part, each in zip(self.regressors, maps, strict=True)]
        return {"scores": torch.cat(scores, 1), "offsets": torch.cat(offsets, 1)}


class SSD(Detector):
    """Parts, some of whose maps are read; extra parts, whose maps all are; two heads on each map.

    Args:
        read: names of the parts whose maps are read.
        extras: parts that follow.
        channels: of each map that is read, the extras' too.
        predictor: makes a predictor from a number of channels to another.
        scaled: normalizes the first map that is read.
    """

    def __init__(
        self,
        backbone: nn.Sequential,
        read: Sequence[str],
        extras: Iterable[nn.Module],
        channels: Sequence[int],
        default_boxes: DefaultBoxes,
        predictor: Callable[[int, int], nn.Module],
        num_classes: int,
        scaled: nn.Module | None = None,
    ) -> None:
        super().__init__(backbone, SSDHead(predictor, channels, default_boxes.per_cell, num_classes + 1), num_classes)
        self.extras = nn.ModuleList(extras)
        self.scaled = nn.Identity() if scaled is None else scaled
        self._read = frozenset(read)
        self._default_boxes = default_boxes
        self.takes_any_size = default_boxes.steps is None  # where the boxes keep pace with the maps

    def maps(self, images: Tensor) -> list[Tensor]:
        """The maps that the heads read, large to small."""
        read: list[Tensor] = []
        signal = images
        for name, part in self.backbone.named_children():
            signal = part(signal)
            if name in self._read:
                read.append(signal if read else self.scaled(signal))
        for part in self.extras:
            signal = part(signal)
            read.append(signal)
        return read

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``"scores"``, raw (N, A, 1 + classes), background first, and ``"offsets"`` (N, A, 4) from default boxes."""
        outputs: dict[str, Tensor] = self.head(self.maps(images))
        return outputs

    def losses(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> dict[str, Tensor]:
        """``"class"`` and ``"box"``: see :func:`~hubel.models.detection.multibox.multibox_loss`."""
        anchors = self.anchors(*targets.size).to(outputs["scores"].device)
        return self.weighted(multibox_loss(outputs["scores"], outputs["offsets"], anchors, targets.objects))

    def predictions(self, outputs: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Boxes by equation 2 with the variances of the published code; softmax without background."""
        anchors = self.anchors(*size).to(outputs["offsets"].device)
        boxes = decode(outputs["offsets"].float(), anchors, VARIANCES)
        return {"boxes": boxes, "scores": torch.softmax(outputs["scores"].float(), -1)[..., 1:]}

    def anchors(self, height: int, width: int) -> Tensor:
        """The default boxes of images of that size: float32 (A, 4), x1, y1, x2, y2 in pixels."""
        return self._default_boxes.boxes(self.grids(height, width), height, width)


class _Extra(NamedTuple):
    """An extra part: channels between and after, kernel, stride and padding of its second convolution."""

    between: Count
    after: Count
    kernel: Count
    stride: Count
    padding: Natural


_HALVING, _SHRINKING = _Extra(128, 256, 3, 2, 1), _Extra(128, 256, 3, 1, 0)


@dataclass(frozen=True)
class SSDVGGConfig:
    """Differences between the two sizes of the paper: extra parts, scales of default boxes, pixels between them."""

    extras: tuple[_Extra, ...]
    scales: tuple[Factor, ...]
    steps: tuple[Count, ...]


_300 = SSDVGGConfig(
    extras=(_Extra(256, 512, 3, 2, 1), _HALVING, _SHRINKING, _SHRINKING),
    scales=(0.07, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05),
    steps=(8, 16, 32, 64, 100, 300),
)
_512 = SSDVGGConfig(
    extras=(_Extra(256, 512, 3, 2, 1), _HALVING, _HALVING, _HALVING, _Extra(128, 256, 4, 1, 1)),
    scales=(0.04, 0.1, 0.26, 0.42, 0.58, 0.74, 0.9, 1.06),
    steps=(8, 16, 32, 64, 128, 256, 512),
)


def build_vgg(config: SSDVGGConfig, num_classes: int, in_channels: int, image_size: int) -> SSD:
    """SSD on VGG-16. Its default boxes stand ``steps`` pixels apart, so that other image sizes than its own do harm."""
    source = vgg.build(vgg.VGGConfig((2, 2, 3, 3, 3)), 1, in_channels, 224).backbone
    backbone = nn.Sequential(OrderedDict(source.named_children()))
    backbone.pool3 = nn.MaxPool2d(2, ceil_mode=True)  # 75 → 38, as in the figure
    backbone.pool5 = nn.MaxPool2d(3, stride=1, padding=1)
    # VGG's first dense layer, thinned out to 3×3 with holes of 6 (section 3.1; Chen et al., DeepLab).
    fc6 = _ConvReLU(512, 1024, 3, padding=6)
    fc6.conv.dilation = (6, 6)
    backbone.add_module("fc6", fc6)
    backbone.add_module("fc7", _ConvReLU(1024, 1024, 1))
    channels, extras = [512, 1024], []
    for row in config.extras:
        narrow = _ConvReLU(channels[-1], row.between, 1)
        extras.append(nn.Sequential(narrow, _ConvReLU(row.between, row.after, row.kernel, row.stride, row.padding)))
        channels.append(row.after)
    many, few = (2.0, 3.0), (2.0,)
    ratios = (few, *(len(channels) - 3) * (many,), few, few)
    boxes = scaled_boxes(config.scales, ratios, config.steps)
    predictor = partial(nn.Conv2d, kernel_size=3, padding=1)
    model = SSD(backbone, ("stage4", "fc7"), extras, channels, boxes, predictor, num_classes, L2Norm(512))
    initialize(model, nn.init.xavier_uniform_)
    return model


@dataclass(frozen=True)
class SSDLiteConfig:
    """Options of the light form: channels of the extra maps; range of scales, and aspect ratios, of the boxes."""

    extras: tuple[Count, ...]
    smallest: Factor
    largest: Factor
    ratios: tuple[Factor, ...] = (2.0, 3.0)


_MOBILENET = SSDLiteConfig(extras=(512, 256, 256, 128), smallest=0.2, largest=0.95)
_LIGHT = SSDLiteConfig(extras=(256, 256, 128), smallest=0.08, largest=0.9)


def build_mobilenet(config: SSDLiteConfig, num_classes: int, in_channels: int, image_size: int) -> SSD:
    """SSDLite on MobileNet-v3 (large), for any image size."""
    row = next(row for row in mobilenet_v3.ARCHITECTURES if row.name == "mobilenet_v3_large")
    classifier = row.build(mobilenet_v3.with_half_the_last_units(row.config), 1, in_channels, image_size)
    assert isinstance(classifier, Classifier)
    split, channels = with_expansion_apart(classifier.backbone)
    for module in split.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    return _light(config, split, EXPANSION_AND_TOP, channels, num_classes)


EXPANSION_AND_TOP = ("stage6_expand", "top")


def with_expansion_apart(backbone: nn.Sequential) -> tuple[nn.Sequential, list[int]]:
    """The parts of a MobileNet-v2 or -v3, the convolution that widens the maps of stage 6 as one of its own.

    What it gives is the first map that is read, the top's the second (Sandler et al., section 6.2). With the channels
    of both.
    """
    split: OrderedDict[str, nn.Module] = OrderedDict()
    for name, part in backbone.named_children():
        if name == "stage6":
            halving, *others = part.children()
            layers = OrderedDict(halving.named_children())
            split["stage6_expand"] = layers.pop("expand")
            part = nn.Sequential(nn.Sequential(layers), *others)
        split[name] = part
    channels = []
    for name in EXPANSION_AND_TOP:
        read = split[name]
        assert isinstance(read, ConvNormActivation)
        channels.append(read.conv.out_channels)
    return nn.Sequential(split), channels


def build_on(config: SSDLiteConfig, num_classes: int, source: Classifier) -> SSD:
    """The light form on the maps of stride 8, 16 and 32 of a classifier; raises ``ModelError`` if it lacks them."""
    strides = (8, 16, 32)
    source.require_detection_maps("ssd")
    read, channels = zip(*(source.feature_info[stride] for stride in strides), strict=True)
    return _light(config, source.backbone_up_to(32), read, channels, num_classes)


def _light(
    config: SSDLiteConfig, backbone: nn.Sequential, read: Sequence[str], channels: Sequence[int], num_classes: int
) -> SSD:
    extras = light_extras(channels[-1], config.extras)
    count = len(channels) + len(extras)
    boxes = scaled_boxes(evenly_scaled(count, config.smallest, config.largest), count * (config.ratios,))
    model = SSD(backbone, read, extras, [*channels, *config.extras], boxes, _light_predictor, num_classes)
    for part in (model.extras, model.head):
        initialize(part, partial(nn.init.normal_, std=0.03))
    return model


def light_extras(before: int, widths: Iterable[int], same: bool = False) -> list[nn.Module]:
    """Extra parts, each of which halves the maps: 1×1 to half of a width, 3×3 on each channel by itself, 1×1.

    Args:
        before: channels of the map that they follow.
        widths: channels of their maps.
        same: pad as TensorFlow's ``SAME`` does.
    """
    conv = partial(_ConvBNReLU6, same=same)
    extras: list[nn.Module] = []
    for width in widths:
        narrow = width // 2
        filtered = conv(narrow, narrow, 3, stride=2, groups=narrow)
        extras.append(nn.Sequential(conv(before, narrow, 1), filtered, conv(narrow, width, 1)))
        before = width
    return extras


def _light_predictor(in_channels: int, out_channels: int) -> nn.Module:
    """3×3 on each channel by itself, normalized, ReLU6; 1×1."""
    filtered = _ConvBNReLU6(in_channels, in_channels, 3, groups=in_channels)
    return nn.Sequential(OrderedDict(depthwise=filtered, pointwise=nn.Conv2d(in_channels, out_channels, 1)))


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    """A box has four offsets, and a score for each class and for background."""
    ends = ("weight", "pointwise.weight")
    scores, offsets = (
        next((len(state[key]) for end in ends if (key := f"head.{part}.0.{end}") in state), 0)
        for part in ("classifiers", "regressors")
    )
    return 4 * scores // offsets - 1 if offsets else None


CLASS_LAYERS = ClassLayers(r"head\.classifiers\.\d+\.(pointwise\.)?(weight|bias)$", _classes_of)
_row = partial(Architecture, task="detect", num_classes=80, class_layers=CLASS_LAYERS)
_LIU, _SANDLER = "Liu et al. 2016, arXiv 1512.02325", "Sandler et al. 2018, arXiv 1801.04381, section 6.2"
_HOWARD = "Howard et al. 2019, arXiv 1905.02244, section 6.3"

ARCHITECTURES = (
    _row("ssd", build_on, _LIGHT, 59, _SANDLER, input=(3, 320, 320), backbone="efficientnet_lite0"),
    _row("ssd300_vgg16", build_vgg, _300, 24, f"{_LIU}, figure 2", input=(3, 300, 300)),
    _row("ssd512_vgg16", build_vgg, _512, 26, f"{_LIU}, section 3.5", input=(3, 512, 512)),
    _row("ssdlite320_mobilenet_v3_large", build_mobilenet, _MOBILENET, 60, _HOWARD, input=(3, 320, 320)),
)
