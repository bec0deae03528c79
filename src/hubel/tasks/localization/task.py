"""Localization: the class of an image, and one box, from labels of any annotation format: data, metrics, report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure

from hubel.boxes import paired_iou
from hubel.console import count_of
from hubel.data.annotated_images import largest_only, read_annotated_images
from hubel.data.samples import Batch, ImageDataset, Sample, Target
from hubel.drawing import BoxLabel
from hubel.metrics.classification import ImageScore, score_images
from hubel.metrics.localization import IOU_THRESHOLD, LocalizationScores, combine_boxes
from hubel.models.localization import NO_OBJECT, LocalizationTargets, Localizer
from hubel.reports import figures
from hubel.reports.report_data import WRONG_LABELS, Mistake, TaskReport
from hubel.results import ClassScore
from hubel.results import Localization as LocalizationResult
from hubel.tasks.base import Evaluator, Predictions
from hubel.tasks.classification.decode import top_k
from hubel.tasks.decoding import scale_to_original
from hubel.tasks.objects import ObjectData, ObjectTask


class _Localized(NamedTuple):
    """One image: class and IoU; of a sample its file, best class and boxes, too."""

    score: ImageScore
    overlap: float
    path: Path | None = None
    best: ClassScore | None = None
    box: np.ndarray | None = None
    true_box: np.ndarray | None = None


class LocalizationEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`."""

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"boxes"`` (N, 1, 4) and ``"scores"`` (N, 1, classes)."""
        boxes, probabilities = predictions["boxes"][:, 0], predictions["scores"][:, 0]
        labels = [int(truth.labels[0]) if len(truth.labels) else 0 for truth in truths]
        scores = score_images(probabilities, labels, len(self.classes))
        for box, row, truth, score in zip(boxes, probabilities, truths, scores, strict=True):
            # In pixels of the input an object may be too small to be there: no box overlaps it.
            true_box = truth.boxes[:1] if len(truth.labels) else np.zeros((1, 4))
            if isinstance(truth, Sample):
                moved = scale_to_original(box[None], self.preprocessing, truth.width, truth.height)
                overlap = float(paired_iou(moved.astype(np.float64), true_box)[0])
                (best,) = top_k(row, self.classes, 1)
                self.images.append(_Localized(score, overlap, truth.path, best, moved[0], true_box[0]))
            else:
                self.images.append(_Localized(score, float(paired_iou(box[None].astype(np.float64), true_box)[0])))

    def compute(self) -> LocalizationScores:
        """Metrics of classes and boxes."""
        overlap = np.array([image.overlap for image in self.images])
        return combine_boxes([image.score for image in self.images], overlap, self.classes)

    def prediction_records(self) -> list[dict[str, Any]]:
        """Source, truth, and the predicted class and box."""
        return [
            {
                "source": str(image.path),
                "truth": {"name": self.classes[image.score.label], "box": _rounded(image.true_box)},
                "objects": [{**image.best.to_json(), "box": _rounded(image.box)}],
            }
            for image in self.images
        ]

    def worst_predictions(self, count: int = 24) -> list[Mistake]:
        """The boxes of the smallest IoU."""
        mistakes = []
        for image in sorted(self.images, key=lambda image: image.overlap)[:count]:
            truth, best = self.classes[image.score.label], image.best
            labels = [(image.true_box, truth), (image.box, f"{best.name} IoU {image.overlap:.2f}")]
            boxes = [BoxLabel((x1, y1, x2, y2), text, index) for index, ((x1, y1, x2, y2), text) in enumerate(labels)]
            mistakes.append(Mistake(image.path, truth, best.name, best.score, image.overlap, boxes))
        return mistakes


def _rounded(box: np.ndarray) -> list[float]:
    return [round(float(value), 2) for value in box]


def _charts(scores: LocalizationScores) -> Iterator[tuple[str, Figure]]:
    yield "overlap", figures.overlap_curve(scores.overlap)


def _sentences(scores: LocalizationScores, split: str) -> Iterator[str]:
    enough = int((scores.overlap >= IOU_THRESHOLD).sum())
    yield (
        f"In the {scores.images:,} images of the {split}, {enough:,} boxes are accurate enough "
        f"(IoU ≥ {IOU_THRESHOLD}), and the class is right in {round(scores.top1 * scores.images):,}."
    )
    yield (
        "IoU (intersection over union) is the area that the predicted and the true box share, divided by the area that "
        "they cover together: 1 if they are the same."
    )


def _of_split(scores: LocalizationScores) -> dict[str, Any]:
    rows = [pair for pair in zip(scores.classes.per_class, scores.class_overlap, strict=True) if pair[0].images]
    return {"classes": sorted(rows, key=lambda pair: pair[1])}


class LocalizationData(ObjectData):
    """See :class:`~hubel.tasks.base.TaskData`."""

    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> LocalizationTargets:
        """The only object of each image; those of which augmentation left nothing do not count."""
        height, width = batch.pixels.shape[2:]
        scale = torch.tensor([width, height, width, height])
        boxes = torch.from_numpy(
            np.stack([each.boxes[0] if len(each.boxes) else np.zeros(4, np.float32) for each in batch.targets])
        )
        labels = [int(each.labels[0]) if len(each.labels) else NO_OBJECT for each in batch.targets]
        return LocalizationTargets(torch.tensor(labels).to(device), (boxes / scale).to(device))


class Localization(ObjectTask):
    """One class and one box per image."""

    name = "localize"
    result = LocalizationResult
    refused_augmentations = ("mosaic", "multiscale")  # an image has one box
    network = "localizer"
    model_type = (Localizer, "a localizer")
    monitor = ("mean_iou", "-loss")
    logged_metrics: ClassVar[Mapping[str, str]] = {
        "mean_iou": "mean IoU",
        "top1": "top-1",
        "iou50": "IoU ≥ 0.5",
        "both": "both",
    }
    logs_validation_terms = False  # runs of earlier versions, which may be resumed, have no such columns
    data = LocalizationData
    evaluator = LocalizationEvaluator
    report = TaskReport(
        package="hubel.tasks.localization",
        curves={
            "loss": ("Loss per epoch", "Loss: lower is better."),
            "mean_iou": ("Mean IoU per epoch", "Mean IoU of the boxes: higher is better."),
        },
        charts=_charts,
        sentences=_sentences,
        of_split=_of_split,
        mistakes="Worst boxes",
        mistakes_key=f"{WRONG_LABELS} The true box has its class only, the predicted one its class and IoU.",
    )

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """The largest object of each image; images without any are left out."""
        objects = largest_only(read_annotated_images(data, strict=strict))
        shown = {
            split: tuple(each for each in samples if len(each.labels)) for split, samples in objects.splits.items()
        }
        empty = sum(map(len, objects.splits.values())) - sum(map(len, shown.values()))
        notes = (f"{objects.root}: {count_of(empty, 'image', 'show')} no object: left out.",) if empty else ()
        splits = {split: samples for split, samples in shown.items() if samples}
        return replace(objects, splits=splits, warnings=(*objects.warnings, *notes))

    def scores_table(self, scores: LocalizationScores) -> str:
        """Totals, then a line per class; fractions."""
        width = max(len("class"), *(len(row.name) for row in scores.classes.per_class))
        lines = [
            f"mean IoU {scores.mean_iou:.4f}   IoU ≥ 0.5 {scores.iou50:.4f}   top-1 {scores.top1:.4f}   "
            f"both {scores.both:.4f}",
            "",
            f"{'class':<{width}}  images  mean IoU      F1",
        ]
        for row, overlap in zip(scores.classes.per_class, scores.class_overlap, strict=True):
            if row.images:
                lines.append(f"{row.name:<{width}}  {row.images:>6}  {overlap:>8.3f}  {row.f1:>6.3f}")
        return "\n".join(lines)
