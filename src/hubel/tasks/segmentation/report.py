"""Segmentation in a report: IoU of every class, confusion of pixels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hubel.metrics.segmentation import SegmentationScores
from hubel.reports import figures
from hubel.reports.format import CHOSEN_ON_THEM, percent, split_label
from hubel.reports.report_data import TaskReport, TrainingReport


def _charts(scores: SegmentationScores) -> Iterator[tuple[str, Figure]]:
    yield "confusion", figures.confusion_matrix(scores.confusion, list(scores.classes))


def _sentences(report: TrainingReport) -> Iterator[str]:
    split = report.headline_split
    if split is None:
        return
    scores = report.scores[split]
    yield (
        f"Of the labelled pixels of the {scores.images:,} images of the {split_label(split)}, "
        f"{percent(scores.pixel_accuracy)} have the right class."
    )
    yield (
        "The IoU of a class is the pixels that are right over those that are, or are predicted, of the class; mean IoU "
        "is its mean over the classes, whether they are frequent or rare."
    )
    if report.history and split != "test":
        yield CHOSEN_ON_THEM


def _of_split(scores: SegmentationScores) -> dict[str, Any]:
    rows = zip(scores.classes, scores.confusion.sum(1).tolist(), scores.iou, scores.accuracy, strict=True)
    return {"classes": sorted((row for row in rows if row[1]), key=lambda row: float(np.nan_to_num(row[2])))}


REPORT = TaskReport(
    package="hubel.tasks.segmentation",
    curves={
        "loss": ("Loss over the epochs", "Loss: lower is better."),
        "mean_iou": ("Mean IoU over the epochs", "Mean IoU of the classes: higher is better."),
    },
    charts=_charts,
    sentences=_sentences,
    of_split=_of_split,
    mistakes="Images with most wrong pixels",
    mistakes_key=" Each with its most frequent confusion, and the fraction of its pixels that are wrong.",
)
