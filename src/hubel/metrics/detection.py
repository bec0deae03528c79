"""How good a detector is: COCO's figures, and who is taken for whom at the confidence that users see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hubel.boxes import ioa, iou
from hubel.errors import DataError
from hubel.metrics.coco import CocoEvaluator, CocoScores, FoundObjects, GroundTruth

SCORE_THRESHOLD = 0.25
"""Score from which on a box is shown to users, and counts here."""

ENOUGH = 0.5
"""IoU from which on a box answers for an object."""

NOTHING, PASSED_OVER = -1, -2

_MISSED = 0.5  # what a missed object weighs: as much as a wrong box of middling confidence


@dataclass(frozen=True)
class BoxMatches:
    """One picture.

    Attributes:
        answers: (F,), of each found box: the index of the labelled object that it answers for, each at most once;
            :data:`NOTHING` where none is (left); :data:`PASSED_OVER` for boxes that do not count: less confident than
            :data:`SCORE_THRESHOLD`, or within a crowd of their class.
        right: indices of the found boxes that answer for an object of their class, surest first.
        wrong: of those that answer for one of another class or for nothing, surest first.
        missed: indices of the labelled objects that no box answers for; crowds are not among them.
    """

    answers: np.ndarray
    right: np.ndarray
    wrong: np.ndarray
    missed: np.ndarray


def match_boxes(labelled: GroundTruth, found: FoundObjects) -> BoxMatches:
    """Match the boxes of a picture, in order of score.

    A box takes, of the objects that are left, the one that it overlaps most: first among those of its class, as COCO
    does, so that what is right here is right there; then the boxes left over among the objects left over.
    """
    crowd = np.zeros(len(labelled.labels), bool) if labelled.crowd is None else np.asarray(labelled.crowd, bool)
    scores = np.asarray(found.scores)
    surest = np.argsort(-scores, kind="stable")
    surest = surest[scores[surest] >= SCORE_THRESHOLD]
    answers = np.full(len(scores), PASSED_OVER)
    answers[surest] = NOTHING
    boxes, true_boxes = (np.asarray(side.boxes, np.float64).reshape(-1, 4) for side in (found, labelled))
    overlap = iou(boxes, true_boxes)
    overlap[:, crowd] = 0
    same = np.asarray(found.labels)[:, None] == np.asarray(labelled.labels)[None]
    _take(answers, np.where(same, overlap, 0), surest)
    within = np.where(same & crowd[None], ioa(boxes, true_boxes), 0).max(1, initial=0) >= ENOUGH
    answers[within & (answers == NOTHING)] = PASSED_OVER
    _take(answers, overlap, surest)
    correct = np.array([answer >= 0 and same[place, answer] for place, answer in enumerate(answers)], bool)
    missed = np.setdiff1d(np.flatnonzero(~crowd), answers)
    return BoxMatches(
        answers, surest[correct[surest]], surest[~correct[surest] & (answers[surest] != PASSED_OVER)], missed
    )


def _take(answers: np.ndarray, overlap: np.ndarray, surest: np.ndarray) -> None:
    """Give the boxes that have no object theirs, in place."""
    free = np.ones(overlap.shape[1], bool)
    free[answers[answers >= 0]] = False
    for place in surest[answers[surest] == NOTHING]:
        left = np.where(free, overlap[place], 0)
        if left.max(initial=0) >= ENOUGH:
            answers[place] = left.argmax()
            free[answers[place]] = False


@dataclass(frozen=True)
class WorstPicture:
    """A picture with mistakes.

    Attributes:
        place: of the picture among those that were scored.
        badness: the scores of its wrong boxes, and a half for each missed object, added up.
        matches: what is right, wrong and missed.
    """

    place: int
    error_score: float
    matches: BoxMatches


def worst_pictures(labelled: Sequence[GroundTruth], found: Sequence[FoundObjects], most: int) -> list[WorstPicture]:
    """The pictures with the worst mistakes.

    Args:
        labelled: of each picture.
        found: of each picture, in the same order.
        most: how many at most.

    Returns:
        Worst first, of equally bad ones in their order; pictures without mistakes are not among them.
    """
    pictures = []
    for place, (true, given) in enumerate(zip(labelled, found, strict=True)):
        matches = match_boxes(true, given)
        error_score = float(np.asarray(given.scores)[matches.wrong].sum()) + _MISSED * len(matches.missed)
        if error_score:
            pictures.append(WorstPicture(place, error_score, matches))
    return sorted(pictures, key=lambda picture: -picture.error_score)[:most]


_NONE = "–"


@dataclass(frozen=True)
class DetectionScores:
    """Final figures; fractions.

    Attributes:
        coco: of all boxes, however unsure.
        images: how many were scored.
        classes: their names.
        confusion: counts (classes + 1, classes + 1) of boxes from confidence :data:`SCORE_THRESHOLD` on, matched by
            :func:`match_boxes`: rows are the truth, columns predictions. The last row counts false positives, the last
            column missed objects.
        class_images: (classes,), images that show each class, crowds aside.
    """

    coco: CocoScores
    images: int
    classes: tuple[str, ...]
    confusion: np.ndarray = field(repr=False)
    class_images: np.ndarray = field(repr=False)

    @property
    def right(self) -> np.ndarray:
        """Objects of each class that were found and called right (classes,)."""
        return np.diag(self.confusion)[:-1]

    @property
    def found(self) -> np.ndarray:
        """Boxes of each class that were found (classes,)."""
        return np.asarray(self.confusion[:, :-1].sum(0))

    @property
    def objects(self) -> np.ndarray:
        """Objects of each class that are there (classes,), crowds aside."""
        return np.asarray(self.confusion[:-1].sum(1))

    @property
    def precision(self) -> np.ndarray:
        """Share of each class's boxes that are right (classes,); NaN where there are none."""
        return _share(self.right, self.found)

    @property
    def recall(self) -> np.ndarray:
        """Share of each class's objects that were found (classes,); NaN where there are none."""
        return _share(self.right, self.objects)

    def to_json(self) -> dict[str, Any]:
        """``{"metrics": {…}, "per_class": […]}``; ``None`` where there is nothing to take a figure from.

        ``metrics`` has COCO's twelve, and ``precision`` and ``recall`` of all classes together at confidence 0.25;
        ``per_class`` each class's ``name``, ``images``, ``objects``, ``AP``, ``AP50``, ``AP_small``, ``AP_medium``,
        ``AP_large``, ``AR100``, ``precision`` and ``recall``.
        """
        total = {
            "precision": _share(self.right.sum(), self.found.sum()),
            "recall": _share(self.right.sum(), self.objects.sum()),
        }
        rows = zip(self.coco.per_class, self.class_images, self.precision, self.recall, strict=True)
        return {
            "metrics": _known(self.coco.figures | total),
            "per_class": [
                {"name": row["name"], "images": int(images)} | _known({**row, "precision": right, "recall": there})
                for row, images, right, there in rows
            ],
        }


def score_detection(
    labelled: Sequence[GroundTruth], found: Sequence[FoundObjects], classes: Sequence[str]
) -> DetectionScores:
    """Score the boxes of images.

    Args:
        labelled: of each image.
        found: of each image, in the same order; all of them, from low scores on, for COCO's figures.
        classes: names, in the order of the labels.

    Raises:
        DataError: nothing to score, another number of images found than labelled, or boxes that are not finite.
    """
    if not len(labelled) or len(labelled) != len(found):
        raise DataError(f"Objects of {len(found)} images do not fit {len(labelled)} labelled ones.", "Give one each.")
    evaluator = CocoEvaluator(classes)
    confusion = np.zeros((len(classes) + 1, len(classes) + 1), np.int64)
    class_images = np.zeros(len(classes), np.int64)
    for true, given in zip(labelled, found, strict=True):
        evaluator.add(true, given)
        _count(confusion, true, given)
        single = np.ones(len(true.labels), bool) if true.crowd is None else ~np.asarray(true.crowd, bool)
        class_images[np.unique(np.asarray(true.labels, np.int64)[single])] += 1
    return DetectionScores(evaluator.scores(), len(labelled), tuple(classes), confusion, class_images)


def scores_table(scores: DetectionScores) -> str:
    """Totals, then a line a class; fractions."""
    totals = {"mAP": "AP", "mAP@0.5": "AP50", "mAP@0.75": "AP75", "AR": "AR100"}
    columns = {"AP": "AP", "AP@0.5": "AP50", "precision": "precision", "recall": "recall"}
    given = scores.to_json()
    width = max(map(len, ("class", *scores.classes)))
    lines = [
        "   ".join(f"{shown} {_figure(given['metrics'][key], 4)}" for shown, key in totals.items()),
        "",
        f"{'class':<{width}}  images  objects      AP  AP@0.5  precision  recall",
    ]
    for row in given["per_class"]:
        if row["objects"]:
            figures = (f"{_figure(row[key], 3):>{max(6, len(shown))}}" for shown, key in columns.items())
            lines.append(f"{row['name']:<{width}}  {row['images']:>6}  {row['objects']:>7}  {'  '.join(figures)}")
    return "\n".join(lines)


def _count(confusion: np.ndarray, labelled: GroundTruth, found: FoundObjects) -> None:
    matches = match_boxes(labelled, found)
    nothing = len(confusion) - 1
    truth = np.concatenate((np.asarray(labelled.labels, np.int64), [nothing]))  # an answer of -1 is the last
    given = np.asarray(found.labels, np.int64)
    for boxes in (matches.right, matches.wrong):
        np.add.at(confusion, (truth[matches.answers[boxes]], given[boxes]), 1)
    np.add.at(confusion, (truth[matches.missed], nothing), 1)


def _share(part: Any, whole: Any) -> np.ndarray:
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _known(row: dict[str, Any]) -> dict[str, Any]:
    """Plain numbers, ``None`` for NaN."""
    plain = {name: value if isinstance(value, str | int) else float(value) for name, value in row.items()}
    return {name: None if value != value else value for name, value in plain.items()}


def _figure(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:.{digits}f}"
