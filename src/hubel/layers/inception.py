"""Parallel branches over the same maps: the inception module, and any modules concatenated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.squeeze_excitation import SqueezeExcitation


class InceptionModule(nn.Module):
    """Four branches over the same maps, their outputs stacked (Szegedy et al. 2014, arXiv 1409.4842, figure 2b).

    A 1×1 convolution; a 1×1 that narrows before a 3×3; a 1×1 that narrows before a 5×5; 3×3 pooling before a
    1×1 that narrows. Maps (N, in_channels, H, W) become (N, :attr:`out_channels`, ceil(H / stride), ceil(W / stride)).

    Args:
        in_channels: of the input.
        one: channels of the 1×1 branch; 0: no such branch.
        three: channels of the 3×3 branch, of its 1×1, then of its 3×3; ``five`` is the same for the 5×5.
        projection: channels of the pooling branch; 0: the pooled maps are passed through.
        kernels: of the 5×5 branch in sequence; ``(3, 3)`` has the same receptive field for less (Ioffe and Szegedy
            2015, arXiv 1502.03167, appendix).
        stride: of the last convolution of each branch, and of the pooling. With ``one=0`` no pixel is skipped; with
            ``projection=0`` as well, the module replaces a pooling layer (Ioffe and Szegedy, appendix).
        se: squeeze and excitation of the stacked maps (Hu et al. 2018, arXiv 1709.01507, figure 2).
        unit: builds a convolution from channels in, channels out, kernel and stride.
    """

    def __init__(
        self,
        in_channels: int,
        one: int,
        three: tuple[int, int],
        five: tuple[int, int],
        projection: int,
        kernels: tuple[int, ...] = (5,),
        pool: Literal["max", "average"] = "max",
        stride: int = 1,
        se: bool = False,
        unit: Callable[[int, int, int, int], nn.Module] = ConvNormActivation,
    ) -> None:
        super().__init__()

        def narrow_then(widths: tuple[int, int], kernels: tuple[int, ...]) -> nn.Sequential:
            narrow, wide = widths
            branch = nn.Sequential(unit(in_channels, narrow, 1, 1))
            for index, kernel in enumerate(kernels, start=1):
                branch.append(unit(narrow, wide, kernel, stride if index == len(kernels) else 1))
                narrow = wide
            return branch

        self.branches = nn.ModuleDict()
        if one:
            self.branches["1x1"] = unit(in_channels, one, 1, stride)
        self.branches["3x3"] = narrow_then(three, (3,))
        self.branches["5x5"] = narrow_then(five, kernels)
        pooling = nn.MaxPool2d if pool == "max" else nn.AvgPool2d
        projected = [unit(in_channels, projection, 1, 1)] if projection else []
        self.branches["pool"] = nn.Sequential(pooling(3, stride, padding=1), *projected)
        self.out_channels = one + three[1] + five[1] + (projection or in_channels)
        self.excitation = SqueezeExcitation(self.out_channels) if se else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Stacked outputs of the branches, which have one size."""
        stacked = torch.cat([branch(maps) for branch in self.branches.values()], dim=1)
        out: Tensor = self.excitation(stacked)
        return out


class Concat(nn.Module):
    """Modules over the same maps, their outputs concatenated along the channels.

    Szegedy et al. 2014, arXiv 1409.4842, figure 2. They are named ``branch0``, ``branch1``, … and must have outputs of
    one size; their channels are joined in this order.
    """

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        for number, branch in enumerate(branches):
            self.add_module(f"branch{number}", branch)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, sum of the branches' channels, H', W') of maps (N, C, H, W)."""
        return torch.cat([branch(maps) for branch in self.children()], dim=1)
