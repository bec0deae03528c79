"""The dense block: every layer reads the maps of all layers before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU
from hubel.layers.squeeze_excitation import SqueezeExcitation


class PreActivation(nn.Sequential):
    """``activation(norm(maps))``, which pre-activation networks have before a convolution, not after it.

    He et al. 2016, arXiv 1603.05027, figure 4e. Maps keep their shape (N, channels, H, W).

    Args:
        channels: of the maps.
        norm: makes the normalization of so many channels.
        activation: makes the activation.
    """

    def __init__(
        self,
        channels: int,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] = ReLU,
    ) -> None:
        super().__init__()
        self.add_module("norm", norm(channels))
        self.add_module("activation", activation())


class DenseLayer(nn.Module):
    """Normalization, ReLU, 1×1 convolution, normalization, ReLU, 3×3 convolution.

    Huang et al. 2016, arXiv 1608.06993, section 3, "Bottleneck layers".

    Args:
        in_channels: of all the maps that come in, together.
        growth: maps that it gives (the paper's k).
        bottleneck: the 1×1 convolution gives ``bottleneck * growth`` maps.
        norm: makes the normalization of so many channels.
        se: squeeze and excitation of the maps that it gives.
    """

    def __init__(
        self,
        in_channels: int,
        growth: int,
        bottleneck: int = 4,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        se: bool = False,
    ) -> None:
        super().__init__()
        self.before = PreActivation(in_channels, norm)
        # The second normalization follows the first convolution: together they are a unit that can be fused.
        self.reduce = ConvNormActivation(in_channels, bottleneck * growth, 1, norm=norm)
        self.conv = nn.Conv2d(bottleneck * growth, growth, 3, padding=1, bias=False)
        self.se = SqueezeExcitation(growth) if se else nn.Identity()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, growth, H, W) of maps (N, in_channels, H, W)."""
        out: Tensor = self.se(self.conv(self.reduce(self.before(maps))))
        return out


class DenseBlock(nn.Module):
    """Layers each of which reads what came into the block and what all layers before it gave (equation 2).

    Its layers are named ``layer1``, ``layer2``, …

    Args:
        in_channels: of the maps that come in.
        layers: how many.
        growth: maps that each layer adds.
        bottleneck: see :class:`DenseLayer`.
        norm: makes the normalization of so many channels.
        se: see :class:`DenseLayer`.

    Attributes:
        out_channels: ``in_channels + layers * growth``.
    """

    def __init__(
        self,
        in_channels: int,
        layers: int,
        growth: int = 32,
        bottleneck: int = 4,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
        se: bool = False,
    ) -> None:
        super().__init__()
        self.out_channels = in_channels + layers * growth
        for number in range(layers):
            layer = DenseLayer(in_channels + number * growth, growth, bottleneck, norm, se)
            self.add_module(f"layer{number + 1}", layer)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, out_channels, H, W) of maps (N, in_channels, H, W); those that come in are the first."""
        for layer in self.children():
            maps = torch.cat((maps, layer(maps)), dim=1)
        return maps
