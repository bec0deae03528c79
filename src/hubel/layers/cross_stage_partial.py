"""The cross-stage partial wrapper: half of the maps bypass a block of layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU


class CrossStagePartial(nn.Module):
    """Splits maps in two, sends the second part through any block and a transition, and merges both again.

    Wang et al. 2019, arXiv 1911.11929, section 3.1, figures 2b and 5: gradients of the part that crosses the stage
    are not computed again in every layer of the block, and the block works on fewer maps::

        maps ── split ─┬─────────────────────── first part ──┐
                       └─ second part ── block ── transition ─┴─ concatenation ── merge

    Split, transition and merge are 1×1 convolutions with normalization. Darknet's files have two convolutions side
    by side in place of the split, which is the same: the first's maps are the first part; but they concatenate the
    second part before the first.

    Args:
        in_channels: of the maps that come in.
        out_channels: of the maps that go out.
        block: maps (N, part_channels, H, W) to (N, block_channels, H, W).
        part_channels: of each part; ``None``: no convolution splits, the maps that come in are cut in halves, of
            which the second is the larger if their number is odd (figure 2b).
        block_channels: what ``block`` gives; by default as many as it gets.
        activation: makes the activation of transition and merge.
        split_activation: makes the activation of the split; ``None`` for none.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        block: nn.Module,
        part_channels: int | None = None,
        block_channels: int | None = None,
        activation: Callable[[], nn.Module] | None = ReLU,
        split_activation: Callable[[], nn.Module] | None = ReLU,
    ) -> None:
        super().__init__()
        self.split: nn.Module = nn.Identity()
        first, second = in_channels // 2, in_channels - in_channels // 2
        if part_channels is not None:
            self.split = ConvNormActivation(in_channels, 2 * part_channels, 1, activation=split_activation)
            first = second = part_channels
        self.parts = (first, second)
        self.block = block
        self.transition = ConvNormActivation(block_channels or second, second, 1, activation=activation)
        self.merge = ConvNormActivation(first + second, out_channels, 1, activation=activation)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, out_channels, H, W) of maps (N, in_channels, H, W)."""
        first, second = self.split(maps).split(self.parts, dim=1)
        second = self.transition(self.block(second))
        merged: Tensor = self.merge(torch.cat((first, second), dim=1))
        return merged
