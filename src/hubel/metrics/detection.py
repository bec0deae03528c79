"""Detection metrics: COCO's, and a confusion matrix at the confidence that users see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hubel.errors import DataError
from hubel.metrics.box_matches import BoxMatches, match_boxes, overlaps_of
from hubel.metrics.coco import CocoEvaluator, CocoScores, GroundTruth, PredictedObjects
from hubel.metrics.confidence import THRESHOLDS, ConfidenceCurves, ScoredBoxes, confidence_curves, fraction
from hubel.metrics.detection_errors import DetectionErrors, image_errors, summarize_errors
from hubel.metrics.partly_labelled import with_crowds
from hubel.metrics.proposal_recall import ProposalRecall

METRICS = {
    "AP50": "AP50",
    "AP75": "AP75",
    "AP": "AP",
    "AR100": "AR100",
    "precision": "precision",
    "recall": "recall",
}
"""Labels of the metrics in tables, by name."""

_MISS_WEIGHT = 0.5  # of a missed object in the error of an image: that of a wrong box of medium confidence


@dataclass(frozen=True)
class WorstImage:
    """An image with errors.

    Attributes:
        error_score: sum of the scores of its wrong boxes, plus 0.5 for each missed object.
    """

    index: int
    error_score: float
    matches: BoxMatches


def worst_images(
    truths: Sequence[GroundTruth], predictions: Sequence[PredictedObjects], count: int
) -> list[WorstImage]:
    """The images with the largest errors, at most ``count``, largest first; none without errors."""
    images = []
    for index, (truth, predicted) in enumerate(zip(with_crowds(truths, predictions), predictions, strict=True)):
        matches = match_boxes(truth, predicted)
        error = float(np.asarray(predicted.scores)[matches.wrong].sum()) + _MISS_WEIGHT * len(matches.missed)
        if error:
            images.append(WorstImage(index, error, matches))
    return sorted(images, key=lambda image: -image.error_score)[:count]


@dataclass(frozen=True)
class DetectionScores:
    """Detection metrics, fractions 0..1.

    Attributes:
        coco: COCO's metrics, of boxes of any score.
        images: number of images.
        confusion: counts (classes + 1, classes + 1) of boxes from :data:`~.box_matches.SCORE_THRESHOLD` on, matched by
            :func:`~.box_matches.match_boxes`: rows are the truth, columns predictions. The last row counts false
            positives, the last column missed objects.
        class_images: (classes,), images with an object of each class, crowds excluded.
        curves: precision, recall and F1 over the confidence from which boxes count, at IoU 0.5.
        errors: what was lost where, of boxes of any score.
        proposals: recall of the proposals of networks that have some, where they are known.
    """

    coco: CocoScores
    images: int
    classes: tuple[str, ...]
    confusion: np.ndarray = field(repr=False)
    class_images: np.ndarray = field(repr=False)
    curves: ConfidenceCurves = field(repr=False)
    errors: DetectionErrors = field(repr=False)
    proposals: ProposalRecall | None = field(default=None, repr=False)

    @property
    def right(self) -> np.ndarray:
        """Objects found with the right class, by class (classes,)."""
        return np.diag(self.confusion)[:-1]

    @property
    def found(self) -> np.ndarray:
        """Predicted boxes by class (classes,)."""
        return np.asarray(self.confusion[:, :-1].sum(0))

    @property
    def best_confidence(self) -> float | None:
        """The threshold 0..1 of the highest mean F1, a good ``--conf``; ``None`` if nothing is right."""
        return None if self.curves.best is None else float(THRESHOLDS[self.curves.best])

    @property
    def best_f1(self) -> float | None:
        """Mean F1 of the classes with objects at :attr:`best_confidence`."""
        return None if self.curves.best is None else float(self.curves.mean_f1[self.curves.best])

    @property
    def objects(self) -> np.ndarray:
        """Labelled objects by class (classes,), crowds excluded."""
        return np.asarray(self.confusion[:-1].sum(1))

    @property
    def precision(self) -> np.ndarray:
        """Fraction of the boxes that are right, by class (classes,); NaN without boxes."""
        return fraction(self.right, self.found)

    @property
    def recall(self) -> np.ndarray:
        """Fraction of the objects that were found, by class (classes,); NaN without objects."""
        return fraction(self.right, self.objects)

    def to_json(self) -> dict[str, Any]:
        """``{"metrics": {…}, "per_class": […]}``; ``None`` where a metric is undefined.

        ``metrics`` has COCO's twelve, ``precision`` and ``recall`` of all classes together at confidence 0.25, and
        ``best_confidence`` with the mean F1 of the classes there, ``best_f1``;
        ``per_class`` each class's ``name``, ``images``, ``objects``, ``AP``, ``AP50``, ``AP_small``, ``AP_medium``,
        ``AP_large``, ``AR100``, ``precision`` and ``recall``.
        """
        total = {
            "precision": fraction(self.right.sum(), self.found.sum()),
            "recall": fraction(self.right.sum(), self.objects.sum()),
        }
        rows = zip(self.coco.per_class, self.class_images, self.precision, self.recall, strict=True)
        return {
            "metrics": _without_nan(self.coco.metrics | total)
            | {"best_f1": self.best_f1, "best_confidence": self.best_confidence},
            "per_class": [
                {"name": row["name"], "images": int(images)}
                | _without_nan({**row, "precision": precision, "recall": recall})
                for row, images, precision, recall in rows
            ],
        }


def score_detection(
    truths: Sequence[GroundTruth], predictions: Sequence[PredictedObjects], classes: Sequence[str]
) -> DetectionScores:
    """Score the boxes of images; COCO's metrics need boxes of any score.

    Raises:
        DataError: there are no images, the numbers of images differ, or boxes are not finite.
    """
    if not len(truths) or len(truths) != len(predictions):
        raise DataError(f"{len(predictions)} predictions for {len(truths)} labelled images", "pass one per image")
    evaluator = CocoEvaluator(classes)
    confusion = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
    class_images = np.zeros(len(classes), np.int64)
    boxes_of_any_score, errors = [], []
    for truth, predicted in zip(with_crowds(truths, predictions), predictions, strict=True):
        evaluator.update(truth, predicted)
        overlaps = overlaps_of(truth, predicted)
        matches = match_boxes(truth, predicted, overlaps=overlaps)
        true_labels = np.append(np.asarray(truth.labels, np.int64), len(classes))  # UNMATCHED, -1, is the last
        for boxes in (matches.right, matches.wrong):
            found = np.asarray(predicted.labels, np.int64)[boxes]
            np.add.at(confusion, (true_labels[matches.objects[boxes]], found), 1)
        np.add.at(confusion, (true_labels[matches.missed], len(classes)), 1)
        of_any_score = match_boxes(truth, predicted, 0, overlaps)
        boxes_of_any_score.append(_scored_boxes(predicted, of_any_score))
        errors.append(image_errors(truth, predicted, of_any_score, overlaps))
        single = np.ones(len(truth.labels), bool) if truth.crowd is None else ~np.asarray(truth.crowd, bool)
        class_images[np.unique(np.asarray(truth.labels, np.int64)[single])] += 1
    curves = confidence_curves(
        ScoredBoxes(*map(np.concatenate, zip(*boxes_of_any_score, strict=True))), confusion[:-1].sum(1)
    )
    lost = summarize_errors(errors, len(classes))
    return DetectionScores(evaluator.compute(), len(truths), tuple(classes), confusion, class_images, curves, lost)


def _scored_boxes(predicted: PredictedObjects, matches: BoxMatches) -> ScoredBoxes:
    """All boxes of an image but those within crowds, of their matches."""
    counted = np.concatenate((matches.right, matches.wrong)).astype(np.int64)
    scores, labels = np.asarray(predicted.scores, np.float64), np.asarray(predicted.labels, np.int64)
    return ScoredBoxes(scores[counted], labels[counted], np.arange(len(counted)) < len(matches.right))


def scores_table(scores: DetectionScores) -> str:
    """Totals, then a line per class; fractions."""
    totals = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "AR100": "AR100"}
    columns = {"AP": "AP", "AP50": "AP50", "precision": "precision", "recall": "recall"}
    values = scores.to_json()
    width = max(map(len, ("class", *scores.classes)))
    lines = [
        "   ".join(f"{label} {_format(values['metrics'][name], 4)}" for label, name in totals.items()),
        "",
        f"{'class':<{width}}  images  objects      AP    AP50  precision  recall",
    ]
    for row in values["per_class"]:
        if row["objects"]:
            cells = (f"{_format(row[name], 3):>{max(6, len(label))}}" for label, name in columns.items())
            lines.append(f"{row['name']:<{width}}  {row['images']:>6}  {row['objects']:>7}  {'  '.join(cells)}")
    if scores.curves.best is not None:
        lines += ["", f"Highest mean F1 {_format(scores.best_f1, 3)} at --conf {scores.best_confidence:g}"]
    return "\n".join(lines)


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    """Plain numbers, ``None`` for NaN."""
    plain = {name: value if isinstance(value, str | int) else float(value) for name, value in row.items()}
    return {name: None if value != value else value for name, value in plain.items()}


def _format(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
