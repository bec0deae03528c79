"""Scores of class maps at the size of the images, and the images that a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hubel.data.image_io import read_image
from hubel.data.samples import Sample, Target
from hubel.drawing import draw_class_map
from hubel.metrics.segmentation import SegmentationScores, boundary_overlap, combine, pixel_confusion
from hubel.reports.format import percent
from hubel.reports.report_data import Comparison
from hubel.results import Prediction, SegmentationMap
from hubel.tasks.base import Predictions
from hubel.tasks.segmentation.decode import to_original
from hubel.tasks.worst_images import ComparingEvaluator, ScoredImage

_PANEL = 300  # pixels of the longer side of an image in a report
_WRONG = (214, 39, 40)


@dataclass
class _Segmented(ScoredImage):
    """Pixels by true and predicted class."""

    confusion: np.ndarray
    boundaries: np.ndarray | None = None

    @property
    def quality(self) -> float:
        """Fraction of the labelled pixels that are right; 1 if none is labelled."""
        return float(np.trace(self.confusion)) / (int(self.confusion.sum()) or 1) if self.confusion.any() else 1.0


class SegmentationEvaluator(ComparingEvaluator):
    """See :class:`~hubel.tasks.base.Evaluator`. Samples are compared at the size of their images."""

    images: list[_Segmented]

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"class_map"`` (N, H, W)."""
        for class_map, truth in zip(predictions["class_map"], truths, strict=True):
            assert truth.class_map is not None
            if isinstance(truth, Sample):
                moved = to_original(class_map, self.preprocessing, truth.width, truth.height)
                self._add(truth.class_map.read(), moved, truth.path)
            else:
                self._add(truth.class_map, class_map, None)

    def _add(self, truth: np.ndarray, predicted: np.ndarray, path: Path | None) -> None:
        count = len(self.classes)
        confusion = pixel_confusion(truth, predicted, count)
        if path is None:
            self.images.append(_Segmented(None, confusion))
        else:
            image = _Segmented(path, confusion, boundary_overlap(truth, predicted, count))
            self.add(image, partial(compared, path, truth, predicted, image.quality, self.classes))

    def update_results(self, results: Sequence[Prediction], samples: Sequence[Sample]) -> None:
        """Take class maps of the images' sizes."""
        for found, sample in zip(results, samples, strict=True):
            assert isinstance(found, SegmentationMap) and sample.class_map is not None
            self._add(sample.class_map.read(), found.classes, sample.path)

    def compute(self) -> SegmentationScores:
        """IoU and accuracy of every class."""
        outlines = [image.boundaries for image in self.images]
        return combine([image.confusion for image in self.images], self.classes, outlines)

    def prediction_records(self) -> list[dict[str, Any]]:
        """Source, pixel accuracy and mean IoU of each image."""
        rows = []
        for image in self.images:
            scores = combine([image.confusion], self.classes)
            metrics = {"pixel_accuracy": scores.pixel_accuracy, "mean_iou": scores.mean_iou}
            rows.append({"source": str(image.path), **metrics})
        return rows


def compared(path: Path, truth: np.ndarray, predicted: np.ndarray, accuracy: float, names: Sequence[str]) -> Comparison:
    """An image with its true and its predicted classes in colours, and in grey with what is wrong in red."""
    image = read_image(path).convert("RGB")
    image.thumbnail((_PANEL, _PANEL))
    rows, columns = (
        (np.arange(small) * large // small)
        for small, large in zip((image.height, image.width), truth.shape, strict=True)
    )
    truth, predicted = (each[rows[:, None], columns] for each in (truth, predicted))
    counted = truth < len(names)
    filled = np.where(counted, truth, predicted)  # what does not count is not a mistake
    errors = np.repeat(np.asarray(image.convert("L"))[..., None], 3, 2)
    errors[counted & (truth != predicted)] = _WRONG
    errors[~counted] //= 3
    panels = [
        (name, np.asarray(draw_class_map(image, each, names)))
        for name, each in (("truth", filled), ("predicted", predicted))
    ]
    note = f"{percent(1 - accuracy)} of the pixels are wrong"
    return Comparison(path, [*panels, ("wrong pixels in red, ignored ones dark", errors)], note)
