"""DropBlock (Ghiasi, Lin and Le 2018, "DropBlock: A regularization method for convolutional networks", arXiv
1810.12890).

Dropout of single numbers hardly hides anything in a convolution's maps, as their neighbours say the same. DropBlock
sets square blocks of them to zero: algorithm 1 of the paper, with a mask for each map.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional


class DropBlock(nn.Module):
    """Blocks of maps are zero in training; in evaluation nothing is changed.

    Args:
        drop_prob: about the share of the numbers that is dropped, 0..1 ("1 - keep_prob").
        block_size: side of the blocks, in numbers of a map; of smaller maps their shorter side.

    Attributes:
        progress: the share of training that is done, 0..1. The probability grows with it from 0 to ``drop_prob``
            (section 3, "Scheduled DropBlock"); it is 1, and the probability constant, unless :func:`set_progress`
            is called.
    """

    def __init__(self, drop_prob: float, block_size: int = 7) -> None:
        super().__init__()
        self.drop_prob, self.block_size = drop_prob, block_size
        self.progress = 1.0

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) of the same shape, scaled so that the mean of all stays about the same."""
        probability = self.drop_prob * self.progress
        if not self.training or not probability:
            return maps
        height, width = maps.shape[2:]
        side = min(self.block_size, height, width)
        kept = self._mask(maps, side, block_probability(probability, side, height, width))
        return maps * (kept * (kept.numel() / kept.sum().clamp(min=1))).to(maps.dtype)

    @staticmethod
    def _mask(maps: Tensor, side: int, probability: float) -> Tensor:
        """1 where a number is kept, 0 in blocks, all of which lie inside the maps."""
        count, channels, height, width = maps.shape
        # Where blocks have their upper left corners. In float32, as their sum is not exact in 16 bits.
        corners = torch.empty(count, channels, height - side + 1, width - side + 1, device=maps.device)
        corners.bernoulli_(probability)
        dropped = functional.max_pool2d(functional.pad(corners, 4 * [side - 1]), side, 1)
        return 1 - dropped

    def extra_repr(self) -> str:
        """The arguments."""
        return f"drop_prob={self.drop_prob:g}, block_size={self.block_size}"


def block_probability(drop_prob: float, block_size: int, height: int, width: int) -> float:
    """γ of equation 1: the probability that a block begins at a position of a map where it can."""
    positions = (height - block_size + 1) * (width - block_size + 1)
    return min(1.0, drop_prob / block_size**2 * height * width / positions)


def set_progress(modules: Iterable[nn.Module], progress: float) -> None:
    """Say how much of training is done, 0..1, to those of the modules that are a :class:`DropBlock`."""
    for module in modules:
        if isinstance(module, DropBlock):
            module.progress = progress
