"""Whole pictures as arrays, reduced where they have far more pixels than any part of them will need.

Of a photograph of twelve megapixels a crop of 192 pixels keeps a hundredth, and reading and keeping the rest costs more
than anything else. So whole blocks of pixels are averaged first, which JPEG can be decoded to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Prescaler:
    """From an upright picture to an array of all of it.

    Attributes:
        channels: 3 for RGB, 1 for greyscale.
        most: tells for a width and height how many times the picture may be reduced.
    """

    channels: int
    most: Callable[[int, int], float]

    def block(self, width: int, height: int) -> int:
        """Side of the blocks that are averaged: 1, 2, 4 or 8 pixels."""
        most = self.most(width, height)
        return next((side for side in (8, 4, 2) if side <= most), 1)

    def shape(self, width: int, height: int) -> tuple[int, int, int]:
        """Of the array for an upright picture of this size: (H, W, C)."""
        side = self.block(width, height)
        return -(-height // side), -(-width // side), self.channels

    def pixels(self, image: Image.Image, original: tuple[int, int, int] | None = None) -> np.ndarray:
        """uint8 (H, W, C).

        Args:
            image: upright, of mode RGB, or L for one channel.
            original: as in :meth:`hubel.data.preprocessing.Preprocessing.pixels`.
        """
        width, height, scale = original or (*image.size, 1)
        left = self.block(width, height) // scale
        pixels = np.asarray(image.reduce(left) if left > 1 else image)
        return pixels.reshape(*pixels.shape[:2], self.channels)
