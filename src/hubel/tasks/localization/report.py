"""Localization in a report: share of images over IoU, scores of every class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure

from hubel.metrics.localization import IOU_THRESHOLD, LocalizationScores
from hubel.reports import figures
from hubel.reports.format import CHOSEN_ON_THEM, split_label
from hubel.reports.report_data import TaskReport, TrainingReport


def _charts(scores: LocalizationScores) -> Iterator[tuple[str, Figure]]:
    yield "overlap", figures.overlap_curve(scores.overlap)


def _sentences(report: TrainingReport) -> Iterator[str]:
    split = report.headline_split
    if split is None:
        return
    scores = report.scores[split]
    enough = int((scores.overlap >= IOU_THRESHOLD).sum())
    yield (
        f"Of the {scores.images:,} boxes of the {split_label(split)}, {enough:,} overlap the true one well enough (IoU "
        f"≥ {IOU_THRESHOLD}); the class is right in {round(scores.top1 * scores.images):,} images."
    )
    yield "IoU is the area that two boxes share, over the area that they cover together: 1 for the same box."
    if report.history and split != "test":
        yield CHOSEN_ON_THEM


def _of_split(scores: LocalizationScores) -> dict[str, Any]:
    rows = [pair for pair in zip(scores.classes.per_class, scores.class_overlap, strict=True) if pair[0].images]
    return {"classes": sorted(rows, key=lambda pair: pair[1])}


REPORT = TaskReport(
    package="hubel.tasks.localization",
    curves={
        "loss": ("Loss over the epochs", "Loss: lower is better."),
        "mean_iou": ("Mean IoU over the epochs", "Mean IoU of the boxes: higher is better."),
    },
    charts=_charts,
    sentences=_sentences,
    of_split=_of_split,
    mistakes="Worst boxes",
    mistakes_key=" The true box has the class's name alone, the one that was found its overlap with it.",
)
