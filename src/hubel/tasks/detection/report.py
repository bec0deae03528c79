"""Detection in a report: precision over recall, confusion, and the images with the worst mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hubel.drawing import BoxLabel
from hubel.metrics.coco import RECALL_STEPS, GroundTruth, PredictedObjects
from hubel.metrics.detection import DetectionScores, WorstImage, worst_images
from hubel.reports import figures
from hubel.reports.format import CHOSEN_ON_THEM, CONFUSED_PAIRS, split_label
from hubel.reports.report_data import DetectionMistake, TaskReport, TrainingReport

FEW = 30
"""Scores of classes with fewer objects are reported to be rough."""

NAMED_CURVES = 8
"""Of more classes the curves are drawn faint, without names, behind their mean."""

# Of Okabe and Ito's palette: distinct with any colour vision, and by line and label as well.
_LABELLED, _CORRECT, _WRONG, _MISSED = (255, 255, 255), (86, 180, 233), (230, 80, 0), (240, 228, 66)
KINDS = (
    (_LABELLED, False, "labelled, and found"),
    (_CORRECT, False, "found and right"),
    (_WRONG, False, "found and wrong, with confidence"),
    (_MISSED, True, "labelled, but missed"),
)
"""Boxes on the images: red, green, blue; whether the line is dashed; meaning."""

_BACKGROUND = "background"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8d97a5", "#7a4b00")
_LINES = ("solid", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))


def _charts(scores: DetectionScores) -> Iterator[tuple[str, Figure]]:
    yield "precision_recall", precision_recall(scores.coco.precision[0], scores.classes)
    yield "confusion", figures.confusion_matrix(scores.confusion, [*scores.classes, _BACKGROUND])


def _sentences(report: TrainingReport) -> Iterator[str]:
    """The headline in words: what was found and missed, what the metrics mean and which of them are rough."""
    split = report.headline_split
    if split is None:
        return
    scores = report.scores[split]
    right, objects = int(scores.right.sum()), int(scores.objects.sum())
    missed, invented = int(scores.confusion[:-1, -1].sum()), int(scores.confusion[-1].sum())
    yield (
        f"Of the {objects:,} objects in the {scores.images:,} images of the {split_label(split)}, {right:,} were found "
        f"and named right, {objects - right - missed:,} taken for another class, {missed:,} missed; boxes where "
        f"nothing is, or a second one on an object: {invented:,} (confidence ≥ 25\u202f%, IoU ≥ 0.5)."
    )
    yield (
        "Average precision (AP) is the area under precision over recall: 1 where all objects are found before anything "
        "wrong; mAP is its mean over the classes. At 0.5, a box is right if the area that it shares with the true one "
        "is half of what they cover together (IoU); mAP@[.5:.95] asks for ever more exact boxes."
    )
    few = [f"{name} ({count})" for name, count in zip(scores.classes, scores.objects, strict=True) if 0 < count < FEW]
    if few:
        shown = ", ".join(few[:6]) + (" …" if len(few) > 6 else "")
        yield f"Figures of classes with few objects are rough: {shown}."
    if report.history and split != "test":
        yield CHOSEN_ON_THEM


def _of_split(scores: DetectionScores) -> dict[str, Any]:
    given = scores.to_json()
    total = {"name": "all", "images": scores.images, "objects": int(scores.objects.sum()), **given["metrics"]}
    count = len(scores.classes) + 1
    return {
        "total": total,
        "classes": sorted((row for row in given["per_class"] if row["objects"]), key=lambda row: row["AP50"]),
        "labelled": count <= figures.LABELLED_CLASSES,
        "confused": _confused(scores),
        "matrix_width": figures.confusion_width(count) * figures.CSS_PIXELS_PER_INCH,
    }


def _confused(scores: DetectionScores) -> list[tuple[str, str, int]]:
    """Truth, what was found and how often: the most frequent first."""
    names = [*scores.classes, _BACKGROUND]
    wrong = scores.confusion * (1 - np.eye(len(names), dtype=int))
    pairs = [(names[i], names[j], int(wrong[i, j])) for i, j in zip(*np.nonzero(wrong), strict=True)]
    return sorted(pairs, key=lambda pair: -pair[2])[:CONFUSED_PAIRS]


def precision_recall(precision: np.ndarray, names: Sequence[str]) -> Figure:
    """Precision over recall, a curve per class, and their mean where there are several.

    Args:
        precision: (101, classes) by :data:`~hubel.metrics.coco.RECALL_STEPS`; negative for classes without objects.
        names: of the classes.
    """
    figure, axes = figures.styled_figure(5.6, 3.9)
    present = [index for index in range(len(names)) if precision[0, index] >= 0]
    named = len(present) <= NAMED_CURVES
    for number, index in enumerate(present):
        colour = _COLOURS[number % len(_COLOURS)] if named else "#c3cad3"
        line = _LINES[number % len(_LINES)] if named else "solid"
        (curve,) = axes.plot(RECALL_STEPS, precision[:, index], color=colour, linestyle=line)
        curve.set_linewidth(1.8 if named else 0.7)
        curve.set_label(names[index] if named else f"_{index}")
    if len(present) > 1:
        mean = precision[:, present].mean(1)
        axes.plot(RECALL_STEPS, mean, color=figures.INK, linewidth=2.4, label="mean of the classes")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    if axes.get_legend_handles_labels()[0]:
        legend = axes.legend(frameon=False, fontsize=9, labelcolor=figures.INK, loc="lower left")
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure


def detection_mistakes(
    paths: Sequence[str | Path],
    labelled: Sequence[GroundTruth],
    found: Sequence[PredictedObjects],
    classes: Sequence[str],
    count: int = 12,
) -> list[DetectionMistake]:
    """The images with the worst mistakes, see :func:`hubel.metrics.detection.worst_images`.

    Args:
        paths: the image files.
        labelled: objects of each, boxes in pixels of the upright image.
        found: predictions of each, boxes in pixels of the upright image.
        classes: names, in the order of the labels.
        count: how many at most.
    """
    return [
        _mistake(Path(paths[image.index]), image, labelled[image.index], found[image.index], classes)
        for image in worst_images(labelled, found, count)
    ]


def _mistake(
    path: Path, image: WorstImage, labelled: GroundTruth, found: PredictedObjects, classes: Sequence[str]
) -> DetectionMistake:
    matches = image.matches
    wrong = {index: _words(index, image, labelled, found, classes) for index in matches.wrong.tolist()}
    missed = Counter(classes[labelled.labels[index]] for index in matches.missed)
    return DetectionMistake(
        path,
        tuple(_boxes(image, labelled, found, wrong, classes)),
        tuple(wrong.values()),
        tuple(f"{number} × {name}" if number > 1 else name for name, number in missed.most_common()),
    )


def _words(
    index: int, image: WorstImage, labelled: GroundTruth, found: PredictedObjects, classes: Sequence[str]
) -> str:
    matched = image.matches.objects[index]
    predicted = f"{classes[found.labels[index]]} {100 * found.scores[index]:.0f}\u202f%"
    return predicted if matched < 0 else f"{predicted} (is {classes[labelled.labels[matched]]})"


def _boxes(
    image: WorstImage, labelled: GroundTruth, found: PredictedObjects, wrong: dict[int, str], classes: Sequence[str]
) -> Iterator[BoxLabel]:
    matches = image.matches
    for index in matches.objects[matches.objects >= 0]:
        yield _label(labelled.boxes[index], "", _LABELLED)
    for index in matches.right:
        yield _label(found.boxes[index], "", _CORRECT)
    for index in matches.missed:
        yield _label(labelled.boxes[index], classes[labelled.labels[index]], _MISSED, True)
    for index, words in wrong.items():
        yield _label(found.boxes[index], words, _WRONG)


def _label(box: np.ndarray, text: str, colour: tuple[int, int, int], dashed: bool = False) -> BoxLabel:
    x1, y1, x2, y2 = (float(value) for value in box)
    return BoxLabel((x1, y1, x2, y2), text, colour, dashed)


@dataclass(frozen=True)
class DetectionReport(TaskReport):
    """With the key of the boxes on images with mistakes.

    Attributes:
        mistakes_colours: red, green, blue; whether the line is dashed; meaning.
    """

    mistakes_colours: tuple[tuple[tuple[int, int, int], bool, str], ...] = KINDS


REPORT = DetectionReport(
    package="hubel.tasks.detection",
    curves={
        "loss": ("Loss over the epochs", "Loss, all terms: lower is better."),
        "class_loss": ("Loss of the classes over the epochs", "The classes' part of the loss."),
        "box_loss": ("Loss of the boxes over the epochs", "The boxes' part of the loss."),
        "AP50": ("mAP@0.5 over the epochs", "mAP@0.5: higher is better."),
        "AP": ("mAP over the epochs", "mAP@[.5:.95]: higher is better, and asks for exact boxes."),
    },
    charts=_charts,
    sentences=_sentences,
    of_split=_of_split,
    mistakes="Images with the worst mistakes",
    mistakes_side=640,
)
