"""COCO's average precision, collected image by image.

The matching is that of faster-coco-eval, whose results equal pycocotools'. It needs a dictionary for each box; to save
memory, boxes are stored as rows of numbers and passed on class by class, as classes do not depend on each other.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from hubel.boxes import area
from hubel.errors import DataError

RECALL_STEPS = np.linspace(0, 1, 101)
"""Recalls at which precision is sampled: 0, 0.01, … 1."""

_CLASS_METRICS = ("AP", "AP50", "AR100", "AP_small", "AP_medium", "AP_large")
_AREAS = ("all", "small", "medium", "large")  # below 32², below 96², above
_MAX_DETECTIONS = (1, 10, 100)  # per class and image


@dataclass(frozen=True)
class GroundTruth:
    """Labelled objects of one image.

    Attributes:
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        labels: (N,) class indices.
        crowd: (N,) bool: a region of many objects, within which detections are ignored.
        areas: (N,) pixels, by which objects are small, medium or large; ``None``: areas of the masks, else the boxes.
        masks: compressed run-length encodings; ``None``: boxes only.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    masks: Sequence[dict[str, Any]] | None = None


class PredictedObjects(NamedTuple):
    """Predicted objects of one image.

    Attributes:
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        scores: (N,), 0..1.
        labels: (N,) class indices.
        masks: compressed run-length encodings; ``None``: boxes only.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[dict[str, Any]] | None = None


@dataclass(frozen=True)
class CocoScores:
    """COCO's metrics, fractions 0..1; NaN where there are no such objects.

    Attributes:
        metrics: ``AP`` (mean over IoU 0.50 to 0.95), ``AP50``, ``AP75``, ``AP_small``, ``AP_medium``, ``AP_large``,
            ``AR1``, ``AR10``, ``AR100``, ``AR_small``, ``AR_medium``, ``AR_large``.
        per_class: each class's ``name``, ``objects``, ``AP``, ``AP50``, ``AR100``, ``AP_small``, ``AP_medium`` and
            ``AP_large``.
        precision: (10, 101, classes) by IoU threshold, 0.50 to 0.95, and recall; -1 for classes without objects.
    """

    metrics: dict[str, float]
    per_class: tuple[dict[str, Any], ...]
    precision: np.ndarray = field(repr=False)


class CocoEvaluator:
    """Collects images and computes COCO's metrics, of boxes (``kind="bbox"``) or of masks (``"segm"``)."""

    def __init__(self, classes: Sequence[str], kind: str = "bbox") -> None:
        self.classes = tuple(classes)
        self.kind = kind
        self.reset()

    def reset(self) -> None:
        """Drop all images."""
        self._images = 0
        # Rows: image, class, x1, y1, x2, y2, then area and crowd, or score.
        self._truth: list[np.ndarray] = []
        self._predicted: list[np.ndarray] = []
        self._truth_masks: list[dict[str, Any]] = []
        self._predicted_masks: list[dict[str, Any]] = []

    def update(self, truth: GroundTruth, predicted: PredictedObjects) -> None:
        """Add an image. Equal scores are ranked by the order of images, where pycocotools uses image ids.

        Raises:
            DataError: lengths of arrays differ, a number is not finite, or masks are missing.
        """
        shared = []
        for what, rows in (("labelled", truth), ("predicted", predicted)):
            if len(rows.boxes) != len(rows.labels) or not np.isfinite(np.asarray(rows.boxes, float)).all():
                raise DataError(
                    f"image {self._images + 1}: the {what} boxes are not four finite numbers per label",
                    "fix the labels (hubel data check), or the model's output",
                )
            if self.kind == "segm" and len(rows.masks or ()) != len(rows.labels):
                raise DataError(f"image {self._images + 1}: {what} objects have no masks", "score boxes instead")
            boxes = np.asarray(rows.boxes, np.float64).reshape(-1, 4)
            shared.append(np.column_stack((np.full(len(boxes), self._images), rows.labels, boxes)))
        crowd = np.zeros(len(truth.labels)) if truth.crowd is None else truth.crowd
        self._truth.append(np.column_stack((shared[0], _areas(shared[0][:, 2:], truth), crowd)))
        self._predicted.append(np.column_stack((shared[1], predicted.scores)))
        if self.kind == "segm":
            self._truth_masks += truth.masks or ()
            self._predicted_masks += predicted.masks or ()
        self._images += 1

    def compute(self) -> CocoScores:
        """Metrics of all images so far."""
        truth = np.concatenate([np.empty((0, 8)), *self._truth])
        predicted = np.concatenate([np.empty((0, 7)), *self._predicted])
        precision = np.full((10, 101, len(self.classes), len(_AREAS)), -1.0)
        recall = np.full((10, len(self.classes), len(_AREAS), len(_MAX_DETECTIONS)), -1.0)
        for index in np.unique(truth[:, 1]).astype(int):
            result = self._one_class(truth, predicted, index)
            # The last axis is the number of detections per image, of which COCO's average precision uses 100.
            precision[:, :, index] = result["precision"][:, :, 0, :, -1]
            recall[:, index] = result["recall"][:, 0]
        counts = np.bincount(truth[truth[:, 7] == 0, 1].astype(int), minlength=len(self.classes))
        per_class = []
        for index, name in enumerate(self.classes):
            metrics = _metrics(precision[:, :, [index]], recall[:, [index]])
            values = {metric: metrics[metric] for metric in _CLASS_METRICS}
            per_class.append({"name": name, "objects": int(counts[index]), **values})
        return CocoScores(_metrics(precision, recall), tuple(per_class), precision[..., 0])

    def _one_class(self, truth: np.ndarray, predicted: np.ndarray, index: int) -> dict[str, Any]:
        """``precision`` (10, 101, 1, 4, 3) and ``recall`` (10, 1, 4, 3) of one class."""
        from faster_coco_eval import COCO, COCOeval_faster

        true_rows, predicted_rows = (np.flatnonzero(rows[:, 1] == index).tolist() for rows in (truth, predicted))
        annotations = [
            {
                **self._object(truth[i], self._truth_masks, i),
                "id": i + 1,
                "area": truth[i, 6],
                "iscrowd": int(truth[i, 7]),
            }
            for i in true_rows
        ]
        results = [
            {**self._object(predicted[i], self._predicted_masks, i), "score": predicted[i, 6]} for i in predicted_rows
        ]
        height, width = annotations[0]["segmentation"]["size"] if self.kind == "segm" else (1, 1)
        images = sorted({row["image_id"] for row in (*annotations, *results)})
        data = {
            "images": [{"id": image, "height": height, "width": width} for image in images],
            "annotations": annotations,
            "categories": [{"id": 1, "name": self.classes[index]}],
        }
        coco = COCO(data, print_function=_silent)
        evaluation = COCOeval_faster(
            coco, coco.loadRes(results), self.kind, print_function=_silent, separate_eval=False
        )
        evaluation.evaluate()
        evaluation.accumulate()
        return {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall")}

    def _object(self, row: np.ndarray, masks: list[dict[str, Any]], index: int) -> dict[str, Any]:
        image, _, x1, y1, x2, y2 = row[:6].tolist()
        if self.kind == "segm":
            shape: dict[str, Any] = {"segmentation": copy.copy(masks[index])}
        else:
            shape = {"bbox": [x1, y1, x2 - x1, y2 - y1]}
        return {"image_id": int(image), "category_id": 1, **shape}


def _areas(boxes: np.ndarray, truth: GroundTruth) -> np.ndarray:
    if truth.areas is not None:
        return np.asarray(truth.areas, np.float64)
    if truth.masks:
        from faster_coco_eval import mask

        return np.asarray([mask.area(each) for each in truth.masks], np.float64)
    return area(boxes)


def _metrics(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """COCO's twelve metrics of precision (10, 101, classes, 4) and recall (10, classes, 4, 3)."""
    metrics = {
        "AP": _mean(precision[:, :, :, 0]),
        "AP50": _mean(precision[0, :, :, 0]),
        "AP75": _mean(precision[5, :, :, 0]),
    }
    metrics |= {f"AP_{name}": _mean(precision[..., i]) for i, name in enumerate(_AREAS) if i}
    metrics |= {f"AR{limit}": _mean(recall[:, :, 0, i]) for i, limit in enumerate(_MAX_DETECTIONS)}
    return metrics | {f"AR_{name}": _mean(recall[:, :, i, 2]) for i, name in enumerate(_AREAS) if i}


def _mean(values: np.ndarray) -> float:
    """Mean without the entries of -1, which stand for no objects."""
    present = values[values > -1]
    return float(present.mean()) if present.size else float("nan")


def _silent(*_: Any) -> None:
    """Discards the lines that faster-coco-eval would print."""
