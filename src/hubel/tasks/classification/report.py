"""Classification in a report: confusion, calibration, scores of every class."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from hubel.metrics.classification import ClassificationScores
from hubel.reports import figures
from hubel.reports.format import CONFUSED_PAIRS, percent
from hubel.reports.report_data import TaskReport

_LARGE_ECE = 0.1


def _charts(scores: ClassificationScores) -> Iterator[tuple[str, Figure]]:
    names = [row.name for row in scores.per_class]
    yield "confusion", figures.confusion_matrix(scores.confusion, names)
    yield "calibration", figures.reliability_diagram(scores.calibration)


def _sentences(scores: ClassificationScores, split: str) -> Iterator[str]:
    right = int(np.trace(scores.confusion))
    low, high = percent(scores.top1_low), percent(scores.top1_high)
    yield (
        f"Of the {scores.images:,} images of the {split}, {right:,} were classified correctly. On more images of the "
        f"same kind, the accuracy would likely be between {low} and {high} (95\u202f% confidence interval)."
    )
    if scores.small:
        wide = (scores.top1_high - scores.top1_low) / 2
        yield (
            f"{scores.images:,} images are few: a difference of less than about {100 * wide * math.sqrt(2):.1f} "
            "percentage points between two models may be due to chance."
        )


def _of_split(scores: ClassificationScores) -> dict[str, Any]:
    return {
        "five_of_more": scores.top_n < len(scores.per_class),
        **confusion_section(scores.confusion, [row.name for row in scores.per_class]),
        "calibration": _calibration_sentence(scores),
        "classes": sorted(scores.per_class, key=lambda row: (row.images == 0, row.f1)),
    }


def confusion_section(confusion: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Template values for a confusion matrix, and for the most frequent confusions if it is too large."""
    return {
        "labelled": len(names) <= figures.LABELLED_CLASSES,
        "confused": confused_pairs(confusion, names),
        "matrix_width": figures.confusion_width(len(names)) * figures.CSS_PIXELS_PER_INCH,
    }


def confused_pairs(confusion: np.ndarray, names: Sequence[str]) -> list[tuple[str, str, int, float]]:
    """Truth, prediction, count and share of the true class of the most frequent confusions; of ties by their share."""
    wrong, totals = confusion * (1 - np.eye(len(names), dtype=int)), confusion.sum(1)
    pairs = [
        (names[truth], names[predicted], int(wrong[truth, predicted]), float(wrong[truth, predicted] / totals[truth]))
        for truth, predicted in zip(*np.nonzero(wrong), strict=True)
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], -pair[3]))[:CONFUSED_PAIRS]


def _calibration_sentence(scores: ClassificationScores) -> str:
    confidence = sum(row.images * row.confidence for row in scores.calibration) / scores.images
    means = f"Mean confidence {percent(confidence)}, accuracy {percent(scores.top1)}"
    if confidence > scores.top1 + 0.02:
        return f"{means}: the model is overconfident."
    if confidence < scores.top1 - 0.02:
        return f"{means}: the model is underconfident."
    if scores.ece > _LARGE_ECE:
        return (
            f"{means}: equal on average, but not at each confidence: there they differ by "
            f"{percent(scores.ece)} in the mean (expected calibration error)."
        )
    return f"{means}: the model is well calibrated on average."


REPORT = TaskReport(
    package="hubel.tasks.classification",
    curves={
        "loss": ("Loss per epoch", "Loss: lower is better."),
        "top1": ("Accuracy per epoch", "Accuracy (top-1): higher is better."),
    },
    charts=_charts,
    sentences=_sentences,
    of_split=_of_split,
    mistakes="Most confident mistakes",
)
