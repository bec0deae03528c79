"""Transposed convolutions that begin as bilinear interpolation.

A transposed convolution with stride s stretches its input by s - 1 zeros between the pixels, and then is an ordinary
convolution, with the kernel turned by 180 degrees: the stride makes the output larger. With a kernel that falls
linearly from its middle to both ends, each zero is filled with the mean of the pixels around it, by how near they are:
bilinear interpolation (Long et al. 2015, arXiv 1411.4038, section 3.3).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def bilinear_kernel(factor: int) -> Tensor:
    """The kernel that enlarges by ``factor``: float32, square; its sum is factor²."""
    side = 2 * factor - factor % 2
    ramp = 1 - (torch.arange(side) - (side - 1) / 2).abs() / factor
    return ramp[:, None] * ramp


class BilinearUpsample2d(nn.ConvTranspose2d):
    """Enlarges maps by a factor, at first by bilinear interpolation; training may change how.

    Maps (N, channels, H, W) become (N, channels, factor · H, factor · W), of which the outermost ``factor / 2`` pixels
    are as beside zeros; or, without ``cropped``, (N, channels, factor · (H + 1), factor · (W + 1)), as Caffe has them.

    Args:
        channels: of the input and the output.
        factor: whole number of at least 2.
        grouped: each channel is enlarged by itself; else kernels lead from every channel to every other, at first
            of zeros, as in the authors' published networks.
        cropped: cut off what lies beside the image.
    """

    def __init__(self, channels: int, factor: int, grouped: bool = True, cropped: bool = True) -> None:
        side = 2 * factor - factor % 2
        padding = (side - factor) // 2 if cropped else 0
        groups = channels if grouped else 1
        super().__init__(channels, channels, side, factor, padding, groups=groups, bias=False)
        if self.weight.is_meta:  # where there is nothing to fill in, and torch would import its compiler
            return
        with torch.no_grad():
            self.weight.zero_()
            index = torch.arange(channels)
            self.weight[index, 0 if grouped else index] = bilinear_kernel(factor)
