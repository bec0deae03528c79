"""PSNR, SSIM and luma against scikit-image and torchmetrics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hubel.metrics.image_quality import EnlargedScore, EnlargingScores, compare, luma, psnr, ssim


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """RGB pixels with structure, and the same with noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:70, :90]
    waves = 127 + 60 * np.sin(x / 5)[..., None] * np.cos(y / 7)[..., None] * np.array([1, 0.8, 0.5])
    noisy = waves + rng.normal(0, 12, waves.shape)
    return waves.clip(0, 255).astype(np.uint8), noisy.clip(0, 255).astype(np.uint8)


def test_luma_is_scikit_images(pair: tuple[np.ndarray, np.ndarray]) -> None:
    color = pytest.importorskip("skimage.color")
    np.testing.assert_allclose(luma(pair[0]), color.rgb2ycbcr(pair[0])[..., 0], atol=1e-9)


def test_psnr_and_ssim_are_scikit_images(pair: tuple[np.ndarray, np.ndarray]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    one, other = map(luma, pair)
    assert psnr(one, other) == pytest.approx(metrics.peak_signal_noise_ratio(one, other, data_range=255), abs=1e-9)
    settings = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert ssim(one, other) == pytest.approx(metrics.structural_similarity(one, other, **settings), abs=1e-9)
    cut = [each[3:-3, 3:-3] for each in (one, other)]
    assert compare(*pair, 3) == (psnr(*cut), ssim(*cut))


def test_psnr_and_ssim_are_torchmetrics(pair: tuple[np.ndarray, np.ndarray]) -> None:
    image = pytest.importorskip("torchmetrics.functional.image")
    one, other = (torch.from_numpy(luma(each))[None, None] for each in pair)
    # Its mean takes in the borders, beyond which it mirrors the image; the paper's windows lie inside.
    _, everywhere = image.structural_similarity_index_measure(one, other, data_range=255.0, return_full_image=True)
    assert ssim(*map(luma, pair)) == pytest.approx(float(everywhere[..., 5:-5, 5:-5].mean()), abs=1e-6)
    theirs = image.peak_signal_noise_ratio(one, other, data_range=255.0)
    assert psnr(*map(luma, pair)) == pytest.approx(float(theirs), rel=1e-6)  # its logarithm is float32


def test_published_definitions() -> None:
    black, grey = np.zeros((16, 16)), np.full((16, 16), 25.5)
    assert psnr(black, grey) == pytest.approx(20)  # a tenth of the range: 20 dB
    assert psnr(grey, grey) == 100 and ssim(grey, grey) == pytest.approx(1)
    c1 = (0.01 * 255) ** 2
    assert ssim(black, grey) == pytest.approx(c1 / (25.5**2 + c1))  # the luminance term alone
    assert luma(np.array([[[0, 0, 0], [255, 255, 255]]])).tolist() == [[16, pytest.approx(235)]]


def test_means_over_images() -> None:
    scores = EnlargingScores([EnlargedScore(30, 0.9, 28, 0.8), EnlargedScore(20, math.nan, 21, math.nan)])
    metrics = scores.to_json()["metrics"]
    assert metrics == {"psnr": 25, "ssim": 0.9, "bicubic_psnr": 24.5, "bicubic_ssim": 0.8}
    assert scores.gains.tolist() == [2, -1]
    assert EnlargingScores([EnlargedScore(30)]).to_json()["metrics"]["ssim"] is None
