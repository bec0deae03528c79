"""What a classifier minimizes, and what is watched meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hubel.config import TrainingConfig
from hubel.data.checks.training_checks import SKEWED
from hubel.data.samples import Batch
from hubel.data.transforms.image_transform import MixUpCutMix
from hubel.tasks.classification.loss import batch_weight, classification_loss, imbalance_ratio, inverse_frequency
from hubel.training.tasks.means import Means


@dataclass(frozen=True)
class ClassLearning:
    """See :class:`hubel.training.task.Objective`. Labels are classes (N,), or after blending rows of probabilities.

    Attributes:
        blending: MixUp and CutMix.
        label_smoothing: as in :func:`~hubel.tasks.classification.classification_loss`.
        class_weights: the same.
        decision: how skewed classes are treated, and why.
        chances: of each training image to be drawn.
        fixed_features: whether features of a frozen backbone may stand in for the images.
    """

    blending: MixUpCutMix
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None
    decision: str = ""
    chances: Tensor | None = None
    fixed_features: bool = False

    def labels(self, batch: Batch, device: torch.device) -> Tensor:
        """Classes (N,)."""
        return batch.labels.to(device)

    def change(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Blended or as it came."""
        return self.blending(images, labels)

    def terms(self, output: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Cross-entropy."""
        return {"class": classification_loss(output, labels, self.label_smoothing, self.class_weights)}

    def weight(self, labels: Tensor) -> float:
        """Its images, weighted by their classes."""
        return batch_weight(labels, self.class_weights)

    def sums(self, output: Tensor, labels: Tensor) -> dict[str, float]:
        """How many are right."""
        classes = labels.argmax(1) if labels.ndim == 2 else labels
        return {"top1": int((output.detach().argmax(1) == classes).sum())}

    def validation(self) -> Means:
        """Loss and accuracy, without smoothing, weights or augmentation."""
        return Means(("loss", "top1"), plain_sums)


def plain_sums(output: Tensor, labels: Tensor) -> tuple[float, float]:
    """Cross-entropy and how many are right, summed over images."""
    loss = float(F.cross_entropy(output.float(), labels, reduction="sum"))
    return loss, int((output.argmax(1) == labels).sum())


def class_learning(config: TrainingConfig, labels: Sequence[int], classes: int, device: torch.device) -> ClassLearning:
    """What a run minimizes on training images of these classes."""
    balance, sentence = choose_balance(config.balance, labels, classes)
    return ClassLearning(
        blending=MixUpCutMix(config.augmentation, classes),
        label_smoothing=config.label_smoothing or 0.0,
        class_weights=inverse_frequency(labels, classes).to(device) if balance == "loss" else None,
        decision=sentence,
        chances=inverse_frequency(labels, classes)[torch.tensor(labels)] if balance == "sampling" else None,
        fixed_features=balance == "smote" or config.cache_features or not config.augmentation,
    )


def choose_balance(wanted: str, labels: Sequence[int], classes: int) -> tuple[str, str]:
    """How skewed classes are treated, and the sentence that says so."""
    skew = imbalance_ratio(labels, classes)
    if wanted == "none" or (wanted == "auto" and skew < SKEWED):
        return "none", ""
    if wanted == "smote":
        largest = np.bincount(labels, minlength=classes).max()
        return wanted, (
            f"class balance: SMOTE, as asked: {largest * classes - len(labels)} interpolated features beside those of "
            f"{len(labels)} images, so that every class has {largest}"
        )
    if wanted != "auto":
        return wanted, f"class balance: {wanted}, as asked (largest class {skew:.1f} times the smallest)"
    return "sampling", (
        f"class balance: the largest class has {skew:.1f} times the images of the smallest, so rare classes are drawn "
        "more often (--balance loss weights the loss instead, --balance none leaves it)"
    )
