"""Metrics of instance segmentation: those of detection, COCO's of masks, and of their boundaries."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hubel.metrics.coco import CocoEvaluator, CocoScores, GroundTruth, PredictedObjects
from hubel.metrics.detection import DetectionScores, score_detection
from hubel.metrics.partly_labelled import with_crowds

MASK_METRICS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR100")
"""Of COCO's, those that masks have, with ``mask_`` before their names."""

_OF_CLASS = ("AP", "AP50", "AP_small", "AP_medium", "AP_large")


@dataclass(frozen=True)
class InstanceScores:
    """Metrics of objects with masks, fractions 0..1.

    Attributes:
        objects: those of detection; COCO's are of boxes; precision, recall and confusion, of masks.
        masks: COCO's of masks.
        boundaries: COCO's of masks, with the smaller of mask IoU and Boundary IoU; ``None`` if it was not asked for.
    """

    objects: DetectionScores
    masks: CocoScores
    boundaries: CocoScores | None = None

    @property
    def images(self) -> int:
        """Number of images scored."""
        return self.objects.images

    def to_json(self) -> dict[str, Any]:
        """As :meth:`DetectionScores.to_json`, with the same of masks by ``mask_`` and their names.

        ``metrics`` also has ``boundary_AP`` where it was asked for.
        """
        document = self.objects.to_json()
        document["metrics"] |= {f"mask_{name}": _plain(self.masks.metrics[name]) for name in MASK_METRICS}
        if self.boundaries is not None:
            document["metrics"]["boundary_AP"] = _plain(self.boundaries.metrics["AP"])
        for row, masks in zip(document["per_class"], self.masks.per_class, strict=True):
            row |= {f"mask_{name}": _plain(masks[name]) for name in _OF_CLASS}
        return document


def score_instances(
    truths: Sequence[GroundTruth],
    predictions: Sequence[PredictedObjects],
    classes: Sequence[str],
    with_boundaries: bool = True,
) -> InstanceScores:
    """Score the objects of images, which have masks; COCO's metrics need objects of any score.

    Raises:
        DataError: as :func:`~hubel.metrics.detection.score_detection`, and if objects have no masks.
    """
    truths = with_crowds(truths, predictions)
    objects = score_detection(truths, predictions, classes)
    of_masks = CocoEvaluator(classes, "segm")
    of_boundaries = CocoEvaluator(classes, "boundary") if with_boundaries else None
    for truth, predicted in zip(truths, predictions, strict=True):
        of_masks.update(truth, predicted)
        if of_boundaries is not None:
            of_boundaries.update(truth, predicted)
    boundaries = None if of_boundaries is None else of_boundaries.compute()
    return InstanceScores(objects, of_masks.compute(), boundaries)


def scores_table(scores: InstanceScores) -> str:
    """Totals of masks and of boxes, then a line per class; fractions."""
    values = scores.to_json()
    metrics = values["metrics"]
    names = ("AP", "AP50", "AP75", "AR100")
    width = max(map(len, ("class", *scores.objects.classes)))
    lines = [
        "masks   " + "   ".join(f"{name} {_text(metrics[f'mask_{name}'], 4)}" for name in names),
        "boxes   " + "   ".join(f"{name} {_text(metrics[name], 4)}" for name in names),
    ]
    if "boundary_AP" in metrics:
        lines[0] += f"   boundary AP {_text(metrics['boundary_AP'], 4)}"
    columns = {"mask_AP": "mask AP", "mask_AP50": "mask AP50", "AP": "box AP", "precision": "precision"}
    columns["recall"] = "recall"
    lines += ["", f"{'class':<{width}}  images  objects  {'  '.join(columns.values())}"]
    for row in values["per_class"]:
        if row["objects"]:
            cells = (f"{_text(row[name], 3):>{len(label)}}" for name, label in columns.items())
            lines.append(f"{row['name']:<{width}}  {row['images']:>6}  {row['objects']:>7}  {'  '.join(cells)}")
    if scores.objects.curves.best is not None:
        best = f"{scores.objects.best_confidence:g}"
        lines += ["", f"Highest mean F1 {_text(scores.objects.best_f1, 3)} at --conf {best}"]
    return "\n".join(lines)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _text(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
