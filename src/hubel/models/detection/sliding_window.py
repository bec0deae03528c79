"""Sliding windows: a classifier of windows, applied everywhere at once and at several sizes.

Sermanet et al. 2014, "OverFeat", arXiv 1312.6229, sections 3.3 to 4: the convolutions run over the whole picture, and
the dense layers over their maps, as convolutions. The picture at several sizes gives windows of several sizes.

What a window is asked: is there an object, near its centre and of its size (objectness); of which class; and how its
box differs from the window. Two kinds of objectness:

- ``"binary"``: one logit o of its own, beside those of the classes. The score of class k is σ(o) · softmax(classes)ₖ.
- ``"class"``: "nothing" is one more class: softmax over classes + 1.

Both give raw scores whose softmax over "nothing" and the classes are these probabilities. So for both the cross-entropy
of that softmax is the loss: for ``"binary"`` it is the binary cross-entropy of o, plus the cross-entropy of the classes
where there is an object.

The head: 1×1 convolution to 128 maps, ReLU, dropout; from all cells of a window a dense layer for the scores and one
for the box. OverFeat reads all cells too (its "5×5" classifier); a mean of them would not know where in the window
things are. Boxes are SSD's offsets from the window.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.boxes import SSD_VARIANCES, decode
from hubel.errors import ModelError
from hubel.models.base import Architecture, ClassificationHead, Classifier, ClassLayers, Detector
from hubel.models.config_schema import Count, ShareBelowOne
from hubel.models.fully_convolutional import require_independent_windows


@dataclass(frozen=True)
class ImagePyramid:
    """Which windows there are.

    Attributes:
        window: side in pixels of what the network looks at.
        stride: pixels from window to window.
        per_octave: window sizes from one size to its double.
    """

    window: int
    stride: int
    per_octave: int = 2

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width to which a picture is scaled, large to small.

        They begin with its own and end where a window fills its shorter side, in even steps of the factor; each is
        as many strides longer than a window as comes nearest, so that windows reach from edge to edge. A picture that
        is smaller than a window is enlarged.
        """
        shorter = max(self.window, min(height, width))
        steps = math.ceil(self.per_octave * math.log2(shorter / self.window))
        factors = [(self.window / shorter) ** (step / max(1, steps)) * shorter for step in range(steps + 1)]
        scaled = [
            (self.fitted(height * factor / min(height, width)), self.fitted(width * factor / min(height, width)))
            for factor in factors
        ]
        return list(dict.fromkeys(scaled))

    def fitted(self, side: float) -> int:
        """The length that is some strides longer than a window, and comes nearest to ``side`` pixels."""
        return self.window + max(0, round((side - self.window) / self.stride)) * self.stride

    def boxes(self, scaled: tuple[int, int], height: int, width: int) -> Tensor:
        """The windows on a picture that was scaled, row by row.

        Args:
            scaled: its height and width then, of :meth:`sizes`.
            height: its own in pixels.
            width: likewise.

        Returns:
            float32 (A, 4), x1, y1, x2, y2 in pixels of the picture.
        """
        y, x = (torch.arange(0, side - self.window + 1, self.stride) for side in scaled)
        corners = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).view(-1, 2)
        scale = torch.tensor([width / scaled[1], height / scaled[0]])
        return torch.cat((corners * scale, (corners + self.window) * scale), 1)


@dataclass(frozen=True)
class SlidingWindowConfig:
    """What may be chosen.

    Attributes:
        objectness: see above.
        window: side of a window in pixels of the network's input: the smallest objects are about as large.
        per_octave: window sizes from one size to its double.
        hidden: maps that the dense layers read.
        dropout: share of these maps' values dropped in training, 0..1.
    """

    objectness: Literal["binary", "class"] = "binary"
    window: Count = 128
    per_octave: Count = 2
    hidden: Count = 128
    dropout: ShareBelowOne = 0.2


class WindowHead(nn.Module):
    """Scores and offsets of all windows of a map.

    Args:
        in_channels: of the map.
        num_classes: without "nothing".
        cells: side of a window on the map.
        config: see there.
    """

    def __init__(self, in_channels: int, num_classes: int, cells: int, config: SlidingWindowConfig) -> None:
        super().__init__()
        self.binary = config.objectness == "binary"
        self.reader = nn.Conv2d(in_channels, config.hidden, 1)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier = nn.Conv2d(config.hidden, 1 + num_classes, cells)
        self.regressor = nn.Conv2d(config.hidden, 4, cells)
        for layer in (self.classifier, self.regressor):
            nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Raw scores (N, A, 1 + classes), "nothing" first, and offsets (N, A, 4) of maps (N, C, H, W)."""
        read = self.dropout(functional.relu(self.reader(maps)))
        scores, offsets = (layer(read).flatten(2).transpose(1, 2) for layer in (self.classifier, self.regressor))
        return (_joint(scores) if self.binary else scores), offsets


def _joint(raw: Tensor) -> Tensor:
    """Logarithms of the probabilities of "nothing" and of each class, of an object's logit and those of the classes."""
    something, classes = raw[..., :1], raw[..., 1:]
    of_class = functional.logsigmoid(something) + torch.log_softmax(classes, -1)
    return torch.cat((functional.logsigmoid(-something), of_class), -1)


class SlidingWindow(Detector):
    """A classifier of windows, slid over the picture at several sizes; its anchors are the windows.

    A picture of the window's size is one window: so it is trained, on crops.

    Args:
        backbone: named parts applied one after the other.
        channels: of its last map.
        stride: of its last map.
        num_classes: without "nothing".
        config: see there.
    """

    def __init__(
        self, backbone: nn.Sequential, channels: int, stride: int, num_classes: int, config: SlidingWindowConfig
    ) -> None:
        super().__init__(backbone, nn.Identity(), num_classes)  # the head wants to know how large the maps are
        self.pyramid = ImagePyramid(config.window, stride, config.per_octave)
        (cells, _), *_ = self.grids(config.window, config.window)
        self.head = WindowHead(channels, num_classes, cells, config)

    def maps(self, images: Tensor) -> list[Tensor]:
        """The backbone's last map of the images at each size, large to small."""
        height, width = images.shape[2:]
        return [self.backbone(_scaled(images, size)) for size in self.pyramid.sizes(height, width)]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Raw scores (N, A, 1 + classes), "nothing" first, and offsets (N, A, 4) from the A windows."""
        scores, offsets = zip(*(self.head(maps) for maps in self.maps(images)), strict=True)
        return torch.cat(scores, 1), torch.cat(offsets, 1)

    def predictions(self, outputs: tuple[Tensor, Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Boxes from the windows, and the probabilities of the classes."""
        scores, offsets = (each.float() for each in outputs)
        windows = self.anchors(*size).to(offsets.device)
        return {"boxes": decode(offsets, windows, SSD_VARIANCES), "scores": torch.softmax(scores, -1)[..., 1:]}

    def anchors(self, height: int, width: int) -> Tensor:
        """The windows of images of that size: float32 (A, 4), x1, y1, x2, y2 in pixels."""
        return torch.cat([self.pyramid.boxes(size, height, width) for size in self.pyramid.sizes(height, width)])


def _scaled(images: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(images.shape[2:]) == size:
        return images
    return functional.interpolate(images, size, mode="bilinear", antialias=True)


def build_on(config: SlidingWindowConfig, num_classes: int, source: Classifier) -> SlidingWindow:
    """Sliding windows on the backbone of a classifier.

    Where the classifier ends with dense layers instead of means, what it does after its smallest map of the pyramid is
    left out.

    Raises:
        ModelError: a layer of it mixes the whole image.
    """
    stride = max(source.feature_channels)
    backbone, channels = source.backbone, source.feature_channels[stride]
    if isinstance(source.head, ClassificationHead):
        channels = source.head.classifier.in_features
    else:
        names = [name for name, _ in source.backbone.named_children()]
        backbone = source.backbone[: names.index(source.stage_of_stride(stride)) + 1]
    require_independent_windows(backbone)
    if config.window % stride:
        raise ModelError(f"A window of {config.window} pixels is no multiple of the stride {stride}.", "Choose one.")
    return SlidingWindow(backbone, channels, stride, num_classes, config)


def _classes_of(state: Mapping[str, Tensor]) -> int | None:
    biases = state.get("head.classifier.bias")
    return None if biases is None else len(biases) - 1


ARCHITECTURES = (
    Architecture(
        name="sliding_window",
        task="detect",
        build=build_on,
        config=SlidingWindowConfig(),
        input=(3, 384, 384),
        num_classes=80,
        depth=51,
        reference="Sermanet et al. 2014, arXiv 1312.6229, sections 3.3 to 4",
        backbone="efficientnet_lite0",
        class_layers=ClassLayers(r"head\.classifier\.", _classes_of),
    ),
)
