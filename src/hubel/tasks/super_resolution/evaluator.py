"""Scores of enlarged images, and those of bicubic interpolation beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from hubel.data.image_io import read_image
from hubel.data.photographs import reduced, whole_blocks
from hubel.data.samples import Sample, Target
from hubel.metrics.image_quality import EnlargedScore, EnlargingScores, compare, luma, psnr
from hubel.models.metadata import ModelMetadata
from hubel.reports.report_data import Comparison
from hubel.results import Prediction
from hubel.tasks.base import Evaluator, Predictions
from hubel.tasks.super_resolution.decode import to_bytes

_SHOWN = 12  # images in a report
_CROP = 112  # pixels of what is shown of each


class _Enlarged(NamedTuple):
    """One image: its scores; of a sample its file, and, of those that a report may show, a part."""

    score: EnlargedScore
    path: Path | None = None
    comparison: Comparison | None = None


class SuperResolutionEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`: PSNR and SSIM of lumas, without borders of the scale."""

    def __init__(self, metadata: ModelMetadata) -> None:
        super().__init__(metadata)
        self._with_pixels: list[int] = []

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"image"`` (N, H, W, C) of parts of images."""
        for values, truth in zip(predictions["image"], truths, strict=True):
            assert isinstance(truth, Target) and truth.image is not None
            border = slice(self.preprocessing.scale, -self.preprocessing.scale)
            one, other = (luma(_rgb(each))[border, border] for each in (to_bytes(values), truth.image))
            self.images.append(_Enlarged(EnlargedScore(psnr(one, other))))

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
            nearest = np.asarray(small.resize(size, Image.Resampling.NEAREST))
            panels = {"nearest": nearest, "bicubic": bicubic, "this network": enlarged, "the image itself": truth}
            window = _most_changed(bicubic, truth)
            parts = [(name, np.ascontiguousarray(pixels[window])) for name, pixels in panels.items()]
            note = f"PSNR {score.psnr:.2f} dB, bicubic {score.bicubic_psnr:.2f} dB"
            self.images.append(_Enlarged(score, sample.path, Comparison(sample.path, parts, note)))
            # Only the images that a report shows keep their pixels.
            self._with_pixels.append(len(self.images) - 1)
            self._with_pixels.sort(key=lambda index: _gain(self.images[index]))
            for dropped in self._with_pixels[_SHOWN:]:
                self.images[dropped] = self.images[dropped]._replace(comparison=None)
            del self._with_pixels[_SHOWN:]

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

    def worst_predictions(self) -> list[Comparison]:
        """Parts of the images with the smallest gain over bicubic interpolation."""
        worst = sorted(self.images, key=_gain)[:_SHOWN]
        return [image.comparison for image in worst if image.comparison is not None]


def _gain(image: _Enlarged) -> float:
    return image.score.psnr - image.score.bicubic_psnr


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
