"""Stochastic depth: while training, residual units are passed by at random."""

from __future__ import annotations

from torch import Tensor, nn


class StochasticDepth(nn.Module):
    """While training, makes the maps of a random share of the images zero, and those of the others larger.

    Put before the sum with the shortcut, it leaves only the shortcut to those images (Huang et al. 2016, arXiv
    1603.09382, section 3). The paper scales when predicting; scaling by 1 / (1 - drop) while training has the
    same mean and leaves prediction as it is.

    Args:
        drop: share of the images, 0..1 without 1.
    """

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W), of each image all or none; the same shape."""
        if not self.training or self.drop == 0:
            return maps
        kept = 1 - self.drop
        factors = maps.new_empty((maps.shape[0], 1, 1, 1)).bernoulli_(kept).div_(kept)
        return maps * factors

    def extra_repr(self) -> str:
        """What ``print`` says of the layer."""
        return f"drop={self.drop}"
