"""Image classification, from class folders: data and metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hubel.config import TrainingConfig
from hubel.data.checks.training_checks import SKEWED, Findings, check_class_folders
from hubel.data.image_folder import read_class_folders
from hubel.data.samples import Batch, ImageDataset, Sample, Target
from hubel.data.transforms.image_transform import (
    ImageTransform,
    MixUpCutMix,
    check_augmentations,
    describe_augmentations,
)
from hubel.errors import ModelError, UsageError
from hubel.metrics.classification import ClassificationScores, ImageScore, combine_images, score_images
from hubel.models.base import Classifier, ClassTargets, Model
from hubel.models.metadata import ModelMetadata
from hubel.reports.report_data import Mistake
from hubel.results import Classification as ClassificationResult
from hubel.results import ClassScore
from hubel.tasks.base import Evaluator, Predictions, ProgressCallback, Task, TaskData
from hubel.tasks.classification.decode import top_k
from hubel.tasks.classification.report import REPORT


class _Classified(NamedTuple):
    """One image: its label and prediction; of a sample its file and best classes, too."""

    score: ImageScore
    path: Path | None = None
    best: tuple[ClassScore, ...] = ()


class ClassificationEvaluator(Evaluator):
    """See :class:`~hubel.tasks.base.Evaluator`."""

    def update(self, predictions: Predictions, truths: Sequence[Sample | Target]) -> None:
        """Take ``"probabilities"`` (N, classes)."""
        probabilities = predictions["probabilities"]
        scores = score_images(probabilities, [truth.label for truth in truths], len(self.classes))
        for truth, row, score in zip(truths, probabilities, scores, strict=True):
            if isinstance(truth, Sample):
                self.images.append(_Classified(score, truth.path, top_k(row, self.classes, 5)))
            else:
                self.images.append(_Classified(score))

    def compute(self) -> ClassificationScores:
        """Accuracy, calibration, and metrics of every class."""
        return combine_images([image.score for image in self.images], self.classes)

    def prediction_records(self) -> list[dict[str, Any]]:
        """Source, truth, and the best five classes."""
        return [
            {
                "source": str(image.path),
                "truth": self.classes[image.score.label],
                "classes": [score.to_json() for score in image.best],
            }
            for image in self.images
        ]

    def worst_predictions(self, count: int = 24) -> list[Mistake]:
        """The most confident wrong predictions; of equally confident ones the earlier."""
        wrong = [image for image in self.images if image.score.predicted != image.score.label]
        most_confident = sorted(wrong, key=lambda image: -image.score.confidence)[:count]
        return [
            Mistake(
                Path(image.path),
                self.classes[image.score.label],
                self.classes[image.score.predicted],
                image.score.confidence,
            )
            for image in most_confident
        ]


class ClassificationData(TaskData):
    """See :class:`~hubel.tasks.base.TaskData`."""

    transform = ImageTransform

    def __init__(self, config: TrainingConfig, metadata: ModelMetadata, side: int, samples: Sequence[Sample]) -> None:
        super().__init__(config, metadata, side, samples)
        labels, classes = [sample.label for sample in samples], len(metadata.classes)
        self._blend = MixUpCutMix(config.augmentation, classes)
        balance, self.balance_note = choose_balance(config.balance, labels, classes)
        weights = inverse_frequency(labels, classes)
        self._class_weights = weights if balance == "loss" else None
        self.sample_weights = weights[torch.tensor(labels)] if balance == "sampling" else None
        self.allows_feature_cache = balance == "smote" or config.cache_features or not config.augmentation

    def targets(self, batch: Batch, device: torch.device, train: bool = True) -> ClassTargets:
        """Classes; label smoothing and class weights in training only."""
        labels = batch.labels.to(device)
        if not train:
            return ClassTargets(labels)
        weights = None if self._class_weights is None else self._class_weights.to(device)
        return ClassTargets(labels, self.config.label_smoothing or 0.0, weights)

    def blend(self, images: Tensor, targets: ClassTargets, step: int) -> tuple[Tensor, ClassTargets]:
        """MixUp and CutMix."""
        images, labels = self._blend(images, targets.labels)
        return images, replace(targets, labels=labels)

    def describe_augmentations(self) -> list[str]:
        """Images first, then batches."""
        return describe_augmentations(self.config.augmentation)


def choose_balance(wanted: str, labels: Sequence[int], classes: int) -> tuple[str, str]:
    """The treatment of imbalanced classes, and the sentence that says so."""
    ratio = imbalance_ratio(labels, classes)
    if wanted == "none" or (wanted == "auto" and ratio < SKEWED):
        return "none", ""
    if wanted == "smote":
        largest = np.bincount(labels, minlength=classes).max()
        return wanted, (
            f"class balance: SMOTE, as requested: {largest * classes - len(labels)} interpolated features in addition "
            f"to those of {len(labels)} images, so that every class has {largest}"
        )
    if wanted != "auto":
        return wanted, f"class balance: {wanted}, as requested (largest class {ratio:.1f} times the smallest)"
    return "sampling", (
        f"class balance: the largest class has {ratio:.1f} times the images of the smallest, so rare classes are drawn "
        "more often (--balance loss weights the loss instead, --balance none turns this off)"
    )


def inverse_frequency(labels: Sequence[int], num_classes: int) -> Tensor:
    """Weight of each class, proportional to 1 / its images, with a mean of 1 over the images (classes,)."""
    counts = torch.bincount(torch.as_tensor(labels), minlength=num_classes).float()
    weights = 1.0 / counts.clamp(min=1.0)
    return weights * (counts.sum() / (weights * counts).sum())


def imbalance_ratio(labels: Sequence[int], num_classes: int) -> float:
    """Images of the largest class over images of the smallest that has any."""
    counts = np.bincount(np.asarray(labels), minlength=num_classes)
    return float(counts.max() / counts[counts > 0].min(initial=max(1, counts.max())))


class Classification(Task):
    """One class per image."""

    name = "classify"
    result = ClassificationResult
    monitor = ("top1", "-loss")
    logged_metrics: ClassVar[Mapping[str, str]] = {"top1": "top-1"}
    data = ClassificationData
    evaluator = ClassificationEvaluator
    report = REPORT

    def choice_margin(self, best: float, images: int) -> float:
        """One standard error (Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3).

        An epoch that is better by less is mostly better by luck; a later one has learned for longer, at lower rates,
        and averages more steps. docs/results.md compares the two on held-out folds.
        """
        return math.sqrt(best * (1 - best) / images)

    def resolve_config(self, config: TrainingConfig) -> TrainingConfig:
        """Augmentations in the order of application, presets spelled out."""
        for option, value in (("--backbone", config.backbone), ("--loss-weights", config.loss_weights)):
            if value:
                raise UsageError(f"{option} does not apply to classification", "see hubel train --help")
        return replace(config, augmentation=check_augmentations(config.augmentation))

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """Class folders."""
        return read_class_folders(data)

    def check(
        self, splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: ProgressCallback
    ) -> Findings:
        """Unreadable images are left out; copies, and classes with few images, are reported or refused."""
        return check_class_folders(splits, classes, progress)

    def prepare_model(
        self, config: TrainingConfig, model: Model, metadata: ModelMetadata, samples: Sequence[Sample]
    ) -> ModelMetadata:
        """New heads on pretrained features begin undecided, not confidently wrong."""
        if not isinstance(model, Classifier):
            raise ModelError(f"{config.model} is not a classifier", "choose one of hubel models --task classify")
        if metadata.weights is None:
            return metadata
        for head in (model.head, *model.auxiliary.values()):
            classifier = head.get_submodule("classifier")
            if isinstance(classifier, nn.Linear):
                nn.init.normal_(classifier.weight, std=0.01)
                nn.init.zeros_(classifier.bias)
        # The whole central square: images that people train on are seldom as centred as ImageNet's.
        return replace(metadata, preprocessing=replace(metadata.preprocessing, crop_fraction=1.0))

    def scores_table(self, scores: ClassificationScores) -> str:
        """Totals, then a line per class; fractions."""
        width = max(len("class"), *(len(row.name) for row in scores.per_class))
        lines = [
            f"top-1 {scores.top1:.4f} (95 % confidence {scores.top1_low:.3f} to {scores.top1_high:.3f})   "
            f"top-{scores.top_n} {scores.top5:.4f}   loss {scores.loss:.4f}   macro F1 {scores.macro_f1:.4f}   "
            f"balanced accuracy {scores.balanced_accuracy:.4f}   ECE {scores.ece:.4f}",
            "",
            f"{'class':<{width}}  images  precision  recall      F1",
        ]
        for row in scores.per_class:
            if row.images or row.predicted:
                lines.append(
                    f"{row.name:<{width}}  {row.images:>6}  {row.precision:>9.3f}  {row.recall:>6.3f}  {row.f1:>6.3f}"
                )
        return "\n".join(lines)
