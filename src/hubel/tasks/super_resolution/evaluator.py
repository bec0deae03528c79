"""Scores of enlarged images, and those of bicubic interpolation beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hubel.data.image_io import read_image
from hubel.data.photographs import reduced, whole_blocks
from hubel.data.samples import Sample, Target
from hubel.metrics.image_quality import EnlargedScore, EnlargingScores, compare, luma, psnr
from hubel.reports.report_data import Comparison
from hubel.results import Prediction
from hubel.tasks.base import Predictions
from hubel.tasks.super_resolution.decode import to_bytes
from hubel.tasks.worst_images import ComparingEvaluator, ScoredImage

_CROP = 112  # pixels of what a report shows of an image


@dataclass
class _Enlarged(ScoredImage):
    """Scores of one image."""

    score: EnlargedScore

    @property
    def quality(self) -> float:
        """The gain over bicubic interpolation in decibels."""
        return self.score.psnr - self.score.bicubic_psnr


class SuperResolutionEvaluator(ComparingEvaluator):
    """See :class:`~hubel.tasks.base.Evaluator`: PSNR and SSIM of lumas, without borders of the scale."""

    images: list[_Enlarged]

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"image"`` (N, H, W, C) of parts of images."""
        for values, truth in zip(predictions["image"], truths, strict=True):
            assert isinstance(truth, Target) and truth.image is not None
            border = slice(self.preprocessing.scale, -self.preprocessing.scale)
            one, other = (luma(_rgb(each))[border, border] for each in (to_bytes(values), truth.image))
            self.images.append(_Enlarged(None, EnlargedScore(psnr(one, other))))

    def update_results(self, results: Sequence[Prediction], samples: Sequence[Sample]) -> None:
        """Take whole images, enlarged from what :func:`hubel.data.photographs.reduced` makes of the samples."""
        scale = self.preprocessing.scale
        for result, sample in zip(results, samples, strict=True):
            truth = whole_blocks(np.asarray(read_image(sample.path)), scale)
            small = Image.fromarray(reduced(truth, scale))
            size = truth.shape[1], truth.shape[0]
            bicubic = np.asarray(small.resize(size, Image.Resampling.BICUBIC))
            enlarged = np.asarray(result.image.convert("RGB"))
            score = EnlargedScore(*compare(enlarged, truth, scale), *compare(bicubic, truth, scale))
            shown = partial(_compared, sample.path, small, bicubic, enlarged, truth, score)
            self.add(_Enlarged(sample.path, score), shown)

    def compute(self) -> EnlargingScores:
        """Means over the images."""
        return EnlargingScores([image.score for image in self.images])

    def prediction_records(self) -> list[dict[str, Any]]:
        """Source and scores of each image."""
        rows = []
        for image in self.images:
            scores = {name: round(value, 6) for name, value in vars(image.score).items() if not math.isnan(value)}
            rows.append({"source": str(image.path), **scores})
        return rows


def _compared(
    path: Path, small: Image.Image, bicubic: np.ndarray, enlarged: np.ndarray, truth: np.ndarray, score: EnlargedScore
) -> Comparison:
    """The part of an image in which there is most detail to be restored, enlarged in several ways."""
    nearest = np.asarray(small.resize((truth.shape[1], truth.shape[0]), Image.Resampling.NEAREST))
    panels = {"nearest": nearest, "bicubic": bicubic, "this network": enlarged, "the image itself": truth}
    window = _most_changed(bicubic, truth)
    parts = [(name, np.ascontiguousarray(pixels[window])) for name, pixels in panels.items()]
    return Comparison(path, parts, f"PSNR {score.psnr:.2f} dB, bicubic {score.bicubic_psnr:.2f} dB")


def _rgb(pixels: np.ndarray) -> np.ndarray:
    return np.repeat(pixels, 3, 2) if pixels.shape[2] == 1 else pixels


def _most_changed(one: np.ndarray, other: np.ndarray) -> tuple[slice, slice]:
    """The window in which two images (H, W, 3) differ most: where there is most detail to be restored."""
    height, width = (min(_CROP, side) for side in one.shape[:2])
    sums = np.zeros((one.shape[0] + 1, one.shape[1] + 1))
    sums[1:, 1:] = np.abs(luma(one) - luma(other)).cumsum(0).cumsum(1)
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = np.unravel_index(int(windows.argmax()), windows.shape)
    return slice(int(y), int(y) + height), slice(int(x), int(x) + width)
