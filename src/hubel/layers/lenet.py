"""Layers of LeNet-5 (LeCun et al. 1998): subsampling, connection table, radial basis output, scaled tanh."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TrainableSubsampling(nn.Module):
    """The sum of each window times a trainable coefficient, plus a trainable bias; one of each per map.

    Section II.B, layer S2; it is the sum that is multiplied, not the mean. The squashing function that follows in the
    paper is a separate layer. Windows do not overlap; an odd row or column at the end is ignored.

    Args:
        channels: maps in and out.
        size: side of the window in pixels.
    """

    def __init__(self, channels: int, size: int = 2) -> None:
        super().__init__()
        self.channels = channels
        self.kernel_size = size
        self.stride = size
        self.weight = nn.Parameter(torch.empty(channels))
        self.bias = nn.Parameter(torch.empty(channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±2.4 / fan-in (appendix A); the fan-in is the window."""
        bound = 2.4 / self.kernel_size**2
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, H // size, W // size) of maps (N, channels, H, W)."""
        sums = F.avg_pool2d(maps, self.kernel_size) * self.kernel_size**2
        return sums * self.weight[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """Arguments shown by ``print``."""
        return f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}"


# LeCun et al. 1998, table I: for each map of C3, the maps of S2 that it sees; 60 pairs out of 96.
LENET5_C3 = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


class ConnectionTableConv2d(nn.Module):
    """A convolution without padding, with kernels only for the pairs of maps in a table.

    Section II.B, layer C3: it breaks the symmetry between maps and saves connections. Kernels outside the table are
    zeros in the computation, and not parameters.

    Args:
        in_channels: of the input.
        table: for each output map, the indices of the input maps that it reads.
        kernel_size: side of the kernels.

    Attributes:
        weight: (pairs, kernel_size, kernel_size), in the order of the table, input maps ascending.
        places: (pairs,) index ``output * in_channels + input`` of each kernel.
    """

    places: Tensor

    def __init__(self, in_channels: int, table: Sequence[Sequence[int]], kernel_size: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = len(table)
        self.kernel_size = (kernel_size, kernel_size)
        self.stride = (1, 1)
        self.padding = (0, 0)
        self.connections = tuple(len(seen) for seen in table)
        places = [out * in_channels + seen for out, row in enumerate(table) for seen in sorted(row)]
        self.register_buffer("places", torch.tensor(places))
        self.weight = nn.Parameter(torch.empty(len(places), kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.empty(self.out_channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform in ±2.4 / fan-in (appendix A), which differs between maps."""
        area = self.kernel_size[0] * self.kernel_size[1]
        kernels = self.weight.split(self.connections)
        with torch.no_grad():
            for out, count in enumerate(self.connections):
                bound = 2.4 / (count * area)
                kernels[out].uniform_(-bound, bound)
                self.bias[out].uniform_(-bound, bound)

    def dense_weight(self) -> Tensor:
        """All kernels (out_channels, in_channels, kernel_size, kernel_size), zeros outside the table."""
        everything = self.weight.new_zeros(self.out_channels * self.in_channels, *self.kernel_size)
        placed = everything.index_copy(0, self.places, self.weight)
        return placed.view(self.out_channels, self.in_channels, *self.kernel_size)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, out_channels, H - kernel_size + 1, W - kernel_size + 1) of maps (N, in_channels, H, W)."""
        return F.conv2d(maps, self.dense_weight(), self.bias)

    def extra_repr(self) -> str:
        """Arguments shown by ``print``."""
        pairs = f"{len(self.places)} of {self.in_channels * self.out_channels} pairs"
        return f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, {pairs}"


# The digits in 7 × 12 pixels, drawn after figure 3 of LeCun et al. 1998 (# is +1, . is -1). The figure is
# printed too small to be certain of every pixel.
_GLYPHS = (
    "..###.. .#...#. ##...## ##...## ##...## ##...## ##...## ##...## .#...#. ..###.. ....... .......",
    "...##.. ..###.. .####.. ...##.. ...##.. ...##.. ...##.. ...##.. ...##.. .###### ....... .......",
    ".#####. ##...## ......# .....## ....##. ...##.. ..##... .##.... ##..... ####### ....... .......",
    ".#####. ##...## ......# .....## ..####. .....## ......# ......# ##...## .#####. ....... .......",
    ".....#. ....##. ...###. ..##.#. .##..#. ##...#. ####### .....#. .....#. .....#. ....... .......",
    "####### ##..... #...... #.####. ##...## ......# ......# #.....# ##...## .#####. ....... .......",
    "..####. .##.... ##..... #...... #.####. ##...## #.....# #.....# ##...## .#####. ....... .......",
    "####### #.....# .....## .....#. ....##. ....#.. ...##.. ...#... ..##... ..##... ....... .......",
    ".#####. ##...## #.....# ##...## .#####. ##...## #.....# #.....# ##...## .#####. ....... .......",
    ".#####. ##...## #.....# #.....# ##...## .####.# ......# .....## ....##. .####.. ....... .......",
)
CODE_LENGTH = 7 * 12
# Of 84 random pixels 42 differ on average, with a standard deviation of 4.6.
MINIMUM_DISTANCE = 24


def digit_codes() -> np.ndarray:
    """Codes of the digits 0 to 9: (10, 84) of ±1, the rows of the 7 × 12 bitmaps in sequence."""
    pixels = [[1.0 if pixel == "#" else -1.0 for pixel in glyph.replace(" ", "")] for glyph in _GLYPHS]
    return np.array(pixels, dtype=np.float32)


def random_codes(classes: int) -> np.ndarray:
    """Codes of classes other than digits: (classes, 84) of ±1, the same in each call.

    Any two differ in at least :data:`MINIMUM_DISTANCE` elements. The first codes do not depend on ``classes``.
    """
    generator = np.random.default_rng(1998)
    codes = np.empty((0, CODE_LENGTH), dtype=np.float32)
    while len(codes) < classes:
        code = generator.choice(np.array([-1, 1], dtype=np.float32), size=CODE_LENGTH)
        # Two codes of ±1 that differ in d elements have the product 84 - 2 d.
        if np.all(codes @ code <= CODE_LENGTH - 2 * MINIMUM_DISTANCE):
            codes = np.vstack([codes, code])
    return codes


class RadialBasisOutput(nn.Module):
    """Negated squared Euclidean distances between the features and a fixed code per class.

    Section II.B, equation 7, where the output is the distance itself and the smallest wins. With the sign changed the
    largest wins, and cross-entropy applies: on these scores it is ``distance of the right class + log(sum over classes
    of exp(-distance))``, the paper's equation 9 with its constant j, the score of a rubbish class, at infinity.

    The codes are the digits' bitmaps (figure 3) for 10 classes, otherwise random. As in the paper they are not trained,
    so they are not parameters.

    Attributes:
        codes: (num_classes, 84) of ±1.
    """

    codes: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.in_features = CODE_LENGTH
        self.out_features = num_classes
        codes = digit_codes() if num_classes == 10 else random_codes(num_classes)
        self.register_buffer("codes", torch.from_numpy(codes))

    def forward(self, features: Tensor) -> Tensor:
        """Scores (N, num_classes), none above 0, of features (N, 84)."""
        products = features @ self.codes.T
        return 2 * products - features.square().sum(dim=1, keepdim=True) - self.codes.square().sum(dim=1)

    def extra_repr(self) -> str:
        """Arguments shown by ``print``."""
        return f"{self.in_features}, {self.out_features}"


class ScaledTanh(nn.Module):
    """``f(a) = A tanh(S a)`` with A = 1.7159 and S = 2/3 (LeCun et al. 1998, equation 6 and appendix A).

    The constants make f(1) = 1 and f(-1) = -1, put the greatest curvature there, and keep the slope near 1 in
    between, so that signals of variance 1 stay so.
    """

    amplitude = 1.7159
    slope = 2 / 3

    def forward(self, signal: Tensor) -> Tensor:
        """The function of each element; any shape, results in -1.7159..1.7159."""
        return self.amplitude * torch.tanh(self.slope * signal)
