"""Localization: one class and one box an image, from labels of any annotation format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hubel.config import DEFAULTS, TrainingConfig
from hubel.data.annotated_images import largest_only, read_annotated_images
from hubel.data.samples import ImageDataset, Sample
from hubel.drawing import BoxLabel
from hubel.drawing.boxes import Box
from hubel.errors import ModelError, UsageError
from hubel.inference.postprocess import scale_to_original
from hubel.metrics.localization import LocalizationScores, paired_iou, score_localization
from hubel.models import ModelMetadata
from hubel.models.base import Model
from hubel.models.localization import LocalizationHead
from hubel.reports import Mistake
from hubel.tasks.classification.decode import probabilities, top_k
from hubel.tasks.localization.decode import read_boxes, uses_sqrt_size
from hubel.tasks.localization.loss import TERMS
from hubel.training.predict_split import Answers
from hubel.training.tasks.box_task import BoxTask
from hubel.training.tasks.for_classes import reject_classification_options, with_backbone, with_object_augmentations
from hubel.training.tasks.localization_learning import WATCHED, LocalizationLearning

NETWORK = "localizer"
_MISTAKES = 24
LOSS_WEIGHTS = DEFAULTS["localize"]["loss_weights"]


class Localization(BoxTask):
    """See :class:`hubel.training.task.Task`."""

    name = "localize"
    watched: Mapping[str, str] = WATCHED

    def settle(self, config: TrainingConfig) -> TrainingConfig:
        """A classifier named as the network becomes the backbone."""
        reject_classification_options(config)
        if unknown := [name for name in config.loss_weights if name not in TERMS]:
            raise UsageError(
                f"--loss-weights {unknown[0]}: the loss has no such term", f"choose from {', '.join(TERMS)}"
            )
        if "mosaic" in config.augmentation:
            raise UsageError("--augment mosaic shows several objects, and one box an image is learned", "leave it out")
        settled = with_backbone(with_object_augmentations(config), NETWORK)
        return replace(settled, loss_weights=config.loss_weights or LOSS_WEIGHTS)

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """Of each picture the largest object; pictures without any are left out."""
        objects = largest_only(read_annotated_images(data, strict=strict))
        shown = {
            split: tuple(each for each in samples if len(each.labels)) for split, samples in objects.splits.items()
        }
        empty = sum(map(len, objects.splits.values())) - sum(map(len, shown.values()))
        told = (f"{objects.root}: {empty} pictures show no object and are left out.",) if empty else ()
        splits = {split: samples for split, samples in shown.items() if samples}
        return replace(objects, splits=splits, warnings=(*objects.warnings, *told))

    def prepare(self, config: TrainingConfig, model: Model, metadata: ModelMetadata) -> ModelMetadata:
        """As it was made."""
        if not isinstance(model.head, LocalizationHead):
            raise ModelError(f"{config.model} is no localizer", f"take --model {NETWORK}, and choose its --backbone")
        return metadata

    def learning(
        self, config: TrainingConfig, samples: Sequence[Sample], metadata: ModelMetadata, device: torch.device
    ) -> LocalizationLearning:
        """Cross-entropy of the class, and what was asked for of the box."""
        return LocalizationLearning(uses_sqrt_size(metadata.options), config.loss_weights)

    def merit(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Mean IoU; of equal ones the lower loss."""
        return row["val_mean_iou"], -row["val_loss"]

    def answer(self, output: Tensor, metadata: ModelMetadata) -> np.ndarray:
        """Probabilities, and the box in fractions of the input."""
        values = output.float().cpu().numpy()
        boxes = read_boxes(values[:, -4:], uses_sqrt_size(metadata.options)).astype(np.float32)
        return np.concatenate((probabilities(values[:, :-4]), boxes), 1)

    def answer_width(self, classes: int) -> int:
        """One of each class, and four."""
        return classes + 4

    def scores(self, answers: Answers, metadata: ModelMetadata) -> LocalizationScores:
        """Of classes and boxes, these in pixels of the pictures."""
        labels = np.array([sample.labels[0] for sample in answers.samples])
        true = np.stack([sample.boxes[0] for sample in answers.samples])
        return score_localization(
            answers.values[:, :-4], labels, found_boxes(answers, metadata), true, metadata.classes
        )

    def table(self, scores: LocalizationScores) -> str:
        """Totals, then a line a class; fractions."""
        return scores_table(scores)

    def rows(self, answers: Answers, metadata: ModelMetadata) -> list[dict[str, Any]]:
        """Source, truth, and the class and box that were found."""
        rows = []
        for sample, values, box in zip(answers.samples, answers.values, found_boxes(answers, metadata), strict=True):
            (best,) = top_k(values[:-4], metadata.classes, 1)
            truth = {
                "name": metadata.classes[sample.labels[0]],
                "box": [round(float(side), 2) for side in sample.boxes[0]],
            }
            found = {**best.to_json(), "box": [round(float(side), 2) for side in box]}
            rows.append({"source": str(sample.path), "truth": truth, "objects": [found]})
        return rows

    def mistakes(self, answers: Answers, metadata: ModelMetadata) -> Sequence[Mistake]:
        """Those of the least overlap."""
        found = found_boxes(answers, metadata)
        overlap = paired_iou(found, np.stack([sample.boxes[0] for sample in answers.samples]))
        return [
            _mistake(answers.samples[place], answers.values[place], found[place], float(overlap[place]), metadata)
            for place in np.argsort(overlap, kind="stable")[:_MISTAKES].tolist()
        ]


def _mistake(sample: Sample, values: np.ndarray, box: np.ndarray, overlap: float, metadata: ModelMetadata) -> Mistake:
    (best,) = top_k(values[:-4], metadata.classes, 1)
    truth = metadata.classes[sample.labels[0]]
    true = BoxLabel(_corners(sample.boxes[0]), truth, 0)
    found = BoxLabel(_corners(box), f"{best.name} IoU {overlap:.2f}", 1)
    return Mistake(sample.path, truth, best.name, best.score, overlap, (true, found))


def _corners(box: np.ndarray) -> Box:
    x1, y1, x2, y2 = (float(side) for side in box)
    return x1, y1, x2, y2


def found_boxes(answers: Answers, metadata: ModelMetadata) -> np.ndarray:
    """The boxes (N, 4) that were found, in pixels of the upright originals."""
    size = metadata.preprocessing
    boxes = answers.values[:, -4:] * np.array([size.width, size.height] * 2)
    rows = zip(boxes, answers.samples, strict=True)
    return np.concatenate([scale_to_original(box[None], size, sample.width, sample.height) for box, sample in rows])


def scores_table(scores: LocalizationScores) -> str:
    """Totals, then a line a class; fractions."""
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
