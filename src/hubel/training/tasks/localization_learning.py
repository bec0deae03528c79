"""What a localizer minimizes, and what is watched meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hubel.data.samples import Batch
from hubel.metrics.localization import ENOUGH, paired_iou
from hubel.tasks.localization.loss import NOTHING, LocalizationTarget, decoded, localization_terms, split
from hubel.training.tasks.means import Means

WATCHED = {"mean_iou": "mean IoU", "top1": "top-1", "iou50": "IoU ≥ 0.5", "both": "both"}


@dataclass(frozen=True)
class LocalizationLearning:
    """See :class:`hubel.training.task.Objective`. Labels are :class:`~hubel.tasks.localization.LocalizationTarget`.

    Attributes:
        roots: the network gives square roots of height and width.
        weights: of the loss's terms.
    """

    roots: bool
    weights: Mapping[str, float]

    decision = ""
    chances = None
    fixed_features = False

    def labels(self, batch: Batch, device: torch.device) -> LocalizationTarget:
        """Of each image its only object; of one that a random change has made too small to be kept, nothing counts."""
        height, width = batch.pixels.shape[2:]
        scale = torch.tensor([width, height, width, height])
        boxes = torch.from_numpy(
            np.stack([each.boxes[0] if len(each.boxes) else np.zeros(4, np.float32) for each in batch.targets])
        )
        labels = [int(each.labels[0]) if len(each.labels) else NOTHING for each in batch.targets]
        return LocalizationTarget(torch.tensor(labels), boxes / scale).to(device)

    def change(self, images: Tensor, labels: LocalizationTarget) -> tuple[Tensor, LocalizationTarget]:
        """As it came."""
        return images, labels

    def terms(self, output: Tensor, labels: LocalizationTarget) -> dict[str, Tensor]:
        """Of the class and of the box."""
        return localization_terms(output, labels, self.roots, self.weights)

    def weight(self, labels: LocalizationTarget) -> float:
        """Its images."""
        return float(len(labels.labels))

    def sums(self, output: Tensor, labels: LocalizationTarget) -> dict[str, float]:
        """Overlaps and what is right."""
        return dict(zip(WATCHED, self._figures(output.detach(), labels), strict=True))

    def validation(self) -> Means:
        """The loss and what is watched."""
        return Means(("loss", *WATCHED), self._all_figures)

    def _all_figures(self, output: Tensor, labels: LocalizationTarget) -> tuple[float, ...]:
        terms = localization_terms(output, labels, self.roots, self.weights)
        loss = sum(float(term) for term in terms.values()) * len(labels.labels)
        return loss, *self._figures(output, labels)

    def _figures(self, output: Tensor, labels: LocalizationTarget) -> tuple[float, float, float, float]:
        scores, raw = split(output.float())
        overlap = paired_iou(decoded(raw, self.roots).cpu().numpy(), labels.boxes.cpu().numpy())
        right = (scores.argmax(1) == labels.labels).cpu().numpy()
        enough = overlap >= ENOUGH
        return float(overlap.sum()), int(right.sum()), int(enough.sum()), int((enough & right).sum())
