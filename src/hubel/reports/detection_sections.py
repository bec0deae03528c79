"""A detector's part of a report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hubel.metrics.detection import DetectionScores
from hubel.reports import figures
from hubel.reports.classification_sections import CONFUSED_PAIRS, CSS_PIXELS_PER_INCH
from hubel.reports.detection_figures import precision_recall
from hubel.reports.detection_mistakes import KINDS
from hubel.reports.format import CHOSEN_ON_THEM, split_label
from hubel.reports.report_data import TaskReport, TrainingReport

FEW = 30
"""Classes of fewer objects are said to have rough figures."""

_NOTHING = "background"


def _charts(scores: DetectionScores) -> Iterator[tuple[str, Figure]]:
    yield "precision_recall", precision_recall(scores.coco.precision[0], scores.classes)
    yield "confusion", figures.confusion_matrix(scores.confusion, [*scores.classes, _NOTHING])


def _sentences(report: TrainingReport) -> Iterator[str]:
    """The headline in plain words: what was found, what was missed, what the figures mean and how sure they are."""
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
        "matrix_width": figures.confusion_width(count) * CSS_PIXELS_PER_INCH,
    }


def _confused(scores: DetectionScores) -> list[tuple[str, str, int]]:
    """Truth, what was found and how often: the most frequent first."""
    names = [*scores.classes, _NOTHING]
    wrong = scores.confusion * (1 - np.eye(len(names), dtype=int))
    pairs = [(names[i], names[j], int(wrong[i, j])) for i, j in zip(*np.nonzero(wrong), strict=True)]
    return sorted(pairs, key=lambda pair: -pair[2])[:CONFUSED_PAIRS]


@dataclass(frozen=True)
class DetectionSections(TaskReport):
    """What a detector's mistakes need besides.

    Attributes:
        mistakes_colours: red, green, blue; whether the line is broken; what it means.
    """

    mistakes_colours: tuple[tuple[tuple[int, int, int], bool, str], ...] = KINDS


DETECTION = DetectionSections(
    headline="detection_headline.html.jinja",
    scores="detection_scores.html.jinja",
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
    mistakes="Pictures with the worst mistakes",
    mistakes_shown="detection_mistakes.html.jinja",
    mistakes_side=640,
)
