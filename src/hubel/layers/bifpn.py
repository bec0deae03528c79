"""The bidirectional feature pyramid with weighted fusion.

Tan, Pang and Le 2020, "EfficientDet: Scalable and Efficient Object Detection", arXiv 1911.09070, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.padding import plain_size
from hubel.layers.pooling import SameMaxPool2d
from hubel.layers.separable_convolution import SeparableConv2d

_EPSILON = 1e-4  # "to avoid numerical instability"


class BiFPNNode(nn.Module):
    """Fuses maps of one size, then SiLU, a separable 3×3 convolution and a normalization.

    Fast normalized fusion (section 3.3): ``sum of w_i · maps_i / (1e-4 + sum of w_i)`` with a weight for each input,
    kept at 0 or above by a ReLU. All start at 1.

    Args:
        in_channels: of the backbone's or the previous layer's maps, the first input; a 1×1 convolution and a
            normalization bring them to ``channels`` if they differ.
        inputs: how many maps it fuses.
        norm: builds a normalization of a number of channels.
        weighted: False: the plain sum, without weights.
    """

    def __init__(
        self, in_channels: int, channels: int, inputs: int, norm: Callable[[int], nn.Module], weighted: bool
    ) -> None:
        super().__init__()
        same = in_channels == channels
        self.project = (
            nn.Identity() if same else ConvNormActivation(in_channels, channels, 1, norm=norm, activation=None)
        )
        self.edge_weights = nn.Parameter(torch.ones(inputs)) if weighted else None
        self.activation = nn.SiLU(inplace=True)
        self.conv = SeparableConv2d(channels, channels, 3, norm=norm)

    def forward(self, maps: Tensor, *others: Tensor) -> Tensor:
        """Maps (N, channels, H, W) of maps (N, in_channels, H, W) and others of ``channels``."""
        inputs = [self.project(maps), *others]
        if self.edge_weights is not None:
            weights = functional.relu(self.edge_weights)
            weights = weights / (weights.sum() + _EPSILON)
            inputs = [weight * each for weight, each in zip(weights.unbind(), inputs, strict=True)]
        fused = inputs[0] + inputs[1]
        for each in inputs[2:]:
            fused = fused + each
        out: Tensor = self.conv(self.activation(fused))
        return out


class BiFPNLayer(nn.Module):
    """Down from the smallest maps to the largest, and up again; each size has nodes of its own (figure 2d).

    On the way down a node reads its level and the enlarged level above; on the way up its level, the result of the way
    down, and the reduced level below. The smallest level has no node on the way down.

    Args:
        in_channels: of each level, large to small maps; the last is ``channels``.
        pool: halves maps, rounding up.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        pool: nn.Module,
        norm: Callable[[int], nn.Module],
        weighted: bool = True,
    ) -> None:
        super().__init__()
        *down, last = in_channels
        self.top_down = nn.ModuleList(BiFPNNode(each, channels, 2, norm, weighted) for each in reversed(down))
        self.bottom_up = nn.ModuleList(BiFPNNode(each, channels, 3, norm, weighted) for each in down[1:])
        self.bottom_up.append(BiFPNNode(last, channels, 2, norm, weighted))
        self.pool = pool

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of all levels, each of the size that it had."""
        descended = [maps[-1]]
        for node, own in zip(self.top_down, reversed(maps[:-1]), strict=True):
            larger = functional.interpolate(descended[-1], size=plain_size(own), mode="nearest")
            descended.append(node(own, larger))
        first, *between = reversed(descended)
        fused = [first]
        for node, own, middle in zip(self.bottom_up, maps[1:], between, strict=True):
            smaller = _cropped(self.pool(fused[-1]), plain_size(own))
            # The smallest level has no node on the way down.
            fused.append(node(own, smaller) if middle is own else node(own, middle, smaller))
        return fused


class BiFPN(nn.Module):
    """Levels of stride 8, 16, … from a backbone's maps, fused several times.

    The coarser levels than the backbone's: a 1×1 convolution with normalization of its last maps, then pooling 3×3 with
    stride 2, once for each level.

    Args:
        in_channels: of the backbone's maps, large to small.
        channels: of all levels that come out.
        repeats: layers one after the other.
        levels: that come out; more than the backbone's.
        norm: builds a normalization of a number of channels.
        weighted: see :class:`BiFPNNode`.
        same: pool with TensorFlow's ``SAME`` padding (:mod:`hubel.layers.padding`), as the authors' code; otherwise
            with one pixel on each side.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        repeats: int,
        levels: int,
        norm: Callable[[int], nn.Module],
        weighted: bool = True,
        same: bool = True,
    ) -> None:
        super().__init__()
        self.coarser = ConvNormActivation(in_channels[-1], channels, 1, norm=norm, activation=None)
        self.pool = SameMaxPool2d(3, 2) if same else nn.MaxPool2d(3, 2, padding=1)
        self.added = levels - len(in_channels)
        first = (*in_channels, *self.added * (channels,))
        widths = [first, *(repeats - 1) * (levels * (channels,),)]
        self.layers = nn.ModuleList(BiFPNLayer(each, channels, self.pool, norm, weighted) for each in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """All levels (N, channels, H, W), large to small, from the backbone's maps."""
        levels, smallest = list(maps), self.coarser(maps[-1])
        for _ in range(self.added):
            smallest = self.pool(smallest)
            levels.append(smallest)
        for layer in self.layers:
            levels = layer(levels)
        return levels


def _cropped(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Without the last row and column where a backbone rounds the half of its maps' odd sides down."""
    return maps if plain_size(maps) == size else maps[:, :, : size[0], : size[1]]
