"""How much two images are alike: PSNR and SSIM, of the luma, as papers on super-resolution have them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import correlate1d

LARGEST_PSNR = 100.0
"""Decibels of images that are equal, whose PSNR would be infinite."""

_SIGMA, _RADIUS = 1.5, 5  # of SSIM's Gaussian window, 11 × 11
_K1, _K2 = 0.01, 0.03


def luma(pixels: np.ndarray) -> np.ndarray:
    """The Y of ITU-R BT.601 of RGB pixels (H, W, 3), 0..255: float64 (H, W), 16 to 235, not rounded.

    It is MATLAB's ``rgb2ycbcr``, by which papers on super-resolution compare images.
    """
    weighted: np.ndarray = pixels.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255) + 16
    return weighted


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    """Peak signal-to-noise ratio in decibels of values of 0..255, at most :data:`LARGEST_PSNR`."""
    error = float(np.square(one.astype(np.float64) - other).mean())
    return min(LARGEST_PSNR, 10 * math.log10(255**2 / error)) if error else LARGEST_PSNR


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Structural similarity of two images (H, W) of values of 0..255, sides of at least 11 pixels; 1 if they are equal.

    Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity", section III: the mean
    over all places of a Gaussian window of 11 × 11 pixels, with σ = 1.5, inside the image.
    """
    taps = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _SIGMA**2))
    taps /= taps.sum()

    def windowed(image: np.ndarray) -> np.ndarray:
        across = correlate1d(correlate1d(image, taps, 0), taps, 1)
        inside: np.ndarray = across[_RADIUS:-_RADIUS, _RADIUS:-_RADIUS]
        return inside

    one, other = one.astype(np.float64), other.astype(np.float64)
    mean_a, mean_b = windowed(one), windowed(other)
    variance_a, variance_b = windowed(one**2) - mean_a**2, windowed(other**2) - mean_b**2
    covariance = windowed(one * other) - mean_a * mean_b
    c1, c2 = (_K1 * 255) ** 2, (_K2 * 255) ** 2
    likeness = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    likeness /= (mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2)
    return float(likeness.mean())


def compare(enlarged: np.ndarray, truth: np.ndarray, border: int) -> tuple[float, float]:
    """PSNR and SSIM of the lumas of RGB pixels (H, W, 3), without a border of so many pixels; SSIM is NaN if too small.

    Papers on super-resolution leave out a border of the scale, where methods differ in what they see outside.
    """
    a, b = (luma(each)[border : each.shape[0] - border, border : each.shape[1] - border] for each in (enlarged, truth))
    return psnr(a, b), ssim(a, b) if min(a.shape) > 2 * _RADIUS else math.nan


@dataclass(frozen=True)
class EnlargedScore:
    """One enlarged image: PSNR in decibels and SSIM, and those of bicubic interpolation; NaN where not computed."""

    psnr: float
    ssim: float = math.nan
    bicubic_psnr: float = math.nan
    bicubic_ssim: float = math.nan


@dataclass(frozen=True)
class EnlargingScores:
    """Metrics of enlarged images: means over the images.

    Attributes:
        each: of the images, in order.
    """

    each: Sequence[EnlargedScore]

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.each)

    def mean(self, name: str) -> float | None:
        """The mean of a field of the images that have one; ``None`` if none has."""
        values = np.array([getattr(score, name) for score in self.each])
        return None if np.isnan(values).all() else float(np.nanmean(values))

    @property
    def gains(self) -> np.ndarray:
        """By how many decibels each image (N,) is better than bicubic interpolation."""
        return np.array([score.psnr - score.bicubic_psnr for score in self.each])

    def to_json(self) -> dict[str, Any]:
        """``{"metrics": {…}, "per_class": []}``."""
        names = ("psnr", "ssim", "bicubic_psnr", "bicubic_ssim")
        return {"metrics": {name: self.mean(name) for name in names}, "per_class": []}
