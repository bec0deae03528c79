"""Photometric distortion: random brightness, contrast, saturation and hue, as SSD's training has it.

Liu et al. 2016, arXiv 1512.02325, section 2.2, after Howard 2013, arXiv 1312.5402; ranges and order are those of SSD's
published code, as in torchvision's ``RandomPhotometricDistort``, whose results these are at a fifth of the cost. The
random order of colour channels, which SSD's own settings leave out, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_CHANCE = 0.5  # of each of the four
_RANGES = (0.875, 0.5, 0.5, -0.05), (1.125, 1.5, 1.5, 0.05)
_GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2, as torchvision rounds it


@dataclass(frozen=True)
class Distortion:
    """A change of the colours; ``None`` leaves that of one kind out.

    Brightness is a factor of all values, contrast of the distance from the image's mean grey, saturation of that from
    each pixel's own grey; hue turns the circle of colours by -0.5..0.5. Contrast comes before saturation and hue, or
    after them.
    """

    brightness: float | None = None
    contrast: float | None = None
    saturation: float | None = None
    hue: float | None = None
    contrast_first: bool = True

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Distortion:
        """A random one."""
        chosen = (random.random(5) < _CHANCE).tolist()
        amounts = random.uniform(*_RANGES).tolist()
        brightness, contrast, saturation, hue = (
            amount if taken else None for amount, taken in zip(amounts, chosen[:4], strict=True)
        )
        return cls(brightness, contrast, saturation, hue, contrast_first=chosen[4])

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """The image, uint8 (H, W, C), with its colours changed; of a grey one (C = 1) brightness and contrast alone."""
        colours = [(_saturated, self.saturation), (_turned, self.hue)] if pixels.shape[2] == 3 else []
        contrast = [(_contrasted, self.contrast)]
        rest = [*contrast, *colours] if self.contrast_first else [*colours, *contrast]
        steps = [(step, amount) for step, amount in [(_brightened, self.brightness), *rest] if amount is not None]
        if not steps:
            return pixels
        # One plane a channel, 0..1: torch goes through these many times as fast as through interleaved bytes.
        planes = torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float().mul_(1 / 255)
        for step, amount in steps:
            planes = step(planes, amount)
        return planes.mul_(255).add_(0.5).byte().permute(1, 2, 0).contiguous().numpy()


def _brightened(planes: Tensor, factor: float) -> Tensor:
    return planes.mul_(factor).clamp_(0, 1)


def _contrasted(planes: Tensor, factor: float) -> Tensor:
    mean = _grey(planes).mean()
    return planes.mul_(factor).add_((1 - factor) * mean).clamp_(0, 1)


def _saturated(planes: Tensor, factor: float) -> Tensor:
    grey = _grey(planes)
    return planes.mul_(factor).add_(grey, alpha=1 - factor).clamp_(0, 1)


def _grey(planes: Tensor) -> Tensor:
    if len(planes) == 1:
        return planes[0].clone()
    return (planes[0] * _GREY[0]).add_(planes[1], alpha=_GREY[1]).add_(planes[2], alpha=_GREY[2])


def _turned(planes: Tensor, turn: float) -> Tensor:
    """Colours of another hue, of the same saturation and value (hexagonal cone, HSV)."""
    red, green, blue = planes
    value = torch.maximum(torch.maximum(red, green), blue)
    chroma = value - torch.minimum(torch.minimum(red, green), blue)
    # Hue in sixths of the circle, -1..5: where the largest channel is 0, 2 or 4, and the two others lean from there.
    # Products with 0 and 1, as torch.where takes thirty times as long.
    of_red = torch.eq(value, red, out=torch.empty_like(red))
    of_green = torch.eq(value, green, out=torch.empty_like(red)).mul_(1 - of_red)
    of_blue = 1 - of_red - of_green
    hue = of_red * (green - blue) + of_green * (blue - red) + of_blue * (red - green)
    hue.div_(chroma.clamp(min=1e-12)).add_(of_green, alpha=2).add_(of_blue, alpha=4)
    turned = torch.empty_like(planes)
    for channel, opposite in enumerate((3, 5, 1)):
        # A channel lies below the value by all of the chroma where its opposite colour is, up to a sixth of the circle
        # away, and by nothing from two sixths on (Smith 1978).
        away = hue.add(6 * turn - opposite).abs_()
        away = torch.minimum(away, away.sub(6).abs_())
        torch.sub(value, away.neg_().add_(2).clamp_(0, 1).mul_(chroma), out=turned[channel])
    return turned
