"""Convolution, batch normalization, activation: the unit that most networks since 2015 are made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from hubel.layers.padding import half_of, same_conv

ReLU = partial(nn.ReLU, inplace=True)
ReLU6 = partial(nn.ReLU6, inplace=True)


class ConvNormActivation(nn.Module):
    """``activation(norm(conv(images)))`` (Ioffe and Szegedy 2015, arXiv 1502.03167, section 3.2).

    Its three parts are always there under these names; what is switched off is an ``nn.Identity``. Code that
    folds the normalization into the convolution for prediction finds them so.

    Args:
        in_channels: channels of the images.
        out_channels: channels of the maps.
        kernel_size: side of a square kernel, or height and width.
        stride: step of the kernel.
        padding: pixels added on each side, or above and below and to the left and right; by default half the kernel,
            which keeps the size at stride 1.
        groups: see :class:`torch.nn.Conv2d`; ``in_channels`` for a depthwise convolution.
        same: pad as TensorFlow's ``SAME`` does (:mod:`hubel.layers.padding`), instead of ``padding``.
        norm: makes the normalization of so many channels; ``None`` for none. The convolution has biases only
            then, since a normalization would cancel them.
        activation: makes the activation; ``None`` for none.
    """

    conv: nn.Conv2d
    norm: nn.Module
    activation: nn.Module

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        same: bool = False,
        norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        activation: Callable[[], nn.Module] | None = ReLU,
    ) -> None:
        super().__init__()
        bias = norm is None
        if same:
            self.conv = same_conv(in_channels, out_channels, kernel_size, stride, groups, bias)
        else:
            padding = half_of(kernel_size) if padding is None else padding
            self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups, bias=bias)
        self.norm = nn.Identity() if norm is None else norm(out_channels)
        self.activation = nn.Identity() if activation is None else activation()

    def forward(self, images: Tensor) -> Tensor:
        """Maps (N, out_channels, H', W') of images (N, in_channels, H, W)."""
        maps: Tensor = self.activation(self.norm(self.conv(images)))
        return maps
