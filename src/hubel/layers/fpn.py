"""The feature pyramid network.

Lin et al. 2017, "Feature Pyramid Networks for Object Detection", arXiv 1612.03144, section 3.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from hubel.layers.conv_norm_act import ConvNormActivation
from hubel.layers.init import initialize
from hubel.layers.padding import plain_size


class FeaturePyramid(nn.Module):
    """A backbone's maps with the meaning of the coarsest brought down to the finest, and one level more.

    Each map goes through a 1×1 convolution, and the sum of it and of the coarser one, whose pixels are doubled, through
    a 3×3 convolution. The last level is every second row and column of the coarsest ("subsampling", footnote 2).
    There are no activations. Initialization, which the paper leaves open, is that of the authors' code: uniform, with
    a variance of 1 / fan-in.

    Args:
        in_channels: of the backbone's maps, large to small.
        channels: of all levels that come out.
        norm: builds a normalization of a number of channels, which follows each convolution; ``None``, as in the
            paper: biases instead.
    """

    def __init__(
        self, in_channels: Sequence[int], channels: int, norm: Callable[[int], nn.Module] | None = None
    ) -> None:
        super().__init__()
        conv = partial(ConvNormActivation, norm=norm, activation=None)
        self.lateral = nn.ModuleList(conv(each, channels, 1) for each in in_channels)
        self.output = nn.ModuleList(conv(channels, channels, 3) for _ in in_channels)
        initialize(self, partial(nn.init.kaiming_uniform_, a=1))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Levels (N, channels, H, W), large to small, one more than maps."""
        laterals = [lateral(each) for lateral, each in zip(self.lateral, maps, strict=True)]
        merged = [laterals.pop()]
        while laterals:
            own = laterals.pop()
            merged.append(own + functional.interpolate(merged[-1], size=plain_size(own), mode="nearest"))
        levels = [output(each) for output, each in zip(self.output, reversed(merged), strict=True)]
        return [*levels, functional.max_pool2d(levels[-1], 1, stride=2)]
