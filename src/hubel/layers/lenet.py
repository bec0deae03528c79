"""LeNet-5's subsampling: pooling with a trainable coefficient and bias a map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TrainableSubsampling(nn.Module):
    """Adds the inputs of each window, times a trainable coefficient, plus a trainable bias: one of each a
    map.

    It is the sum, not the mean, that is multiplied (LeCun et al. 1998, section II.B, layer S2). The squashing
    function that follows in the paper is a layer of its own. Windows do not overlap; an odd row or column at
    the end is left out.

    Args:
        channels: maps in and out.
        size: side of the window in pixels.

    Attributes:
        weight: (channels,) coefficients.
        bias: (channels,).
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
        """Uniform in ±2.4 / fan-in, as the paper's appendix A has it; the fan-in is the window."""
        bound = 2.4 / self.kernel_size**2
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, channels, H // size, W // size) of maps (N, channels, H, W)."""
        sums = F.avg_pool2d(maps, self.kernel_size) * self.kernel_size**2
        return sums * self.weight[:, None, None] + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """What ``print`` says of the layer."""
        return f"{self.channels}, kernel_size={self.kernel_size}, stride={self.stride}"


# LeCun et al. 1998, table I: for each map of C3, the maps of S2 that it sees; 60 pairs out of 96.
LENET5_C3 = (
    *((0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (4, 5, 0), (5, 0, 1)),
    *((0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (3, 4, 5, 0), (4, 5, 0, 1), (5, 0, 1, 2)),
    *((0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5)),
    (0, 1, 2, 3, 4, 5),
)


class ConnectionTableConv2d(nn.Module):
    """A convolution without padding, with one kernel for each pair of maps in a table and none for the
    others.

    LeCun et al. 1998, section II.B, layer C3: it breaks the symmetry between maps and saves connections.
    Kernels outside the table do not exist; they are laid out as zeros for the computation only.

    Args:
        in_channels: maps that come in.
        table: for each output map, the numbers of the input maps that it sees, from 0.
        kernel_size: side of the square kernels.

    Attributes:
        weight: (pairs, kernel_size, kernel_size), in the order of the table, input maps ascending.
        bias: (output maps,).
        places: (pairs,) where each kernel stands among all ``output * in_channels + input``.
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
        """Uniform in ±2.4 / fan-in, as the paper's appendix A has it; the fan-in differs from map to map."""
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
        """What ``print`` says of the layer."""
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
    """The codes of the digits 0 to 9: (10, 84) of ±1, rows of the 7 × 12 picture one after the other."""
    pixels = [[1.0 if pixel == "#" else -1.0 for pixel in glyph.replace(" ", "")] for glyph in _GLYPHS]
    return np.array(pixels, dtype=np.float32)


def random_codes(classes: int) -> np.ndarray:
    """Codes for classes that are no digits: (classes, 84) of ±1, always the same ones.

    Any two differ in at least :data:`MINIMUM_DISTANCE` places. The first codes do not depend on how many
    follow.
    """
    generator = np.random.default_rng(1998)
    codes = np.empty((0, CODE_LENGTH), dtype=np.float32)
    while len(codes) < classes:
        code = generator.choice(np.array([-1, 1], dtype=np.float32), size=CODE_LENGTH)
        # Two codes of ±1 that differ in d places have the product 84 - 2 d.
        if np.all(codes @ code <= CODE_LENGTH - 2 * MINIMUM_DISTANCE):
            codes = np.vstack([codes, code])
    return codes


class RadialBasisOutput(nn.Module):
    """Negated squared Euclidean distances between the features and a fixed code a class.

    LeCun et al. 1998, section II.B, equation 7, where the output is the distance itself and the smallest
    wins. The sign is turned so that the largest wins, as everywhere else, and cross-entropy applies: on these
    scores it is ``distance of the right class + log(sum over classes of exp(-distance))``, which is the
    paper's equation 9 with its constant j, the score of a rubbish class, gone to infinity.

    The codes are the digits' pictures (figure 3) for 10 classes, else random ones. They are not trained, as
    in the paper, and hence no parameters.

    Args:
        num_classes: how many codes.

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
        """What ``print`` says of the layer."""
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
