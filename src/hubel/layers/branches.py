"""What an inception module is: branches side by side."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Branches(nn.Module):
    """Modules that all read the same maps; what they give is joined along the channels.

    Szegedy et al. 2014, arXiv 1409.4842, figure 2. They are named ``branch0``, ``branch1``, … and have to give maps
    of one size.

    Args:
        branches: in the order in which their channels are joined.
    """

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, sum of the branches' channels, H', W') of maps (N, C, H, W)."""
        return torch.cat([branch(maps) for branch in self.children()], dim=1)
