"""Pooling that torch.nn lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hubel.layers.padding import plain_size, same_padding


class DepthwiseMaxPool2d(nn.Module):
    """The maximum over groups of neighbouring channels, pixel by pixel.

    With kernels that are rotated, thicker or brighter versions of each other in a group, the network becomes
    invariant to what differs between them (maxout: Goodfellow et al. 2013, arXiv 1302.4389, section 2).

    ``size`` is the number of channels in a group; ``forward`` raises ``ValueError`` if it does not divide theirs.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C / size, H, W) of maps (N, C, H, W)."""
        if maps.shape[1] % self.size:
            raise ValueError(f"{maps.shape[1]} channels do not divide into groups of {self.size}")
        return torch.unflatten(maps, 1, (-1, self.size)).amax(dim=2)

    def extra_repr(self) -> str:
        """Arguments shown by ``print``."""
        return f"size={self.size}"


class SameMaxPool2d(nn.Module):
    """The maximum over windows, with TensorFlow's ``SAME`` padding (:mod:`hubel.layers.padding`); stride at least 2."""

    def __init__(self, kernel_size: int, stride: int = 2) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = stride

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, ceil(H / stride), ceil(W / stride)) of maps (N, C, H, W)."""
        sizes = plain_size(maps)
        padding = [same_padding(size, self.kernel_size, self.stride)[0] for size in sizes]
        # Where the right and lower side get a pixel more, the last windows go over the edge: ceil_mode. A single window
        # may not go over it: OpenVINO refuses kernels larger than the maps.
        kernel = [
            min(self.kernel_size, size + 2 * before) if isinstance(size, int) else self.kernel_size
            for size, before in zip(sizes, padding, strict=True)
        ]
        return F.max_pool2d(maps, kernel, self.stride, padding, ceil_mode=True)

    def extra_repr(self) -> str:
        """Arguments shown by ``print``."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class GlobalAveragePool2d(nn.Module):
    """The mean of each map (Lin et al. 2014, arXiv 1312.4400, section 3.2)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Means (N, C) of maps (N, C, H, W)."""
        return torch.mean(maps, dim=(2, 3))
