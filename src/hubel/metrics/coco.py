"""COCO's average precision, collected image by image.

The matching is that of faster-coco-eval, whose results equal pycocotools'. It needs a dictionary for each box; to save
memory, boxes are stored as rows of numbers and passed on class by class, as classes do not depend on each other. Of
masks, what is stored is how those of a class overlap in each image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np

from hubel.boxes import area
from hubel.errors import DataError
from hubel.metrics.mask_overlap import boundary_overlaps, overlaps, read_runs

RECALL_STEPS = np.linspace(0, 1, 101)
"""Recalls at which precision is sampled: 0, 0.01, … 1."""

_CLASS_METRICS = ("AP", "AP50", "AR100", "AP_small", "AP_medium", "AP_large")
_AREAS = ("all", "small", "medium", "large")  # below 32², below 96², above
_MAX_DETECTIONS = (1, 10, 100)  # per class and image
_LOWEST_IOU = 0.5  # of a match
_MASKS_AT_ONCE = 1000  # of several images: most of the time would be that of calls for a few
_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
_NO_ROWS = np.empty((0, 8))


@dataclass(frozen=True)
class GroundTruth:
    """Labelled objects of one image.

    Attributes:
        boxes: (N, 4), x1, y1, x2, y2 in pixels.
        labels: (N,) class indices.
        crowd: (N,) bool: a region of many objects, within which detections are ignored.
        areas: (N,) pixels, by which objects are small, medium or large; ``None``: areas of the masks, else the boxes.
        masks: compressed run-length encodings; ``None``: boxes only.
        labelled: (L,) class indices of which all objects are labelled; ``None``: of all. :class:`CocoEvaluator` takes
            these as :func:`~hubel.metrics.partly_labelled.with_crowds` gives them.
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray | None = None
    areas: np.ndarray | None = None
    masks: Sequence[dict[str, Any]] | None = None
    labelled: np.ndarray | None = None


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
    """Collects images and computes COCO's metrics, of boxes (``kind="bbox"``) or of masks (``"segm"``).

    With ``"boundary"``, the overlap of two masks is the smaller of their IoU and their Boundary IoU, the IoU of what of
    each is nearer to its outline than 2 % of the image's diagonal (Cheng et al. 2021, arXiv 2103.16562).
    """

    def __init__(self, classes: Sequence[str], kind: Literal["bbox", "segm", "boundary"] = "bbox") -> None:
        self.classes = tuple(classes)
        self.kind = kind
        self._has_masks = kind != "bbox"
        self.reset()

    def reset(self) -> None:
        """Drop all images."""
        self._images = 0
        # Rows: image, class, x1, y1, x2, y2, area, then crowd or score.
        self._truth: list[np.ndarray] = []
        self._predicted: list[np.ndarray] = []
        self._overlaps: dict[tuple[int, int], np.ndarray] = {}  # of masks, by image and class
        self._pending: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
        self._compared = 0  # rows of images before those whose masks are pending

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
            if self._has_masks and len(rows.masks or ()) != len(rows.labels):
                raise DataError(f"image {self._images + 1}: {what} objects have no masks", "score boxes instead")
            boxes = np.asarray(rows.boxes, np.float64).reshape(-1, 4)
            shared.append(np.column_stack((np.full(len(boxes), self._images), rows.labels, boxes, area(boxes))))
        if truth.areas is not None:
            shared[0][:, 6] = truth.areas
        elif self._has_masks:
            shared[0][:, 6] = np.nan  # to be measured
        crowd = np.zeros(len(truth.labels)) if truth.crowd is None else truth.crowd
        self._truth.append(np.column_stack((shared[0], crowd)))
        self._predicted.append(np.column_stack((shared[1], predicted.scores)))
        self._images += 1
        if self._has_masks:
            for pending, masks in zip(self._pending, (truth.masks, predicted.masks), strict=True):
                pending.extend(masks or ())
            if max(map(len, self._pending)) >= _MASKS_AT_ONCE:
                self._compare()

    def _compare(self) -> None:
        """Measure the pending masks, and how those of an image and a class overlap."""
        true, found = (np.concatenate(rows[self._compared :] or [_NO_ROWS]) for rows in (self._truth, self._predicted))
        true_masks, masks = self._pending
        runs, true_runs = read_runs(masks), read_runs(true_masks)
        true[:, 6], found[:, 6] = np.where(np.isnan(true[:, 6]), true_runs.areas, true[:, 6]), runs.areas
        blocks = _same_class(found, true)
        if blocks:
            rows, columns = (np.concatenate([block[side].ravel() for block in blocks]) for side in (0, 1))
            crowd = true[columns, 7] == 1
            iou = overlaps(runs, true_runs, rows, columns, crowd)
            if self.kind == "boundary":  # of pairs that may match: the others keep an IoU that is too small
                near = ~crowd & (iou >= _LOWEST_IOU)
                others = boundary_overlaps(masks, true_masks, rows[near], columns[near])
                iou[near] = np.minimum(iou[near], others)
            ends = np.cumsum([block[0].size for block in blocks])
            for block, part in zip(blocks, np.split(iou, ends[:-1]), strict=True):
                image, label = true[block[1][0, 0], :2].astype(int).tolist()
                self._overlaps[image, label] = part.reshape(block[0].shape)
        self._truth[self._compared :], self._predicted[self._compared :] = [true], [found]
        self._compared, self._pending = len(self._truth), ([], [])

    def compute(self) -> CocoScores:
        """Metrics of all images so far."""
        if self._has_masks:
            self._compare()
        truth, predicted = (np.concatenate([_NO_ROWS, *rows]) for rows in (self._truth, self._predicted))
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

        true, found = truth[truth[:, 1] == index], predicted[predicted[:, 1] == index]
        crowds = true[:, 7].astype(int).tolist()
        labelled = [row | {"iscrowd": crowd} for row, crowd in zip(_rows(true), crowds, strict=True)]
        results = [row | {"score": score} for row, score in zip(_rows(found), found[:, 7].tolist(), strict=True)]
        images = [{"id": image} for image in np.unique(np.concatenate((true[:, 0], found[:, 0]))).astype(int).tolist()]
        data = {"images": images, "categories": [{"id": 1, "name": self.classes[index]}]}
        sides = (COCO({**data, "annotations": rows}, print_function=_silent) for rows in (labelled, results))
        evaluation = COCOeval_faster(*sides, "bbox", print_function=_silent, separate_eval=False)
        if self._has_masks:
            evaluation.computeIoU = lambda image, _: self._overlaps.get((image, index), [])
        evaluation.evaluate()
        evaluation.accumulate()
        return {name: np.asarray(evaluation.eval[name]) for name in ("precision", "recall")}


def _rows(objects: np.ndarray) -> list[dict[str, Any]]:
    """Objects of one class as COCO's files have them."""
    boxes = np.concatenate((objects[:, 2:4], objects[:, 4:6] - objects[:, 2:4]), 1).tolist()
    columns = zip(objects[:, 0].astype(int).tolist(), boxes, objects[:, 6].tolist(), strict=True)
    return [
        {"id": number, "image_id": image, "category_id": 1, "bbox": box, "area": pixels, "iscrowd": 0}
        for number, (image, box, pixels) in enumerate(columns, 1)
    ]


def _same_class(found: np.ndarray, true: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of the same image and class, as indices of both sides (F, T), in order of score as they are matched."""
    step = max(found[:, 1].max(initial=0), true[:, 1].max(initial=0)) + 1
    keys, true_keys = found[:, 0] * step + found[:, 1], true[:, 0] * step + true[:, 1]
    order, true_order = np.lexsort((-found[:, 7], keys)), np.argsort(true_keys, kind="stable")  # equal ones in order
    both = np.intersect1d(keys, true_keys)
    bounds = [
        np.searchsorted(each, both, side).tolist() for each in (keys[order], true_keys[true_order]) for side in _SIDES
    ]
    blocks = []
    for start, end, true_start, true_end in zip(*bounds, strict=True):
        columns, rows = np.meshgrid(true_order[true_start:true_end], order[start:end][: _MAX_DETECTIONS[-1]])
        blocks.append((rows, columns))
    return blocks


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
