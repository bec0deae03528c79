"""Convolutions with holes: atrous spatial pyramid pooling, and networks whose last maps stay large."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from hubel.errors import ModelError
from hubel.layers.conv_norm_act import ConvNormActivation

Conv = Callable[[int, int, int], nn.Module]


def atrous_conv(in_channels: int, out_channels: int, rate: int) -> ConvNormActivation:
    """A 3×3 convolution whose taps are ``rate`` pixels apart, with normalization and ReLU; the size is kept."""
    block = ConvNormActivation(in_channels, out_channels, 3, padding=rate)
    block.conv.dilation = (rate, rate)
    return block


def atrous_separable_conv(in_channels: int, out_channels: int, rate: int = 1) -> nn.Sequential:
    """The same in two steps, each with normalization and ReLU: each channel by itself, then 1×1.

    Chen et al. 2018, arXiv 1802.02611, section 3.1, "atrous separable convolution"; after both steps as in figure 4.
    """
    depthwise = ConvNormActivation(in_channels, in_channels, 3, padding=rate, groups=in_channels)
    depthwise.conv.dilation = (rate, rate)
    return nn.Sequential(depthwise, ConvNormActivation(in_channels, out_channels, 1))


class ImagePooling(nn.Module):
    """The mean of the whole image, a 1×1 convolution, and the result at every position."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = ConvNormActivation(in_channels, out_channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, out_channels, H, W) of maps (N, in_channels, H, W)."""
        means: Tensor = self.project(maps.mean((2, 3), keepdim=True))
        return means.expand(-1, -1, maps.shape[2], maps.shape[3])


class AtrousSpatialPyramid(nn.Module):
    """A 1×1 convolution, 3×3 ones of several rates and the mean of the image side by side, then 1×1 on all of them.

    Chen et al. 2017, "Rethinking Atrous Convolution for Semantic Image Segmentation", arXiv 1706.05587, section 3.3.
    Maps (N, in_channels, H, W) become maps (N, channels, H, W).

    Args:
        in_channels: of the input.
        channels: of each branch, and of the output.
        rates: pixels between the taps of the 3×3 convolutions.
        conv: builds them: ``conv(in_channels, out_channels, rate)``.
        dropout: fraction of the output's values that are dropped in training.
        pooling: with the mean of the image.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        rates: Sequence[int],
        conv: Conv = atrous_conv,
        dropout: float = 0.5,
        pooling: bool = True,
    ) -> None:
        super().__init__()
        point = ConvNormActivation(in_channels, channels, 1)
        holes = [conv(in_channels, channels, rate) for rate in rates]
        mean = [ImagePooling(in_channels, channels)] if pooling else []
        self.branches = nn.ModuleList([point, *holes, *mean])
        self.project = ConvNormActivation(channels * len(self.branches), channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, H, W)."""
        result: Tensor = self.dropout(self.project(torch.cat([branch(maps) for branch in self.branches], 1)))
        return result


def dilate(stages: Sequence[nn.Module], first_unit_too: bool = False) -> None:
    """Take the strides out of the last stages of a network, and give the convolutions after them holes instead.

    Every filter then sees what it saw before, at more positions ("atrous convolution for dense feature extraction",
    Chen et al. 2016, arXiv 1606.00915, section 3.1). Stages are sequences of units, whose layers are in the order of
    execution. Holes begin after the convolution that halved the maps; with ``first_unit_too`` it has them itself.

    Raises:
        ModelError: no convolution has a stride of 2, as where maps are halved by pooling between the stages.
    """
    rate = 1
    for stage in stages:
        for unit in stage.children():
            layers = [layer for layer in unit.modules() if isinstance(layer, nn.Conv2d | nn.AvgPool2d)]
            before, halves = rate, any(_stride(layer) == 2 for layer in layers)
            for layer in layers:
                halving = _stride(layer) == 2
                rate = 2 * before if halving else rate
                if isinstance(layer, nn.Conv2d):
                    _spread(layer, before if halving and not first_unit_too else rate)
                elif halving:
                    layer.kernel_size = layer.stride = 1
            rate = 2 * before if halves else before
    if rate == 1:
        raise ModelError("the backbone's last stages have no strides to take out", "pass output_stride=32")


def _stride(layer: nn.Conv2d | nn.AvgPool2d) -> int:
    return layer.stride if isinstance(layer.stride, int) else max(layer.stride)


def _spread(layer: nn.Conv2d, rate: int) -> None:
    layer.stride = (1, 1)
    layer.dilation = (rate, rate)
    if layer.padding != (0, 0):  # one that pads as TensorFlow does works it out
        layer.padding = (rate * (layer.kernel_size[0] // 2), rate * (layer.kernel_size[1] // 2))
