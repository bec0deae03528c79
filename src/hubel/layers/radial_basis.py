"""LeNet-5's output: how far the features are from each class's code."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

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
