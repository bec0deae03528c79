"""Semantic segmentation, from images with masks: data, metrics, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from hubel.data.checks.training_checks import Findings, check_masks
from hubel.data.mask_folder import read_class_map, read_mask_folder
from hubel.data.samples import Batch, ImageDataset, Sample, Target
from hubel.metrics.segmentation import SegmentationScores, combine, pixel_confusion
from hubel.models.segmentation.fcn import IGNORE_INDEX, FCN32s, SegmentationTargets
from hubel.reports import figures
from hubel.reports.format import percent
from hubel.reports.report_data import Mistake, TaskReport
from hubel.results import SegmentationMap
from hubel.tasks.base import Evaluator, Predictions, ProgressCallback
from hubel.tasks.objects import ObjectData, ObjectTask
from hubel.tasks.segmentation.decode import to_original


class _Segmented(NamedTuple):
    """One image: pixels by true and predicted class; of a sample its file, too."""

    confusion: np.ndarray
    path: Path | None


class SegmentationEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`. Samples are compared at the size of their images."""

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"class_map"`` (N, H, W)."""
        for class_map, truth in zip(predictions["class_map"], truths, strict=True):
            assert truth.class_map is not None
            if isinstance(truth, Sample):
                moved = to_original(class_map, self.preprocessing, truth.width, truth.height)
                confusion = pixel_confusion(read_class_map(truth.class_map), moved, len(self.classes))
                self.images.append(_Segmented(confusion, truth.path))
            else:
                self.images.append(_Segmented(pixel_confusion(truth.class_map, class_map, len(self.classes)), None))

    def compute(self) -> SegmentationScores:
        """IoU and accuracy of every class."""
        return combine([image.confusion for image in self.images], self.classes)

    def prediction_records(self) -> list[dict[str, Any]]:
        """Source, pixel accuracy and mean IoU of each image."""
        rows = []
        for image in self.images:
            scores = combine([image.confusion], self.classes)
            metrics = {"pixel_accuracy": scores.pixel_accuracy, "mean_iou": scores.mean_iou}
            rows.append({"source": str(image.path), **metrics})
        return rows

    def worst_predictions(self, count: int = 24) -> list[Mistake]:
        """The images with the most wrong pixels, each with its most frequent confusion."""
        scored = [(combine([image.confusion], self.classes).pixel_accuracy, image) for image in self.images]
        mistakes = []
        for accuracy, image in sorted(scored, key=lambda pair: pair[0])[:count]:
            wrong = image.confusion * (1 - np.eye(len(self.classes), dtype=int))
            truth, predicted = np.unravel_index(wrong.argmax(), wrong.shape)
            if image.path is not None and wrong.any():
                names = self.classes[int(truth)], self.classes[int(predicted)]
                mistakes.append(Mistake(image.path, *names, probability=1 - accuracy))
        return mistakes


def _charts(scores: SegmentationScores) -> Iterator[tuple[str, Figure]]:
    yield "confusion", figures.confusion_matrix(scores.confusion, list(scores.classes))


def _sentences(scores: SegmentationScores, split: str) -> Iterator[str]:
    yield (
        f"In the {scores.images:,} images of the {split}, {percent(scores.pixel_accuracy)} of the labelled pixels have "
        "the right class."
    )
    yield (
        "The IoU of a class is the number of pixels that are correctly predicted as this class, divided by the number "
        "that are labelled or predicted as it; mean IoU is the mean over the classes, which all count the same, "
        "however many pixels they have."
    )


def _of_split(scores: SegmentationScores) -> dict[str, Any]:
    rows = zip(scores.classes, scores.confusion.sum(1).tolist(), scores.iou, scores.accuracy, strict=True)
    return {"classes": sorted((row for row in rows if row[1]), key=lambda row: float(np.nan_to_num(row[2])))}


class SegmentationData(ObjectData):
    """See :class:`~hubel.tasks.base.TaskData`."""

    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> SegmentationTargets:
        """Class maps; values that are not a class do not count."""
        maps = np.stack([target.class_map for target in batch.targets if target.class_map is not None])
        class_maps = torch.from_numpy(np.where(maps < len(self.classes), maps, IGNORE_INDEX).astype(np.int64))
        return SegmentationTargets(class_maps.to(device))


class Segmentation(ObjectTask):
    """The class of every pixel."""

    name = "segment"
    result = SegmentationMap
    network = "fcn32s"
    model_type = (FCN32s, "a network for segmentation")
    monitor = ("mean_iou", "pixel_accuracy", "-loss")
    logged_metrics: ClassVar[Mapping[str, str]] = {"mean_iou": "mean IoU", "pixel_accuracy": "pixel accuracy"}
    data = SegmentationData
    evaluator = SegmentationEvaluator
    report = TaskReport(
        package="hubel.tasks.segmentation",
        curves={
            "loss": ("Loss per epoch", "Loss: lower is better."),
            "mean_iou": ("Mean IoU per epoch", "Mean IoU of the classes: higher is better."),
        },
        charts=_charts,
        sentences=_sentences,
        of_split=_of_split,
        mistakes="Images with the most wrong pixels",
        mistakes_key=" Each image is shown with its most frequent confusion and the fraction of its pixels that are "
        "wrong.",
    )

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """Images with masks."""
        return read_mask_folder(data)

    def check(
        self, splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: ProgressCallback
    ) -> Findings:
        """Unreadable images and masks of another size are left out."""
        return check_masks(splits, classes, progress)

    def scores_table(self, scores: SegmentationScores) -> str:
        """Totals, then a line per class; fractions."""
        width = max(len("class"), *(len(name) for name in scores.classes))
        totals = (
            f"mean IoU {scores.mean_iou:.4f}   pixel accuracy {scores.pixel_accuracy:.4f}   "
            f"mean accuracy {scores.mean_accuracy:.4f}   frequency-weighted IoU {scores.frequency_weighted_iou:.4f}"
        )
        rows = zip(scores.classes, scores.iou, scores.accuracy, scores.confusion.sum(1), strict=True)
        lines = [f"{name:<{width}}  {iou:>6.3f}  {accuracy:>8.3f}" for name, iou, accuracy, pixels in rows if pixels]
        return "\n".join([totals, "", f"{'class':<{width}}  {'IoU':>6}  {'accuracy':>8}", *lines])
