"""The inverted residual unit of MobileNet-v2 and -v3, MnasNet and the EfficientNets, which call it MBConv."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU6


class StochasticDepth(nn.Module):
    """Zeroes the maps of random images during training, so that only the shortcut remains for these.

    Huang et al. 2016, arXiv 1603.09382, section 3. The paper scales in prediction; here the other images' maps are
    multiplied by 1 / (1 - drop) during training, which has the same mean.

    ``drop`` is the probability, at least 0 and below 1.
    """

    def __init__(self, drop: float) -> None:
        super().__init__()
        self.drop = drop

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W), of each image all or none."""
        if not self.training or self.drop == 0:
            return maps
        survival = 1 - self.drop
        factors = maps.new_empty((maps.shape[0], 1, 1, 1)).bernoulli_(survival).div_(survival)
        return maps * factors

    def extra_repr(self) -> str:
        """Arguments shown by ``print``."""
        return f"drop={self.drop}"


_ConvNormReLU6 = partial(ConvNormActivation, activation=ReLU6)


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise convolution, 1×1 projection without activation; a shortcut where the shape is unchanged.

    Sandler et al. 2018, arXiv 1801.04381, section 3.3 and table 1; with squeeze-and-excitation Howard et al. 2019,
    arXiv 1905.02244, figure 4.

    Args:
        wide: channels in between; there is no expansion if they equal ``in_channels``.
        kernel: side of the depthwise kernel.
        conv: builds the convolutions, with the arguments of :class:`ConvNormActivation`; with ReLU6 by default.
        squeeze: applied to the ``wide`` filtered maps, e.g. a ``SqueezeExcitation``.
        drop: probability of skipping a unit with a shortcut during training.
    """

    def __init__(
        self,
        in_channels: int,
        wide: int,
        out_channels: int,
        kernel: int,
        stride: int,
        conv: Callable[..., ConvNormActivation] = _ConvNormReLU6,
        squeeze: nn.Module | None = None,
        drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.expand = nn.Identity() if wide == in_channels else conv(in_channels, wide, 1)
        self.depthwise = conv(wide, wide, kernel, stride, groups=wide)
        self.squeeze = nn.Identity() if squeeze is None else squeeze
        self.project = conv(wide, out_channels, 1, activation=None)
        self.stochastic_depth = StochasticDepth(drop)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, out_channels, ceil(H / stride), ceil(W / stride)) of maps (N, in_channels, H, W)."""
        out: Tensor = self.project(self.squeeze(self.depthwise(self.expand(maps))))
        if not self.has_shortcut:
            return out
        if self.training:  # otherwise the sum follows the convolution directly, and can be fused with it
            out = self.stochastic_depth(out)
        out += maps
        return out


def make_divisible(channels: int, width: float) -> int:
    """``channels * width`` rounded to a multiple of 8, but not more than 10 % down, as the authors' code does."""
    product = channels * width
    rounded = max(8, int(product + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * product else rounded
