"""COCO's average precision, taken image by image, in memory that does not depend on the images' sizes.

The matching is faster-coco-eval's, whose figures are those of pycocotools. It wants a dictionary for each box; so that
these never stand for a whole data set, boxes are kept as rows of numbers and handed over class by class: a class's
precision does not depend on the others.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hubel.errors import DataError

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""0.50, 0.55, … 0.95."""

RECALL_STEPS = np.linspace(0, 1, 101)
"""Where precision is read: 0, 0.01, … 1."""

_AREAS = ("all", "small", "medium", "large")  # below 32², below 96², above
_MOST_FOUND = (1, 10, 100)  # a class and image


@dataclass(frozen=True)
class GroundTruth:
    """What is really in one image.

    Attributes:
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        labels: (N,) class indices.
        crowd: (N,) bool: a region of many objects, within which detections are neither right nor wrong.
        areas: (N,) pixels, which sort objects into small, medium and large; where the data set does not say, those
            of the masks or else of the boxes.
        masks: compressed run-length encodings, or ``None`` where there are boxes alone.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    masks: Sequence[dict[str, Any]] | None = None


@dataclass(frozen=True)
class FoundObjects:
    """What a detector says is in one image, in any order.

    Attributes:
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        scores: (N,).
        labels: (N,) class indices.
        masks: compressed run-length encodings, or ``None``.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: Sequence[dict[str, Any]] | None = None


@dataclass(frozen=True)
class CocoScores:
    """COCO's figures, fractions 0..1; NaN where no image has an object that counts.

    Attributes:
        figures: ``AP`` (mean over IoU 0.50 to 0.95), ``AP50``, ``AP75``, ``AP_small``, ``AP_medium``, ``AP_large``,
            ``AR1``, ``AR10``, ``AR100``, ``AR_small``, ``AR_medium``, ``AR_large``.
        per_class: the class's name, its labelled objects, ``AP``, ``AP50``, ``AR100``, ``AP_small``, ``AP_medium``
            and ``AP_large``.
        precision: (10, 101, classes) by IoU threshold and recall; -1 for classes without objects.
    """

    figures: dict[str, float]
    per_class: tuple[dict[str, Any], ...]
    precision: np.ndarray = field(repr=False)


class CocoEvaluator:
    """Collects images and scores them.

    Args:
        classes: names, in the order of the labels.
        kind: ``"bbox"`` compares boxes, ``"segm"`` masks.
    """

    def __init__(self, classes: Sequence[str], kind: str = "bbox") -> None:
        self.classes = tuple(classes)
        self.kind = kind
        self.reset()

    def reset(self) -> None:
        """Forget all images."""
        self._images = 0
        # Rows: image, class, x1, y1, x2, y2, then area and crowd, or score.
        self._true: list[np.ndarray] = []
        self._found: list[np.ndarray] = []
        self._true_masks: list[dict[str, Any]] = []
        self._found_masks: list[dict[str, Any]] = []

    def add(self, labelled: GroundTruth, found: FoundObjects) -> None:
        """Take one image. Of equal scores, that of the image taken first counts first; pycocotools goes by image id.

        Raises:
            DataError: arrays do not fit each other, a number is not finite, or masks are missing.
        """
        for what, rows in (("labelled", labelled), ("found", found)):
            if len(rows.boxes) != len(rows.labels) or not np.isfinite(np.asarray(rows.boxes, float)).all():
                raise DataError(
                    f"image {self._images + 1}: the {what} boxes are not one row of four finite numbers a label.",
                    "Mend the labels (hubel data check), or the model's output.",
                )
            if self.kind == "segm" and len(rows.masks or ()) != len(rows.labels):
                raise DataError(f"image {self._images + 1}: {what} objects have no masks.", "score boxes instead")
        boxes = np.asarray(labelled.boxes, np.float64).reshape(-1, 4)
        areas = _areas(boxes, labelled)
        crowd = np.zeros(len(boxes)) if labelled.crowd is None else labelled.crowd
        image = np.full(len(boxes), self._images)
        self._true.append(np.column_stack((image, labelled.labels, boxes, areas, crowd)))
        boxes = np.asarray(found.boxes, np.float64).reshape(-1, 4)
        image = np.full(len(boxes), self._images)
        self._found.append(np.column_stack((image, found.labels, boxes, found.scores)))
        if self.kind == "segm":
            self._true_masks += labelled.masks or ()
            self._found_masks += found.masks or ()
        self._images += 1

    def scores(self) -> CocoScores:
        """The figures over all images taken so far."""
        true = np.concatenate([np.empty((0, 8)), *self._true])
        found = np.concatenate([np.empty((0, 7)), *self._found])
        precision = np.full((10, 101, len(self.classes), len(_AREAS)), -1.0)
        recall = np.full((10, len(self.classes), len(_AREAS), len(_MOST_FOUND)), -1.0)
        for index in np.unique(true[:, 1]).astype(int):
            result = self._one_class(true, found, index)
            # The last axis of precision is that of the most boxes an image: COCO's average precision takes 100.
            precision[:, :, index] = result["precision"][:, :, 0, :, -1]
            recall[:, index] = result["recall"][:, 0]
        counts = np.bincount(true[true[:, 7] == 0, 1].astype(int), minlength=len(self.classes))
        per_class = tuple(
            {
                "name": name,
                "objects": int(counts[index]),
                "AP": _mean(precision[:, :, index, 0]),
                "AP50": _mean(precision[0, :, index, 0]),
                "AR100": _mean(recall[:, index, 0, 2]),
                **{f"AP_{size}": _mean(precision[:, :, index, place]) for place, size in enumerate(_AREAS) if place},
            }
            for index, name in enumerate(self.classes)
        )
        return CocoScores(_figures(precision, recall), per_class, precision[..., 0])

    def _one_class(self, true: np.ndarray, found: np.ndarray, index: int) -> dict[str, Any]:
        """``precision`` (10, 101, 1, 4, 3) and ``recall`` (10, 1, 4, 3) of one class."""
        from faster_coco_eval import COCO, COCOeval_faster

        places, found_places = (np.flatnonzero(rows[:, 1] == index) for rows in (true, found))
        annotations = [self._annotation(true, place) for place in places.tolist()]
        results = [self._result(found, place) for place in found_places.tolist()]
        images = sorted({row["image_id"] for row in (*annotations, *results)})
        data = {
            "images": [{"id": image, **self._size(annotations, results)} for image in images],
            "annotations": annotations,
            "categories": [{"id": 1, "name": self.classes[index]}],
        }
        labelled = COCO(data, print_function=_silent)
        evaluation = COCOeval_faster(
            labelled, labelled.loadRes(results), self.kind, print_function=_silent, separate_eval=False
        )
        evaluation.evaluate()
        evaluation.accumulate()
        return {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall")}

    def _size(self, annotations: list[dict[str, Any]], results: list[dict[str, Any]]) -> dict[str, int]:
        if self.kind != "segm":
            return {"height": 1, "width": 1}
        height, width = (annotations or results)[0]["segmentation"]["size"]
        return {"height": height, "width": width}

    def _annotation(self, true: np.ndarray, place: int) -> dict[str, Any]:
        image, _, x1, y1, x2, y2, area, crowd = true[place].tolist()
        row = {"id": place + 1, "image_id": int(image), "category_id": 1, "iscrowd": int(crowd), "area": area}
        row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        if self.kind == "segm":
            row["segmentation"] = copy.copy(self._true_masks[place])
        return row

    def _result(self, found: np.ndarray, place: int) -> dict[str, Any]:
        image, _, x1, y1, x2, y2, score = found[place].tolist()
        row: dict[str, Any] = {"image_id": int(image), "category_id": 1, "score": score}
        if self.kind == "segm":
            row["segmentation"] = copy.copy(self._found_masks[place])
        else:
            row["bbox"] = [x1, y1, x2 - x1, y2 - y1]
        return row


def _areas(boxes: np.ndarray, labelled: GroundTruth) -> np.ndarray:
    if labelled.areas is not None:
        return np.asarray(labelled.areas, np.float64)
    if labelled.masks:
        from faster_coco_eval import mask

        return np.asarray([mask.area(each) for each in labelled.masks], np.float64)
    return np.prod((boxes[:, 2:] - boxes[:, :2]).clip(0), 1)


def _figures(precision: np.ndarray, recall: np.ndarray) -> dict[str, float]:
    """COCO's twelve figures of precision (10, 101, classes, 4) and recall (10, classes, 4, 3)."""
    figures = {
        "AP": _mean(precision[:, :, :, 0]),
        "AP50": _mean(precision[0, :, :, 0]),
        "AP75": _mean(precision[5, :, :, 0]),
    }
    figures |= {f"AP_{name}": _mean(precision[..., place]) for place, name in enumerate(_AREAS) if place}
    figures |= {f"AR{most}": _mean(recall[:, :, 0, place]) for place, most in enumerate(_MOST_FOUND)}
    return figures | {f"AR_{name}": _mean(recall[:, :, place, 2]) for place, name in enumerate(_AREAS) if place}


def _mean(values: np.ndarray) -> float:
    """Mean of what there is; -1 marks what there is not."""
    there = values[values > -1]
    return float(there.mean()) if there.size else float("nan")


def _silent(*_: Any) -> None:
    """Takes the lines that faster-coco-eval would print."""
