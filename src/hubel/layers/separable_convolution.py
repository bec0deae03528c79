"""Convolutions that filter each channel by itself, and those that mix the channels afterwards."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.padding import SameConv2d, half_of


class DepthwiseConv2d(SameConv2d):
    """Kernels of their own for each channel: a convolution with as many groups as channels.

    Maps (N, channels, H, W) become maps (N, channels * multiplier, H', W'); those of one channel are neighbours.

    Args:
        channels: of the input.
        kernel_size: side of a square kernel, or height and width.
        stride: step of the kernel.
        padding: pixels added on each side; by default half the kernel.
        multiplier: kernels of each channel.
        same: pad as TensorFlow's ``SAME`` does (:mod:`hubel.layers.padding`), instead of ``padding``.
        bias: one for each map that goes out.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        multiplier: int = 1,
        same: bool = False,
        bias: bool = True,
    ) -> None:
        padding = half_of(kernel_size) if padding is None else padding
        super().__init__(channels, channels * multiplier, kernel_size, stride, padding, groups=channels, bias=bias)
        self.same = same

    def forward(self, input: Tensor) -> Tensor:
        """Maps (N, channels * multiplier, H', W') of maps (N, channels, H, W)."""
        return super().forward(input) if self.same else nn.Conv2d.forward(self, input)


class SeparableConv2d(nn.Sequential):
    """A depthwise convolution, then a 1×1 convolution (pointwise), and nothing in between.

    Chollet 2016, arXiv 1610.02357, sections 1.2 and 4.7: an activation in between does harm.

    ``kernel_size``, ``stride``, ``padding``, ``multiplier`` and ``same`` are those of :class:`DepthwiseConv2d`.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        norm: builds the normalization after the pointwise convolution; ``None`` for none. Only then there are biases.
        activation: builds the activation after that; ``None`` for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        multiplier: int = 1,
        same: bool = False,
        norm: Callable[[int], nn.Module] | None = None,
        activation: Callable[[], nn.Module] | None = None,
    ) -> None:
        depthwise = DepthwiseConv2d(in_channels, kernel_size, stride, padding, multiplier, same, bias=False)
        pointwise = ConvNormActivation(in_channels * multiplier, out_channels, 1, norm=norm, activation=activation)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))
