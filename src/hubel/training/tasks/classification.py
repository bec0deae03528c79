"""Classification: one class an image, from class folders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hubel.config import TrainingConfig
from hubel.data.checks.training_checks import Findings, check_class_folders
from hubel.data.image_folder import read_class_folders
from hubel.data.loader import BatchDataset
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import ImageDataset, Sample
from hubel.data.splits import Splits
from hubel.data.transforms.image_transform import (
    ImageTransform,
    MixUpCutMix,
    check_augmentations,
    describe_augmentations,
)
from hubel.errors import ModelError, UsageError
from hubel.metrics.classification import ClassificationScores, score_classification
from hubel.models import ModelMetadata
from hubel.models.base import Classifier, Model
from hubel.reports import AugmentationSample, Mistake, most_confident_mistakes
from hubel.reports.augmentation_preview import augmentation_preview
from hubel.tasks.classification.decode import top_k
from hubel.training.data_module import RunImages
from hubel.training.feature_cache import (
    FeatureCache,
    neighbours_for,
    require_fixed_features,
    require_imbalanced_learn,
    with_smote,
)
from hubel.training.finetune import Phase
from hubel.training.predict_split import Answers
from hubel.training.sample_images import SampleImages
from hubel.training.task import Objective
from hubel.training.tasks.class_learning import ClassLearning, class_learning


class Classification:
    """See :class:`hubel.training.task.Task`."""

    name = "classify"
    watched: Mapping[str, str] = {"top1": "top-1"}

    def settle(self, config: TrainingConfig) -> TrainingConfig:
        """All options are for classification, but for those of boxes."""
        for option, value in (("--backbone", config.backbone), ("--loss-weights", config.loss_weights)):
            if value:
                raise UsageError(f"{option} is not for classification", "see hubel train --help")
        if config.balance == "smote":
            require_imbalanced_learn()
        return replace(config, augmentation=check_augmentations(config.augmentation))

    def read(self, data: Path, strict: bool = False) -> ImageDataset:
        """Class folders."""
        return read_class_folders(data)

    def check(
        self,
        splits: Mapping[str, Sequence[Any]],
        classes: Sequence[str],
        progress: Callable[[int, int], None] | None,
    ) -> Findings:
        """Unreadable pictures are left out; copies and lone classes are told or refused."""
        return check_class_folders(splits, classes, progress)

    def prepare(self, config: TrainingConfig, model: Model, metadata: ModelMetadata) -> ModelMetadata:
        """New heads on pretrained features begin undecided, not confidently wrong."""
        if not isinstance(model, Classifier):
            raise ModelError(f"{config.model} is no classifier", "hubel models --task classify lists those")
        if metadata.weights is not None:  # the whole centre of a photograph: what one trains on is seldom as centred
            metadata = replace(metadata, preprocessing=replace(metadata.preprocessing, crop_fraction=1.0))
            for head in (model.head, *model.auxiliary.values()):
                _init_head(head.get_submodule("classifier"))
        return metadata

    def refuse(
        self,
        config: TrainingConfig,
        model: Model,
        phases: Sequence[Phase],
        classes: Sequence[str],
        splits: Splits[Any],
    ) -> None:
        """What SMOTE cannot be used with."""
        if config.balance == "smote":
            require_fixed_features(config, model, phases, "--balance smote")
            neighbours_for([sample.label for sample in splits.train], classes)

    def learning(
        self, config: TrainingConfig, samples: Sequence[Sample], metadata: ModelMetadata, device: torch.device
    ) -> ClassLearning:
        """Cross-entropy, smoothed, weighted and blended as configured."""
        return class_learning(config, [sample.label for sample in samples], len(metadata.classes), device)

    def images(self, config: TrainingConfig, preprocessing: Preprocessing, side: int) -> SampleImages:
        """Pixels and a class each."""
        augmented = ImageTransform(preprocessing.resized(side), config.augmentation)
        return SampleImages(augmented, ImageTransform(preprocessing), config.seed)

    def features(
        self,
        config: TrainingConfig,
        metadata: ModelMetadata,
        side: int,
        samples: Sequence[Sample],
        images: RunImages,
        learning: Objective,
    ) -> FeatureCache | None:
        """Of the training images as training sees them where it makes no changes, else as prediction does."""
        if not learning.fixed_features:
            return None
        assert isinstance(learning, ClassLearning)
        plain = replace(learning, blending=MixUpCutMix((), len(metadata.classes)))
        enlarge = partial(with_smote, classes=metadata.classes, seed=config.seed) if config.balance == "smote" else None
        size = metadata.preprocessing if config.augmentation else metadata.preprocessing.resized(side)
        unchanged = BatchDataset(samples, ImageTransform(size), config.seed)
        in_order = images.in_order(unchanged, len(samples))
        return FeatureCache(in_order, size, images.whole_validation(), plain, enlarge)

    def merit(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """Accuracy; of equal accuracy the lower loss."""
        return row["val_top1"], -row["val_loss"]

    def answer(self, output: Tensor, metadata: ModelMetadata) -> np.ndarray:
        """Probabilities (N, classes)."""
        probabilities: np.ndarray = torch.softmax(output.float(), 1).cpu().numpy()
        return probabilities

    def answer_width(self, classes: int) -> int:
        """One of each class."""
        return classes

    def scores(self, answers: Answers, metadata: ModelMetadata) -> ClassificationScores:
        """Accuracy, calibration, and figures of every class."""
        return score_classification(answers.values, _labels(answers), metadata.classes)

    def table(self, scores: ClassificationScores) -> str:
        """Totals, then a line a class; fractions."""
        return scores_table(scores)

    def rows(self, answers: Answers, metadata: ModelMetadata) -> list[dict[str, Any]]:
        """Source, truth, and the best five classes."""
        rows = []
        for sample, probabilities in zip(answers.samples, answers.values, strict=True):
            best = [score.to_json() for score in top_k(np.asarray(probabilities), metadata.classes, 5)]
            rows.append({"source": str(sample.path), "truth": metadata.classes[sample.label], "classes": best})
        return rows

    def transforms(self, config: TrainingConfig) -> list[str]:
        """As classification's augmentations describe themselves."""
        return describe_augmentations(config.augmentation)

    def mistakes(self, answers: Answers, metadata: ModelMetadata) -> Sequence[Mistake]:
        """Of which the network was surest."""
        paths = [sample.path for sample in answers.samples]
        return most_confident_mistakes(paths, _labels(answers), answers.values, metadata.classes)

    def sheet(
        self, samples: Sequence[Sample], preprocessing: Preprocessing, config: TrainingConfig
    ) -> list[AugmentationSample]:
        """From the run's own seed."""
        augmented = ImageTransform(preprocessing, config.augmentation)
        return augmentation_preview(samples, ImageTransform(preprocessing), augmented, config.seed)


def _labels(answers: Answers) -> np.ndarray:
    """The true classes, int64 (N,)."""
    return np.array([sample.label for sample in answers.samples], dtype=np.int64)


def _init_head(classifier: nn.Module) -> None:
    if isinstance(classifier, nn.Linear):
        nn.init.normal_(classifier.weight, std=0.01)
        nn.init.zeros_(classifier.bias)


def scores_table(scores: ClassificationScores) -> str:
    """Totals, then a line a class; fractions."""
    width = max(len("class"), *(len(row.name) for row in scores.per_class))
    lines = [
        f"top-1 {scores.top1:.4f} (95 % confidence {scores.top1_low:.3f} to {scores.top1_high:.3f})   "
        f"top-{scores.top_n} {scores.top5:.4f}   loss {scores.loss:.4f}   macro F1 {scores.macro_f1:.4f}   "
        f"ECE {scores.ece:.4f}",
        "",
        f"{'class':<{width}}  images  precision  recall      F1",
    ]
    for row in scores.per_class:
        if row.images or row.predicted:
            lines.append(
                f"{row.name:<{width}}  {row.images:>6}  {row.precision:>9.3f}  {row.recall:>6.3f}  {row.f1:>6.3f}"
            )
    return "\n".join(lines)
