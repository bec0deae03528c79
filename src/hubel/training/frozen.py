"""Frozen layers need no gradients and no BatchNorm of their own: they run as for prediction, fused.

Their output is the same up to rounding, and on a CPU they take half the time.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hubel.inference.fusion import fuse
from hubel.models.base import Network
from hubel.training.recomputation import recomputed


class UpperPart(nn.Module):
    """The parts of a network from ``first`` on, its head, and the auxiliary heads of those parts.

    It shares their weights, and maps what the parts below give, (N, C, H, W), to raw outputs: a list of the head's,
    followed in training mode by those of the auxiliary heads, lowest part first.

    With ``recompute``, what happens within a part is not kept for the backward pass, but computed again in it.
    """

    def __init__(self, model: Network, first: int, recompute: bool = False) -> None:
        super().__init__()
        self.recompute = recompute
        parts = list(model.backbone.named_children())[first:]
        self.parts = nn.Sequential(OrderedDict(parts))
        self.head = model.head
        self.auxiliary = nn.ModuleDict({name: model.auxiliary[name] for name, _ in parts if name in model.auxiliary})

    def forward(self, maps: Tensor) -> list[Tensor]:
        """The raw output of each head, that of the network's own first."""
        auxiliary = []
        for name, part in self.parts.named_children():
            maps = recomputed(part, maps) if self.recompute and self.training else part(maps)
            if self.training and name in self.auxiliary:
                auxiliary.append(self.auxiliary[name](maps))
        return [self.head(maps), *auxiliary]


class WholeNetwork(nn.Module):
    """A network that is not divisible; its output comes in a list as :class:`UpperPart` gives it."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> list[Any]:
        """The raw output of images (N, C, H, W)."""
        return [self.model(images)]


def upper_part(model: Network, first: int = 0, recompute: bool = False) -> nn.Module:
    """What learns of a network, from images or from the maps of its frozen lower part to a list of raw outputs."""
    return UpperPart(model, first, recompute) if model.divisible else WholeNetwork(model)


@dataclass(frozen=True)
class FrozenLower:
    """The lowest parts of a network that do not learn.

    Attributes:
        parts: how many of the backbone's parts these are.
        network: they, fused; images (N, C, H, W) → maps.
        dtype: of the network's weights and of what it takes. Autocast, which casts for layers, does not know the fused
            ones.
    """

    parts: int
    network: nn.Module
    dtype: torch.dtype = torch.float32

    def __call__(self, images: Tensor) -> Tensor:
        """Maps of images, without a gradient."""
        with torch.no_grad():
            maps: Tensor = self.network(images.to(self.dtype))
        return maps


def frozen_lower(model: Network, device: torch.device, dtype: torch.dtype) -> FrozenLower:
    """Take the parts below the first that learns, wholly or in part."""
    children = list(model.backbone.children())
    first = len(children) if model.divisible else 0
    for index, part in enumerate(children[:first]):
        if any(parameter.requires_grad for parameter in part.parameters()):
            first = index
            break
    if not first:
        return FrozenLower(0, nn.Identity())
    return FrozenLower(first, fuse(nn.Sequential(*children[:first]).eval(), device, dtype), dtype)
