"""Layers that enlarge maps by a whole number: sub-pixel convolution, and bicubic interpolation as one.

A sub-pixel convolution (Shi et al. 2016, arXiv 1609.05158, section 3.2) computes s² maps at the resolution of its
input, and a *pixel shuffle* joins them: map ``s · i + j`` holds the pixel at row i and column j of each block of s × s.
It computes what a transposed convolution of stride s does, without the zeros that this one multiplies by.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

BICUBIC_RADIUS = 2
"""Pixels on each side that an interpolated one depends on."""


def cubic(distance: Tensor, a: float = -0.5) -> Tensor:
    """Weight of a sample by its distance in pixels (Keys 1981, "Cubic Convolution Interpolation", equation 15).

    With ``a`` of -0.5, Keys's own, as Pillow's and MATLAB's ``bicubic``; torch and OpenCV have -0.75.
    """
    x = distance.abs()
    near = (a + 2) * x**3 - (a + 3) * x**2 + 1
    far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
    return torch.where(x <= 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def bicubic_weights(scale: int) -> Tensor:
    """Weights (scale², 5, 5) that interpolate the pixels of a block from the 5 × 5 samples around it.

    The centres of the pixels are at ``(i + 0.5) / scale - 0.5`` samples from that of the block's own.
    """
    offsets = (torch.arange(scale, device="cpu") + 0.5) / scale - 0.5
    taps = torch.arange(-BICUBIC_RADIUS, BICUBIC_RADIUS + 1, device="cpu")
    line = cubic(offsets[:, None] - taps)
    return torch.einsum("iy,jx->ijyx", line, line).flatten(0, 1)


class BicubicUpsampling(nn.Module):
    """Bicubic interpolation by a whole number, beyond the borders of the nearest pixels.

    It equals Pillow's and MATLAB's but at the borders, where Pillow leaves out the samples that are not there, and
    MATLAB mirrors. As a convolution with fixed weights and a pixel shuffle, every engine computes it alike.
    """

    weight: Tensor

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.channels, self.scale = channels, scale
        weights = bicubic_weights(scale).repeat(channels, 1, 1).unsqueeze(1)
        self.register_buffer("weight", weights.to(torch.empty(0).device), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, H, W) to (N, channels, scale · H, scale · W)."""
        # As functional.pad does with "replicate", for whose shape torch would import its compiler, in seconds.
        rows = BICUBIC_RADIUS * [maps[:, :, :1]] + [maps] + BICUBIC_RADIUS * [maps[:, :, -1:]]
        taller = torch.cat(rows, 2)
        columns = BICUBIC_RADIUS * [taller[..., :1]] + [taller] + BICUBIC_RADIUS * [taller[..., -1:]]
        padded = torch.cat(columns, 3)
        blocks = functional.conv2d(padded, self.weight, groups=self.channels)
        return functional.pixel_shuffle(blocks, self.scale)


class SubPixelConvolution(nn.Sequential):
    """A convolution to ``scale²`` times the channels, and the pixel shuffle: (N, C, H, W) to (N, C', sH, sW)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, scale: int) -> None:
        conv = nn.Conv2d(in_channels, out_channels * scale**2, kernel_size, padding=kernel_size // 2)
        super().__init__()
        self.conv = conv
        self.shuffle = nn.PixelShuffle(scale)
        icnr_(conv.weight, scale)


def icnr_(weight: Tensor, scale: int, draw: Callable[[Tensor], object] = nn.init.kaiming_normal_) -> Tensor:
    """Draw weights (scale² · C, …) of which the scale² maps of each channel have the same (ICNR).

    The layer then begins as a convolution whose result is enlarged by its nearest pixels; independent weights begin as
    a checkerboard (Aitken et al. 2017, arXiv 1707.02937, section 3).

    Args:
        weight: of the convolution before a pixel shuffle by ``scale``; filled in place.
        draw: fills weights (C, …).
    """
    if weight.is_meta:  # where there is nothing to draw, and torch would import its compiler
        return weight
    with torch.no_grad():
        kernel = torch.empty_like(weight[:: scale**2])
        draw(kernel)
        weight.copy_(kernel.repeat_interleave(scale**2, 0))
    return weight
