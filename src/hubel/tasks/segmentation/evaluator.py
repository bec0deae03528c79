"""Scores of class maps at the size of the images, and the images that a report shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hubel.data.image_io import read_image
from hubel.data.mask_folder import read_class_map
from hubel.data.samples import Sample, Target
from hubel.drawing import draw_class_map
from hubel.metrics.segmentation import SegmentationScores, boundary_overlap, combine, pixel_confusion
from hubel.models.metadata import ModelMetadata
from hubel.reports.format import percent
from hubel.reports.report_data import Comparison
from hubel.results import Prediction, SegmentationMap
from hubel.tasks.base import Evaluator, Predictions
from hubel.tasks.segmentation.decode import to_original

_SHOWN = 12  # images in a report
_PANEL = 300  # pixels of the longer side of each there
_WRONG = (214, 39, 40)


class _Segmented(NamedTuple):
    """One image: pixels by true and predicted class; of a sample its file, and how a report shows it, if it does."""

    confusion: np.ndarray
    path: Path | None
    boundaries: np.ndarray | None = None
    comparison: Comparison | None = None

    @property
    def accuracy(self) -> float:
        """Fraction of the labelled pixels that are right; 1 if none is labelled."""
        return float(np.trace(self.confusion)) / (int(self.confusion.sum()) or 1) if self.confusion.any() else 1.0


class SegmentationEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`. Samples are compared at the size of their images."""

    def __init__(self, metadata: ModelMetadata) -> None:
        super().__init__(metadata)
        self._worst: list[int] = []

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"class_map"`` (N, H, W)."""
        for class_map, truth in zip(predictions["class_map"], truths, strict=True):
            assert truth.class_map is not None
            if isinstance(truth, Sample):
                moved = to_original(class_map, self.preprocessing, truth.width, truth.height)
                self._add(read_class_map(truth.class_map, truth.colours), moved, truth.path)
            else:
                self._add(truth.class_map, class_map, None)

    def _add(self, truth: np.ndarray, predicted: np.ndarray, path: Path | None) -> None:
        count = len(self.classes)
        outlines = None if path is None else boundary_overlap(truth, predicted, count)
        image = _Segmented(pixel_confusion(truth, predicted, count), path, outlines)
        self.images.append(image)
        if path is None:
            return
        # Only the images that a report shows are drawn.
        self._worst = sorted([*self._worst, len(self.images) - 1], key=lambda index: self.images[index].accuracy)
        if len(self._worst) > _SHOWN:
            dropped = self._worst.pop()
            self.images[dropped] = self.images[dropped]._replace(comparison=None)
        if len(self.images) - 1 in self._worst:
            drawn = compared(path, truth, predicted, image.accuracy, self.classes)
            self.images[-1] = image._replace(comparison=drawn)

    def update_results(self, results: Sequence[Prediction], samples: Sequence[Sample]) -> None:
        """Take class maps of the images' sizes."""
        for found, sample in zip(results, samples, strict=True):
            assert isinstance(found, SegmentationMap) and sample.class_map is not None
            self._add(read_class_map(sample.class_map, sample.colours), found.classes, sample.path)

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

    def worst_predictions(self) -> list[Comparison]:
        """The images with the most wrong pixels, worst first."""
        worst = sorted(self.images, key=lambda image: image.accuracy)[:_SHOWN]
        return [image.comparison for image in worst if image.comparison is not None]


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
