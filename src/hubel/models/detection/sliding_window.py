"""Sliding windows: a classifier of windows, applied everywhere at once and at several scales.

Sermanet et al. 2014, "OverFeat", arXiv 1312.6229, sections 3.3 to 4: the convolutions run over the whole image, and
the dense layers over their maps, as convolutions. The image at several sizes gives windows of several sizes.

The head predicts for each window whether an object is near its centre and of its size (objectness), the object's class,
and how its box differs from the window. Two kinds of objectness:

- ``"binary"``: a logit o of its own, beside those of the classes. The score of class k is σ(o) · softmax(classes)ₖ.
- ``"class"``: background is one more class: softmax over classes + 1.

The loss is the cross-entropy of these probabilities and that of background: for ``"binary"`` it is the binary
cross-entropy of o, plus the cross-entropy of the classes where there is an object.

The head: 1×1 convolution to 128 maps, ReLU, dropout; from all cells of a window a dense layer for the scores and one
for the box. OverFeat reads all cells too (its "5×5" classifier); a mean of them would lose positions within the window.
Boxes are SSD's offsets from the window.

An object fits a window by the IoU of the window with the square of the object's area round its centre, so that long
objects count as others do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.boxes import convert, decode, encode, iou
from hubel.errors import ModelError
from hubel.layers.init import initialize
from hubel.models.base import Architecture, Classifier, ClassLayers, DetectionTargets, Detector, ObjectTargets
from hubel.models.config_schema import Count, ShareBelowOne
from hubel.models.detection.multibox import VARIANCES
from hubel.models.fully_convolutional import require_independent_windows
from hubel.models.partly_labelled import share_labelled, without_unknown_of_batch

POSITIVE_IOU = 0.5
"""Minimum IoU of a positive window with the square of its object. With windows a quarter of their side apart and two
sizes to an octave, some window overlaps the square by about as much, wherever the object is."""

NEGATIVE_IOU = 0.4
"""A window that overlaps all squares by less is background. Between the two it is ignored, as in an ignored region."""

IGNORE_INDEX = -1


@dataclass(frozen=True)
class ImagePyramid:
    """Side of the windows and pixels between them; ``per_octave`` window sizes from one size to its double."""

    window: int
    stride: int
    per_octave: int = 2

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Heights and widths to which an image is scaled, large to small.

        They begin with its own and end where a window fills its shorter side, in even steps of the factor; each is
        rounded to a whole number of strides more than a window, so that windows reach from edge to edge. An image
        smaller than a window is enlarged.
        """
        shorter = max(self.window, min(height, width))
        steps = math.ceil(self.per_octave * math.log2(shorter / self.window))
        sides = [(self.window / shorter) ** (step / max(1, steps)) * shorter for step in range(steps + 1)]
        own = min(height, width)
        scaled = ((self.fitted(height * side / own), self.fitted(width * side / own)) for side in sides)
        return list(dict.fromkeys(scaled))

    def fitted(self, side: float) -> int:
        """``side`` pixels, rounded to a window and a whole number of strides."""
        return self.window + max(0, round((side - self.window) / self.stride)) * self.stride

    def boxes(self, scaled: tuple[int, int], height: int, width: int) -> Tensor:
        """The windows on an image that was scaled to one of :meth:`sizes`, row by row.

        They are float32 (A, 4), x1, y1, x2, y2 in pixels of the image before scaling.
        """
        y, x = (torch.arange(0, side - self.window + 1, self.stride) for side in scaled)
        corners = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).view(-1, 2)
        scale = torch.tensor([width / scaled[1], height / scaled[0]])
        return torch.cat((corners * scale, (corners + self.window) * scale), 1)


@dataclass(frozen=True)
class SlidingWindowConfig:
    """Options of the family.

    Attributes:
        window: side of a window in pixels of the network's input: the smallest objects are about as large.
        per_octave: window sizes from one size to its double.
        hidden: maps that the dense layers read.
        dropout: fraction of these maps' values dropped in training, 0..1.
    """

    objectness: Literal["binary", "class"] = "binary"
    window: Count = 128
    per_octave: Count = 2
    hidden: Count = 128
    dropout: ShareBelowOne = 0.2


class WindowHead(nn.Module):
    """Scores and offsets of all windows of a map; ``cells`` is the side of a window on the map."""

    def __init__(self, in_channels: int, num_classes: int, cells: int, config: SlidingWindowConfig) -> None:
        super().__init__()
        self.reader = nn.Conv2d(in_channels, config.hidden, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(config.hidden, 1 + num_classes, cells)
        self.regressor = nn.Conv2d(config.hidden, 4, cells)
        for layer in (self.classifier, self.regressor):
            initialize(layer, partial(nn.init.normal_, std=0.01))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (N, A, 1 + classes), of objectness or background first, and offsets (N, A, 4) of maps (N, C, H, W)."""
        read = self.dropout(functional.relu(self.reader(maps)))
        logits, offsets = (layer(read).flatten(2).transpose(1, 2) for layer in (self.classifier, self.regressor))
        return logits, offsets


class SlidingWindow(Detector):
    """A classifier of windows, slid over the image at several scales; its anchors are the windows.

    An image of the window's size is one window: it trains on crops of that size. ``channels`` and ``stride`` are those
    of the backbone's last map.
    """

    takes_any_size = False

    def __init__(
        self, backbone: nn.Sequential, channels: int, stride: int, num_classes: int, config: SlidingWindowConfig
    ) -> None:
        super().__init__(backbone, nn.Identity(), num_classes)  # the head needs the size of the maps
        self.binary = config.objectness == "binary"
        self.pyramid = ImagePyramid(config.window, stride, config.per_octave)
        (cells, _), *_ = self.grids(config.window, config.window)
        self.head = WindowHead(channels, num_classes, cells, config)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The backbone's last map of the images at each scale, large to small."""
        own = (images.shape[2], images.shape[3])
        resized = partial(functional.interpolate, images, mode="bilinear", antialias=True)
        return [self.backbone(images if size == own else resized(size)) for size in self.pyramid.sizes(*own)]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Raw ``"scores"`` (N, A, 1 + classes), of objectness or background first, and ``"offsets"`` (N, A, 4)."""
        logits, offsets = zip(*(self.head(maps) for maps in self.maps(images)), strict=True)
        return {"scores": torch.cat(logits, 1), "offsets": torch.cat(offsets, 1)}

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Log-probabilities (…, 1 + classes), background first, of logits (…, 1 + classes)."""
        if not self.binary:
            return torch.log_softmax(logits, -1)
        objectness, classes = logits[..., :1], logits[..., 1:]
        of_class = functional.logsigmoid(objectness) + torch.log_softmax(classes, -1)
        return torch.cat((functional.logsigmoid(-objectness), of_class), -1)

    def losses(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> dict[str, Tensor]:
        """``"class"``: mean cross-entropy of the windows that are not ignored; ``"box"``: smooth L1 of the offsets.

        The latter is summed over the four, and averaged over the positive windows. Of an image that labels only some
        classes see :mod:`hubel.models.partly_labelled`.
        """
        labels, expected = self._assigned(outputs, targets)
        raw = outputs["scores"].float()
        known = without_unknown_of_batch(raw, labels.view(raw.shape[:2]) - 1, targets.objects)
        weights = self._weights(raw, labels, targets)
        positive = labels > 0
        counted = (labels != IGNORE_INDEX).sum().clamp(min=1)
        scores = self.log_probabilities(known).flatten(0, 1)
        offsets = outputs["offsets"].flatten(0, 1).float()
        of_class = functional.cross_entropy(scores, labels, ignore_index=IGNORE_INDEX, reduction="none")
        of_box = functional.smooth_l1_loss(offsets[positive], expected[positive], reduction="sum")
        classes = (weights * of_class).sum() / counted
        return self.weighted({"class": classes, "box": of_box / positive.sum().clamp(min=1)})

    def _weights(self, raw: Tensor, labels: Tensor, targets: DetectionTargets) -> Tensor | float:
        """How much windows count, of raw scores (N, A, 1 + classes) and labels (N · A,): background by its class."""
        if not self.binary or all(each.labelled is None for each in targets.objects):
            return 1.0
        pairs = zip(raw[..., 1:].softmax(2), targets.objects, strict=True)
        shares = torch.cat([share_labelled(likely, each) for likely, each in pairs])
        return torch.where(labels > 0, 1.0, shares)

    def training_metrics(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> dict[str, float]:
        """Accuracy on the windows that are not ignored, times the images."""
        labels, _ = self._assigned(outputs, targets)
        counted = (labels != IGNORE_INDEX).sum().clamp(min=1)
        best = self.log_probabilities(outputs["scores"]).flatten(0, 1).argmax(1)
        correct = (best == labels).sum() / counted
        return {"windows": float(correct) * len(targets.objects)}

    def _assigned(self, outputs: dict[str, Tensor], targets: DetectionTargets) -> WindowTargets:
        """Targets of the windows of all images, one after the other."""
        windows = self.anchors(*targets.size).to(outputs["scores"].device)
        assigned = [assign_windows(windows, each) for each in targets.objects]
        return WindowTargets(*(torch.cat(each) for each in zip(*assigned, strict=True)))

    def predictions(self, outputs: dict[str, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Boxes from the windows, and the probabilities of the classes."""
        windows = self.anchors(*size).to(outputs["offsets"].device)
        boxes = decode(outputs["offsets"].float(), windows, VARIANCES)
        return {"boxes": boxes, "scores": self.log_probabilities(outputs["scores"].float())[..., 1:].exp()}

    def anchors(self, height: int, width: int) -> Tensor:
        """The windows of images of that size: float32 (A, 4), x1, y1, x2, y2 in pixels."""
        return torch.cat([self.pyramid.boxes(size, height, width) for size in self.pyramid.sizes(height, width)])


class WindowTargets(NamedTuple):
    """Targets of windows."""

    labels: Tensor  # int64 (A,): 0 for background, class + 1, or IGNORE_INDEX
    offsets: Tensor  # float32 (A, 4) of the object's box from the window; 0 for background


def assign_windows(windows: Tensor, targets: ObjectTargets) -> WindowTargets:
    """Targets of the windows (A, 4) of one image, whose objects may lie outside it."""
    background = torch.where(targets.ignores(windows), IGNORE_INDEX, 0)
    if not len(targets.boxes):
        return WindowTargets(background, torch.zeros_like(windows))
    centre, sizes = convert(targets.boxes, "xyxy", "cxcywh").split(2, 1)
    half = sizes.prod(1, keepdim=True).sqrt() / 2
    overlap, objects = iou(torch.cat((centre - half, centre + half), 1), windows).max(0)
    positive = overlap >= POSITIVE_IOU
    otherwise = torch.where(overlap < NEGATIVE_IOU, background, IGNORE_INDEX)
    offsets = encode(targets.boxes[objects], windows, VARIANCES)
    return WindowTargets(torch.where(positive, targets.labels[objects] + 1, otherwise), offsets * positive[:, None])


def build_on(config: SlidingWindowConfig, num_classes: int, source: Classifier) -> SlidingWindow:
    """Sliding windows on the trunk of a classifier; raises ``ModelError`` if a layer of it mixes the whole image."""
    stride = max(source.feature_info)
    backbone, channels = source.trunk()
    require_independent_windows(backbone)
    if config.window % stride:
        raise ModelError(
            f"a window of {config.window} pixels is not a multiple of the stride {stride}",
            "choose a multiple",
        )
    return SlidingWindow(backbone, channels, stride, num_classes, config)


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    biases = state.get("head.classifier.bias")
    return None if biases is None else len(biases) - 1


ARCHITECTURES = (
    Architecture(
        "sliding_window",
        build_on,
        SlidingWindowConfig(),
        depth=51,
        reference="Sermanet et al. 2014, arXiv 1312.6229, sections 3.3 to 4",
        task="detect",
        input=(3, 384, 384),
        num_classes=80,
        backbone="efficientnet_lite0",
        class_layers=ClassLayers(r"head\.classifier\.", _classes_of),
        training_crop="window",
    ),
)
