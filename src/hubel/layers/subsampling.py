"""LeNet-5's subsampling: pooling with a trainable coefficient and bias a map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TrainableSubsampling(nn.Module):
    """Adds the inputs of each window, times a trainable coefficient, plus a trainable bias: one of each a
    map.

    It is the sum, not the mean, that is multiplied (LeCun et al. 1998, section II.B, layer S2). The squashing
    function that follows in the paper is a layer of its own. Windows do not overlap; an odd row or column at
    the end is left out.

    Args:
        channels: maps in and out.
        size: side of the window in pixels.

    Attributes:
        weight: (channels,) coefficients.
        bias: (channels,).
    """

    def __init__(self, channels: int, size: int = 2) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = size
        self.stride = size
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±2.4 / fan-in, as the paper's appendix A has it; the fan-in is the window."""
        bound = 2.4 / self.kernel_size**2
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, H // size, W // size) of maps (N, channels, H, W)."""
        sums = F.avg_pool2d(maps, self.kernel_size) * self.kernel_size**2
        return sums * self.weight[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """What ``print`` says of the layer."""
        return f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}"
