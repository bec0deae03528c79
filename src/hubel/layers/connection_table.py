"""A convolution whose maps each see only some of the input maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# LeCun et al. 1998, table I: for each map of C3, the maps of S2 that it sees; 60 pairs out of 96.
LENET5_C3 = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


class ConnectionTableConv2d(nn.Module):
    """A convolution without padding, with one kernel for each pair of maps in a table and none for the
    others.

    LeCun et al. 1998, section II.B, layer C3: it breaks the symmetry between maps and saves connections.
    Kernels outside the table do not exist; they are laid out as zeros for the computation only.

    Args:
        in_channels: maps that come in.
        table: for each output map, the numbers of the input maps that it sees, from 0.
        kernel_size: side of the square kernels.

    Attributes:
        weight: (pairs, kernel_size, kernel_size), in the order of the table, input maps ascending.
        bias: (output maps,).
        places: (pairs,) where each kernel stands among all ``output * in_channels + input``.
    """

    places: Tensor

    def __init__(self, in_channels: int, table: Sequence[Sequence[int]], kernel_size: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = len(table)
        self.kernel_size = (kernel_size, kernel_size)
        self.stride = (1, 1)
        self.padding = (0, 0)
        self.connections = tuple(len(seen) for seen in table)
        places = [out * in_channels + seen for out, row in enumerate(table) for seen in sorted(row)]
        self.register_buffer("places", torch.tensor(places))
        self.weight = nn.Parameter(torch.empty(len(places), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(self.out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±2.4 / fan-in, as the paper's appendix A has it; the fan-in differs from map to map."""
        area = self.kernel_size[0] * self.kernel_size[1]
        kernels = self.weight.split(self.connections)
        with torch.no_grad():
            for out, count in enumerate(self.connections):
                bound = 2.4 / (count * area)
                kernels[out].uniform_(-bound, bound)
                self.bias[out].uniform_(-bound, bound)

    def dense_weight(self) -> Tensor:
        """All kernels (out_channels, in_channels, kernel_size, kernel_size), zeros outside the table."""
        everything = self.weight.new_zeros(self.out_channels * self.in_channels, *self.kernel_size)
        placed = everything.index_copy(0, self.places, self.weight)
        return placed.view(self.out_channels, self.in_channels, *self.kernel_size)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, out_channels, H - kernel_size + 1, W - kernel_size + 1) of maps (N, in_channels, H, W)."""
        return F.conv2d(maps, self.dense_weight(), self.bias)

    def extra_repr(self) -> str:
        """What ``print`` says of the layer."""
        pairs = f"{len(self.places)} of {self.in_channels * self.out_channels} pairs"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {pairs}"
