"""Classifiers as fully convolutional networks: their dense layers become convolutions.

Sermanet et al. 2014, "OverFeat", arXiv 1312.6229, section 3.5; Long et al. 2015, arXiv 1411.4038, section 3.1.

Neighbouring windows of an image share most of their computation. The convolutions run once over the whole image, and
the head slides over their maps, instead of the network over the image.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.layers.pooling import GlobalAveragePool2d
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import ClassificationHead, Classifier
from hubel.models.classification import lenet, simple_cnn
from hubel.models.classification.alexnet import DenseHead

# Layers by which the scores of a window depend on the rest of the image, and why.
_MIXING: dict[type[nn.Module], str] = {
    SqueezeExcitation: "squeeze-and-excitation scales channels by their mean over the whole image",
    nn.AdaptiveAvgPool2d: "its pooling divides the whole image into a fixed grid",
    GlobalAveragePool2d: "global pooling takes the mean over the whole image",
}


class FullyConvolutional(nn.Module):
    """Maps images (N, C, H, W) of any size to scores (N, classes, rows, columns), one per window.

    Windows have the size of the classifier's images and are ``stride`` pixels apart. Where layers pad, a window cropped
    from the image and classified alone has slightly different scores: there the convolutions see zeros around it, here
    the surrounding pixels.
    """

    def __init__(self, backbone: nn.Sequential, head: nn.Module, window: int, stride: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.window = window
        self.stride = stride

    def forward(self, images: Tensor) -> Tensor:
        """Raw scores (N, classes, rows, columns) of images (N, C, H, W)."""
        scores: Tensor = self.head(self.backbone(images))
        return scores


class _Pointwise(nn.Module):
    """Applies a module for feature vectors (N, C) at every position of maps (N, C, H, W)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, F, H, W) of maps (N, C, H, W)."""
        vectors = maps.permute(0, 2, 3, 1)
        out: Tensor = self.module(vectors.flatten(0, 2))
        return out.reshape(*vectors.shape[:3], -1).permute(0, 3, 1, 2)


def to_fully_convolutional(model: nn.Module, window: int | None = None) -> FullyConvolutional:
    """Convert a classifier to one for larger images, with scores for every window.

    At the classifier's own size the scores are the classifier's. At larger sizes the head slides over the backbone's
    maps: with maps of 7×7 for 224 pixels, 448 pixels give 8×8 windows. Where no layer pads, they equal the scores of
    the classifier slid over the image.

    Args:
        model: a classifier; its weights are copied.
        window: image size of the classifier in pixels; by default the one it was built with.

    Raises:
        ModelError: it is not a registered classifier, or a layer mixes the whole image.
    """
    if not isinstance(model, Classifier):
        raise ModelError(
            f"{type(model).__name__} is not a classifier with a backbone and a head",
            "pass one from create_model or load_model",
        )
    require_independent_windows(model.backbone)
    origin = getattr(model, "origin", None)
    if window is None:
        if origin is None:
            raise ModelError("the image size of the module is unknown", "pass window=PIXELS")
        window = int(origin.image_size)
    first = next(module for module in model.backbone.modules() if isinstance(module, nn.Conv2d))
    channels = first.in_channels if origin is None else origin.in_channels
    side, larger = _map_sizes(model.backbone, channels, (window, 5 * window))
    stride = round(4 * window / (larger - side))
    return FullyConvolutional(copy.deepcopy(model.backbone), _converted(model.head, side), window, stride).eval()


def require_independent_windows(backbone: nn.Sequential) -> None:
    """Raise ``ModelError`` if a layer mixes the whole image."""
    for name, module in backbone.named_modules():
        reason = _MIXING.get(type(module))
        if reason is not None:
            raise ModelError(
                f"backbone.{name}: {reason}, so that windows are not independent",
                "choose a network without it: resnet50, vgg16, mobilenet_v2, efficientnet_lite0, …",
            )


def _map_sizes(backbone: nn.Sequential, channels: int, sides: Sequence[int]) -> list[int]:
    """Sizes of the backbone's last maps for image sizes, without computing them."""
    probe = copy.deepcopy(backbone).eval().to("meta")
    with torch.no_grad():
        return [int(probe(torch.empty(1, channels, side, side, device="meta")).shape[2]) for side in sides]


def _converted(head: nn.Module, side: int) -> nn.Module:
    """The head as convolutions that read ``side`` × ``side`` maps at a time."""
    head = copy.deepcopy(head)
    if type(head) is ClassificationHead:
        return nn.Sequential(nn.AvgPool2d(side, stride=1), head.dropout, _convolution(head.classifier, 1))
    if isinstance(head, DenseHead):
        return _dense(head, side)
    if isinstance(head, simple_cnn.DenseHead):
        after = (head.activation, head.dropout)
        dense1, dense2, classifier = head.dense1, head.dense2, head.classifier
        return nn.Sequential(
            _convolution(dense1, side), *after, _convolution(dense2, 1), *after, _convolution(classifier, 1)
        )
    if isinstance(head, lenet.LeNetHead):
        dense, activation = head.f6
        assert isinstance(dense, nn.Linear)
        return nn.Sequential(_convolution(dense, side), activation, _Pointwise(head.classifier))
    raise ModelError(f"the head {type(head).__name__} cannot be converted to convolutions", "use a registered network")


def _dense(head: DenseHead, side: int) -> nn.Module:
    """A sequence of modules, of which the first dense layer reads flattened maps."""
    parts: list[nn.Module] = []
    read = side
    for part in head.children():
        if isinstance(part, nn.AdaptiveAvgPool2d):
            if part.output_size != side:
                raise ModelError(
                    f"the dense layers read {part.output_size}×{part.output_size} averages of maps {side}×{side}",
                    "pass the window that the network was built for",
                )
        elif isinstance(part, nn.Linear):
            parts.append(_convolution(part, read))
            read = 1
        elif not isinstance(part, nn.Flatten):
            parts.append(part)
    return nn.Sequential(*parts)


def _convolution(dense: nn.Linear, side: int) -> nn.Conv2d:
    """A dense layer that reads (channels, side, side) as a convolution with the same weights."""
    channels = dense.in_features // side**2
    if channels * side**2 != dense.in_features:
        raise ModelError(
            f"a dense layer reads {dense.in_features} values, which are not maps of {side}×{side}",
            "pass the window that the network was built for",
        )
    convolution = nn.Conv2d(channels, dense.out_features, side, bias=dense.bias is not None)
    with torch.no_grad():
        convolution.weight.copy_(dense.weight.view_as(convolution.weight))
        if dense.bias is not None and convolution.bias is not None:
            convolution.bias.copy_(dense.bias)
    return convolution
