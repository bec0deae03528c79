"""Pooling that torch.nn lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DepthwiseMaxPool2d(nn.Module):
    """The maximum over groups of neighbouring channels, pixel by pixel.

    With kernels that are rotated, thicker or brighter versions of each other in a group, the network becomes
    invariant to what differs between them (maxout: Goodfellow et al. 2013, arXiv 1302.4389, section 2).

    Args:
        size: channels in a group.

    Raises:
        ValueError: in ``forward``, when the number of channels is no multiple of ``size``.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C / size, H, W) of maps (N, C, H, W)."""
        if maps.shape[1] % self.size:
            raise ValueError(f"{maps.shape[1]} channels do not divide into groups of {self.size}")
        return maps.unflatten(1, (-1, self.size)).amax(dim=2)

    def extra_repr(self) -> str:
        """What ``print`` says of the layer."""
        return f"size={self.size}"


class GlobalAveragePool2d(nn.Module):
    """The mean of each map (Lin et al. 2014, arXiv 1312.4400, section 3.2)."""

    def forward(self, maps: Tensor) -> Tensor:
        """Means (N, C) of maps (N, C, H, W)."""
        return torch.mean(maps, dim=(2, 3))
