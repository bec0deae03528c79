"""Convolution, normalization and activation as one module, and local response normalization."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor, nn

from hubel.layers.padding import half_of, same_conv

ReLU = partial(nn.ReLU, inplace=True)
ReLU6 = partial(nn.ReLU6, inplace=True)


class ConvNormActivation(nn.Module):
    """``activation(norm(conv(images)))`` (Ioffe and Szegedy 2015, arXiv 1502.03167, section 3.2).

    The three parts always have these names; one that is switched off is an ``nn.Identity``. Fusion of convolutions with
    their normalizations relies on that.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        kernel_size: side of a square kernel, or height and width.
        stride: step of the kernel.
        padding: pixels added on each side, or above and below and to the left and right; by default half the kernel,
            which keeps the size at stride 1.
        groups: see :class:`torch.nn.Conv2d`; ``in_channels`` for a depthwise convolution.
        same: pad as TensorFlow's ``SAME`` does (:mod:`hubel.layers.padding`), instead of ``padding``.
        norm: builds the normalization of a number of channels; ``None``: none, and the convolution has biases, which a
            normalization would cancel.
        activation: builds the activation; ``None`` for none.
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
        """Images (N, in_channels, H, W) to maps (N, out_channels, H', W')."""
        maps: Tensor = self.activation(self.norm(self.conv(images)))
        return maps


def local_response_norm(size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0) -> nn.LocalResponseNorm:
    """``b_i = a_i / (k + alpha * sum of a_j² over size neighbouring maps j) ** beta``.

    Krizhevsky et al. 2012, "ImageNet Classification with Deep Convolutional Neural Networks", section 3.3, whose
    constants are the defaults. torch divides its α by the number of maps, so it is given ``alpha * size``
    (TensorFlow does not divide, and calls ``size // 2`` the depth radius). ``size`` is odd, as the sum is centred on
    the map itself; the first and last maps have fewer neighbours. Maps keep their shape (N, C, H, W).
    """
    return nn.LocalResponseNorm(size, alpha * size, beta, k)
