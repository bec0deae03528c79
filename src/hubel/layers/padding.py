"""TensorFlow's ``SAME`` padding: the output has ``ceil(size / stride)`` pixels, and an odd pixel of padding
goes to the right and bottom.

torch.nn pads both sides alike, which for strides above 1 reads other pixels than TensorFlow does; weights
trained there (all of Google's EfficientNets and MobileNets) want theirs.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def same_padding(size: int, kernel: int, stride: int = 1, dilation: int = 1) -> tuple[int, int]:
    """Pixels to add before and after one axis of ``size`` pixels, which may be symbolic while exporting.

    ``before <= after <= before + 1``. Source: TensorFlow's documentation of ``tf.nn``, "SAME padding". For plain
    numbers without torch: :func:`hubel.layers.output_size.same_padding`.
    """
    if torch._C._is_tracing():  # sizes are tensors then; a trace is of one size
        size = int(size)
    positions = (size + stride - 1) // stride
    # Python's max would tie an exported graph to the sizes it was exported with.
    total = cast(int, torch.sym_max((positions - 1) * stride + dilation * (kernel - 1) + 1 - size, 0))
    return total // 2, total - total // 2


def plain_size(maps: Tensor) -> tuple[int, int]:
    """Height and width of maps (N, C, H, W): plain numbers in a trace, too, which is of one size."""
    height, width = maps.shape[-2:]
    return (int(height), int(width)) if torch._C._is_tracing() else (height, width)


class SameConv2d(nn.Conv2d):
    """A convolution with ``SAME`` padding, worked out from the size of each input.

    Takes the arguments of :class:`torch.nn.Conv2d` without ``padding``.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Maps (N, out_channels, ceil(H / stride), ceil(W / stride)) of images (N, C, H, W)."""
        height, width = input.shape[-2:]
        top, bottom = same_padding(height, self.kernel_size[0], self.stride[0], self.dilation[0])
        left, right = same_padding(width, self.kernel_size[1], self.stride[1], self.dilation[1])
        # A comparison of symbolic sizes would tie an exported graph to odd or even ones.
        sizes_known = isinstance(top, int) and isinstance(left, int)
        if sizes_known and top == bottom and left == right:
            symmetric = (top, left)
        else:
            input = F.pad(input, (left, right, top, bottom))
            symmetric = (0, 0)
        return F.conv2d(input, self.weight, self.bias, self.stride, symmetric, self.dilation, self.groups)


def half_of(kernel_size: int | tuple[int, int]) -> tuple[int, int]:
    """Padding above and below, left and right, with which a kernel of odd sides keeps the size of the maps."""
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    return height // 2, width // 2


def same_conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d:
    """The cheapest convolution with ``SAME`` padding: a plain one where both sides get as much anyway."""
    sides = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    if stride == 1 and all(side % 2 == 1 for side in sides):
        padding = half_of(kernel_size)
        return nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, groups=groups, bias=bias)
    return SameConv2d(in_channels, out_channels, kernel_size, stride, groups=groups, bias=bias)
