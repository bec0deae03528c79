"""What a detector minimizes, and what is watched meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hubel.data.samples import Batch
from hubel.metrics.coco import CocoEvaluator, FoundObjects, GroundTruth
from hubel.tasks.detection.loss import NMSConfig, Targets, decode, multibox_loss
from hubel.training.distributed import DistributedContext

WATCHED = {"AP50": "AP50", "AP": "AP"}
RULE = NMSConfig(conf=0.001, iou=0.6, most=100)
"""How raw outputs become the objects that are scored: COCO's precision looks at the best hundred of a picture."""

_TRUE, _FOUND = 0.0, 1.0


@dataclass(frozen=True)
class ObjectLabels:
    """The objects of a batch.

    Attributes:
        targets: of each image.
        size: height and width of the images in pixels.
    """

    targets: Sequence[Targets]
    size: tuple[int, int]


@dataclass(frozen=True)
class DetectionLearning:
    """See :class:`hubel.training.task.Objective`. Labels are :class:`ObjectLabels`.

    Attributes:
        classes: names.
        anchors: of images of a height and width: (A, 4).
    """

    classes: tuple[str, ...]
    anchors: Callable[[int, int], Tensor]

    decision = ""
    chances = None
    fixed_features = False

    def labels(self, batch: Batch, device: torch.device) -> ObjectLabels:
        """All but crowds."""
        targets = [
            Targets(torch.from_numpy(each.boxes).to(device), torch.from_numpy(each.labels).to(device))
            for each in batch.targets
        ]
        return ObjectLabels(targets, (batch.pixels.shape[2], batch.pixels.shape[3]))

    def change(self, images: Tensor, labels: ObjectLabels) -> tuple[Tensor, ObjectLabels]:
        """As it came."""
        return images, labels

    def terms(self, output: tuple[Tensor, Tensor], labels: ObjectLabels) -> dict[str, Tensor]:
        """Of the anchors' classes, and of the offsets of those with an object."""
        scores, offsets = output
        return multibox_loss(scores, offsets, self._anchors(scores, labels), labels.targets)

    def weight(self, labels: ObjectLabels) -> float:
        """Its images; the terms are means over the anchors with an object, of which each process has its own number."""
        return float(len(labels.targets))

    def sums(self, output: tuple[Tensor, Tensor], labels: ObjectLabels) -> dict[str, float]:
        """Nothing: average precision is of no batch."""
        return {}

    def validation(self) -> DetectionValidation:
        """The loss and its terms, and average precision."""
        return DetectionValidation(self)

    def found(self, output: tuple[Tensor, Tensor], labels: ObjectLabels) -> list[FoundObjects]:
        """The objects of each image, in pixels of the network's input."""
        scores, offsets = output
        anchors = self._anchors(scores, labels)
        return [
            FoundObjects(each.boxes.cpu().numpy(), each.scores.cpu().numpy(), each.labels.cpu().numpy())
            for each in decode(scores, offsets, anchors, labels.size, RULE)
        ]

    def _anchors(self, scores: Tensor, labels: ObjectLabels) -> Tensor:
        return self.anchors(*labels.size).to(scores.device)


class DetectionValidation:
    """See :class:`hubel.training.task.Validation`. Objects are compared in pixels of the network's input.

    Args:
        learning: whose anchors and classes they are.
    """

    def __init__(self, learning: DetectionLearning) -> None:
        self._learning = learning
        self._losses = {"loss": 0.0, "class_loss": 0.0, "box_loss": 0.0}
        # Rows: image, whether labelled or found, class, x1, y1, x2, y2, score.
        self._rows: list[np.ndarray] = [np.empty((0, 8))]
        self._images = 0

    def add(self, output: tuple[Tensor, Tensor], labels: ObjectLabels) -> None:
        """Take a batch."""
        terms = {name: float(term) for name, term in self._learning.terms(output, labels).items()}
        for name, value in {"loss": sum(terms.values()), **{f"{term}_loss": terms[term] for term in terms}}.items():
            self._losses[name] += value * len(labels.targets)
        for target, found in zip(labels.targets, self._learning.found(output, labels), strict=True):
            boxes, classes = target.boxes.cpu().numpy(), target.labels.cpu().numpy()
            self._rows.append(_rows(self._images, _TRUE, classes, boxes, np.ones(len(classes))))
            self._rows.append(_rows(self._images, _FOUND, found.labels, found.boxes, found.scores))
            self._images += 1

    def columns(self, processes: DistributedContext, images: float) -> dict[str, float]:
        """Means of the losses, and average precision over the images of all processes; 0 where there is no object."""
        rows = np.concatenate(self._rows)
        rows[:, 0] = rows[:, 0] * processes.count + processes.rank
        rows = processes.all_gather(rows)
        evaluator = CocoEvaluator(self._learning.classes)
        for image in np.unique(rows[:, 0]):
            own = rows[rows[:, 0] == image]
            true, found = own[own[:, 1] == _TRUE], own[own[:, 1] == _FOUND]
            evaluator.add(
                GroundTruth(true[:, 3:7], true[:, 2].astype(int)),
                FoundObjects(found[:, 3:7], found[:, 7], found[:, 2].astype(int)),
            )
        figures = evaluator.scores().figures
        losses = processes.total(*self._losses.values())
        return {
            **{name: total / images for name, total in zip(self._losses, losses, strict=True)},
            **{name: float(np.nan_to_num(figures[name])) for name in WATCHED},
        }


def _rows(image: int, kind: float, labels: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> np.ndarray:
    count = len(labels)
    return np.column_stack((np.full(count, image), np.full(count, kind), labels, boxes.reshape(count, 4), scores))
