"""A classifier that looks everywhere at once: its dense layers as convolutions.

Sermanet et al. 2014, "OverFeat", arXiv 1312.6229, section 3.5; Long et al. 2015, arXiv 1411.4038, section 3.1.

What the network computes for neighbouring windows of an image is mostly the same. Its convolutions run once over the
whole image, and the head slides over their maps instead of the network over the image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.layers.pooling import GlobalAveragePool2d
from hubel.layers.squeeze_excitation import SqueezeExcitation
from hubel.models.base import ClassificationHead, Classifier
from hubel.models.classification import lenet, simple_cnn
from hubel.models.classification.alexnet import DenseHead

# They mix all places of an image: a window's answer then depends on what is around it.
_MIXING: dict[type[nn.Module], str] = {
    SqueezeExcitation: "squeeze-and-excitation weighs channels by their mean over the whole image",
    nn.AdaptiveAvgPool2d: "its pooling divides the whole image into a fixed grid",
    GlobalAveragePool2d: "global pooling takes the mean over the whole image",
}


class FullyConvolutional(nn.Module):
    """Maps images (N, C, H, W) of any size to scores (N, classes, rows, columns), one for each window.

    A window is as large as the images that the classifier was made for, and lies ``stride`` pixels from the next. Where
    layers pad, a window cut out of the image and shown to the classifier gives slightly other scores: there the
    convolutions see zeros at its borders, here what really is around it.

    Args:
        backbone: of the classifier.
        head: slides over its maps.
        window: side of a window in pixels.
        stride: pixels from window to window.
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


class _AtEveryPlace(nn.Module):
    """Applies a module that takes rows of features at every place of maps (N, C, H, W)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, F, H, W) of maps (N, C, H, W)."""
        rows = maps.permute(0, 2, 3, 1)
        return self.module(rows.flatten(0, 2)).unflatten(0, rows.shape[:3]).permute(0, 3, 1, 2)


def to_fully_convolutional(model: nn.Module, window: int | None = None) -> FullyConvolutional:
    """The same classifier for images of any larger size, with an answer for every window.

    At the classifier's own size the one answer is the classifier's. At a larger size the answers are those of the head
    slid over the backbone's maps: 224 pixels give 1×1, 448 give 8×8 for a network whose maps of 224 pixels are 7×7.
    They equal those of the classifier slid over the image where no layer pads.

    Args:
        model: a classifier; it is left as it is.
        window: side in pixels of the images that it was made for; by default what it was built with.

    Returns:
        The network in evaluation mode, with copies of the weights.

    Raises:
        ModelError: it is no classifier of the registry, or a layer mixes the whole image.
    """
    if not isinstance(model, Classifier):
        raise ModelError(
            f"{type(model).__name__} is no classifier with a backbone and a head.",
            "Give one that create_model or load_model makes.",
        )
    require_independent_windows(model.backbone)
    origin = getattr(model, "origin", None)
    if window is None:
        if origin is None:
            raise ModelError("The module does not know for which images it was made.", "Give window=PIXELS.")
        window = int(origin.image_size)
    first = next(module for module in model.backbone.modules() if isinstance(module, nn.Conv2d))
    channels = first.in_channels if origin is None else origin.in_channels
    side, larger = _map_sides(model.backbone, channels, (window, 5 * window))
    stride = round(4 * window / (larger - side))
    return FullyConvolutional(copy.deepcopy(model.backbone), _converted(model.head, side), window, stride).eval()


def require_independent_windows(backbone: nn.Sequential) -> None:
    """Refuse layers that mix the whole image.

    Raises:
        ModelError: there is one; says which, and why it cannot be.
    """
    for name, module in backbone.named_modules():
        reason = _MIXING.get(type(module))
        if reason is not None:
            raise ModelError(
                f"backbone.{name}: {reason}, so that windows are not independent.",
                "Choose a network without it: resnet50, vgg16, mobilenet_v2, efficientnet_lite0, …",
            )


def _map_sides(backbone: nn.Sequential, channels: int, sides: Sequence[int]) -> list[int]:
    """Sides of the backbone's maps of images of so many pixels; nothing is computed."""
    probe = copy.deepcopy(backbone).eval().to("meta")
    with torch.no_grad():
        return [int(probe(torch.empty(1, channels, side, side, device="meta")).shape[2]) for side in sides]


def _converted(head: nn.Module, side: int) -> nn.Module:
    """The head as convolutions that read ``side`` × ``side`` maps at a time."""
    convert = _CONVERTERS.get(type(head))
    if convert is None:
        raise ModelError(
            f"The head {type(head).__name__} is not known as dense layers.", "Use a network of the registry."
        )
    return convert(copy.deepcopy(head), side)


def _averaging(head: nn.Module, side: int) -> nn.Module:
    assert isinstance(head, ClassificationHead)
    return nn.Sequential(nn.AvgPool2d(side, stride=1), head.dropout, _convolution(head.classifier, 1))


def _dense(head: nn.Module, side: int) -> nn.Module:
    """Modules in order, of which the first dense layer reads flattened maps."""
    parts: list[nn.Module] = []
    read = side
    for part in head.children():
        if isinstance(part, nn.AdaptiveAvgPool2d):
            if part.output_size != side:
                raise ModelError(
                    f"The dense layers read {part.output_size}×{part.output_size} averages of maps {side}×{side}.",
                    "Give the window for which the network was made.",
                )
        elif isinstance(part, nn.Linear):
            parts.append(_convolution(part, read))
            read = 1
        elif not isinstance(part, nn.Flatten):
            parts.append(part)
    return nn.Sequential(*parts)


def _simple(head: nn.Module, side: int) -> nn.Module:
    assert isinstance(head, simple_cnn.DenseHead)
    after = (head.activation, head.dropout)
    return nn.Sequential(
        _convolution(head.dense1, side), *after, _convolution(head.dense2, 1), *after, _convolution(head.classifier, 1)
    )


def _lenet(head: nn.Module, side: int) -> nn.Module:
    assert isinstance(head, lenet.LeNetHead)
    dense, activation = head.f6
    assert isinstance(dense, nn.Linear)
    return nn.Sequential(_convolution(dense, side), activation, _AtEveryPlace(head.classifier))


_CONVERTERS: dict[type[nn.Module], Callable[[nn.Module, int], nn.Module]] = {
    ClassificationHead: _averaging,
    DenseHead: _dense,
    simple_cnn.DenseHead: _simple,
    lenet.LeNetHead: _lenet,
}


def _convolution(dense: nn.Linear, side: int) -> nn.Conv2d:
    """A dense layer that reads (channels, side, side) as a convolution with the same weights."""
    channels = dense.in_features // side**2
    if channels * side**2 != dense.in_features:
        raise ModelError(
            f"A dense layer reads {dense.in_features} values, which is no map of side {side}.",
            "Give the window for which the network was made.",
        )
    convolution = nn.Conv2d(channels, dense.out_features, side, bias=dense.bias is not None)
    with torch.no_grad():
        convolution.weight.copy_(dense.weight.view_as(convolution.weight))
        if dense.bias is not None and convolution.bias is not None:
            convolution.bias.copy_(dense.bias)
    return convolution
