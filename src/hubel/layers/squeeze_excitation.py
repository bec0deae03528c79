"""Squeeze and excitation: channels are scaled depending on the whole image."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor, nn

from hubel.layers.conv_norm_act import ReLU


class SqueezeExcitation(nn.Module):
    """Scales each map by a factor 0..1 that two dense layers compute from the means of all maps.

    Hu et al. 2018, arXiv 1709.01507, section 3: squeeze (equation 2), excitation (equation 3), scale (equation
    4). The dense layers are 1×1 convolutions, which avoids reshaping.

    Args:
        reduced: units of the first dense layer; the paper's ``channels // 16`` by default, at least 1.
        activation: builds the activation between the two.
        gate: builds the function of the factors; MobileNet-v3 has a piecewise linear one.
    """

    def __init__(
        self,
        channels: int,
        reduced: int | None = None,
        activation: Callable[[], nn.Module] = ReLU,
        gate: Callable[[], nn.Module] = nn.Sigmoid,
    ) -> None:
        super().__init__()
        reduced = max(1, channels // 16) if reduced is None else reduced
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(reduced, channels, 1)
        self.gate = gate()

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W), scaled; the same shape."""
        factors = maps.mean((2, 3), keepdim=True)
        factors = self.gate(self.expand(self.activation(self.reduce(factors))))
        scaled: Tensor = maps * factors
        return scaled


def with_se(module: nn.Module, channels: int, se: bool) -> nn.Module:
    """The module, followed by squeeze and excitation of its maps (N, channels, H, W) if ``se``."""
    return nn.Sequential(OrderedDict(module=module, se=SqueezeExcitation(channels))) if se else module
