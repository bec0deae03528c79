"""Layers that enlarge: against Pillow, MATLAB's kernel as published, and a transposed convolution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from hubel.layers.sub_pixel import BicubicUpsampling, SubPixelConvolution, icnr_


def matlab_cubic(x: np.ndarray) -> np.ndarray:
    """The kernel of ``imresize(..., "bicubic")``, as its published source has it."""
    a, a2, a3 = abs(x), abs(x) ** 2, abs(x) ** 3
    near = (1.5 * a3 - 2.5 * a2 + 1) * (a <= 1)
    return near + (-0.5 * a3 + 2.5 * a2 - 4 * a + 2) * ((a > 1) & (a <= 2))


def matlab_resize(image: np.ndarray, scale: float) -> np.ndarray:
    """``imresize`` of (H, W): a wider kernel where it shrinks (antialiasing), rows, then columns, borders mirrored."""

    def along(length: int) -> np.ndarray:
        new, widened = round(length * scale), min(1.0, scale)
        u = (np.arange(1, new + 1)) / scale + 0.5 * (1 - 1 / scale)
        left = np.floor(u - 2 / widened)
        indices = left[:, None] + np.arange(int(np.ceil(4 / widened)) + 2)
        weights = widened * matlab_cubic(widened * (u[:, None] - indices))
        weights /= weights.sum(1, keepdims=True)
        mirror = np.r_[1 : length + 1, length:0:-1]
        matrix = np.zeros((new, length))
        columns = mirror[((indices - 1) % (2 * length)).astype(int)] - 1
        for row in range(new):
            np.add.at(matrix[row], columns[row], weights[row])
        return matrix

    return along(image.shape[0]) @ image @ along(image.shape[1]).T


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_bicubic_is_pillows_and_matlabs(scale: int) -> None:
    image = np.random.default_rng(scale).uniform(0, 255, (20, 28)).astype(np.float32)
    found = BicubicUpsampling(1, scale)(torch.from_numpy(image)[None, None])[0, 0].numpy()
    size = (28 * scale, 20 * scale)
    pillow = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    inside = slice(2 * scale, -2 * scale)
    np.testing.assert_allclose(found[inside, inside], pillow[inside, inside], atol=1e-3)
    np.testing.assert_allclose(found[inside, inside], matlab_resize(image, scale)[inside, inside], atol=1e-3)
    colours = torch.rand(2, 3, 5, 6)
    each = torch.cat([BicubicUpsampling(1, scale)(colours[:, i : i + 1]) for i in range(3)], 1)
    torch.testing.assert_close(BicubicUpsampling(3, scale)(colours), each)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pillows_reduction_is_matlabs(scale: int) -> None:
    # The small images of the literature are MATLAB's: Pillow's have to be the same for figures to be comparable.
    image = np.random.default_rng(scale).uniform(0, 255, (24 * scale, 30 * scale)).astype(np.float32)
    pillow = np.asarray(Image.fromarray(image).resize((30, 24), Image.Resampling.BICUBIC))
    inside = slice(2, -2)
    np.testing.assert_allclose(pillow[inside, inside], matlab_resize(image, 1 / scale)[inside, inside], atol=1e-3)


def test_a_sub_pixel_convolution_is_a_transposed_convolution() -> None:
    # Shi et al. 2016, arXiv 1609.07009: the weights of each block are those of a kernel of stride s, taken apart.
    torch.manual_seed(0)
    layer, maps = SubPixelConvolution(5, 2, 3, 2), torch.randn(1, 5, 7, 6)
    kernel = torch.zeros(5, 2, 6, 6)
    for i in range(2):
        for j in range(2):
            for channel in range(2):
                # Convolutions are correlations here: the transposed one has its kernel turned round.
                turned = layer.conv.weight[4 * channel + 2 * i + j].flip(1, 2)
                kernel[:, channel, i::2, j::2] = turned
    bias = layer.conv.bias.view(2, 2, 2).repeat(1, 7, 6)
    expected = F.conv_transpose2d(maps, kernel, stride=2, padding=2)[:, :, :14, :12] + bias
    torch.testing.assert_close(layer(maps), expected, rtol=1e-4, atol=1e-5)


def test_icnr_begins_without_a_checkerboard() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 3 * 9, 3, padding=1)
    icnr_(layer.weight, 3)
    nn.init.zeros_(layer.bias)
    maps = torch.randn(1, 4, 6, 6)
    enlarged = F.pixel_shuffle(layer(maps), 3)
    nearest = F.interpolate(F.conv2d(maps, layer.weight[::9], padding=1), scale_factor=3, mode="nearest")
    torch.testing.assert_close(enlarged, nearest)
    fan_in = 4 * 9
    drawn = torch.empty(9 * 512, 4, 3, 3)
    icnr_(drawn, 3)
    assert drawn.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.05)
