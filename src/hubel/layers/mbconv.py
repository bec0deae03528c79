"""The inverted residual unit of MobileNet-v2 and -v3, MnasNet and the EfficientNets, which call it MBConv."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from hubel.layers.conv_norm_act import ConvNormActivation, ReLU6


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


_ConvNormReLU6 = partial(ConvNormActivation, activation=ReLU6)


class InvertedResidual(nn.Module):
    """Widens by a 1×1, filters each channel by itself, narrows by a 1×1 without activation; with a shortcut
    between the narrow ends where the shape stays.

    Sandler et al. 2018, arXiv 1801.04381, section 3.3 and table 1; with squeeze-and-excitation Howard et al. 2019,
    arXiv 1905.02244, figure 4.

    Args:
        in_channels: of the maps that come in.
        wide: channels in between. If they are ``in_channels``, nothing widens.
        out_channels: of the maps that go out.
        kernel: side of the depthwise kernel.
        stride: of the depthwise convolution.
        conv: makes the convolutions, called as :class:`ConvNormActivation` is; with ReLU6 by default.
        squeeze: weighs the ``wide`` filtered maps, e.g. a ``SqueezeExcitation``; ``None`` for nothing.
        drop: share of the images for which the unit is passed by while training, 0..1. Only units with a
            shortcut can be.
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
        if self.training:  # else the sum follows on the convolution, which can then compute it (runtime.fusion)
            out = self.stochastic_depth(out)
        out += maps
        return out


def make_divisible(channels: int, width: float) -> int:
    """``channels * width`` to the nearest multiple of 8, but never more than 10 % below the product.

    How the authors of the networks made of these units round; none of the papers says it.
    """
    product = channels * width
    rounded = max(8, int(product + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * product else rounded
