"""Detection in a report: precision over recall, confusion, and the images with the worst mistakes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from hubel.drawing import BoxLabel
from hubel.metrics.box_matches import SCORE_THRESHOLD
from hubel.metrics.coco import RECALL_STEPS, GroundTruth, PredictedObjects
from hubel.metrics.confidence import THRESHOLDS, ConfidenceCurves
from hubel.metrics.detection import DetectionScores, WorstImage, worst_images
from hubel.metrics.detection_errors import KINDS as ERROR_KINDS
from hubel.metrics.detection_errors import DetectionErrors
from hubel.metrics.proposal_recall import ProposalRecall
from hubel.reports import figures
from hubel.reports.report_data import DetectionMistake, TaskReport
from hubel.tasks.classification.report import confusion_section

FEW = 30
"""Metrics of classes with fewer objects are reported to be unreliable."""

NAMED_CURVES = 8
"""If there are more classes, their curves are drawn faint, without names, behind the mean."""

# Of Okabe and Ito's palette: distinct with any colour vision, and by line and label as well.
_LABELLED, _CORRECT, _WRONG, _MISSED = (255, 255, 255), (86, 180, 233), (230, 80, 0), (240, 228, 66)
KINDS = (
    (_LABELLED, False, "true box, detected"),
    (_CORRECT, False, "correct detection"),
    (_WRONG, False, "wrong detection, with its confidence"),
    (_MISSED, True, "missed object"),
)
"""Kinds of boxes on the images: red, green, blue; whether the line is dashed; meaning."""

_BACKGROUND = "background"

ERRORS = {
    "classification": ("wrong class", "boxes on objects of another class"),
    "localization": ("inaccurate box", "boxes of the right class that overlap an object by less than half"),
    "both": ("both", "inaccurate boxes of another class"),
    "duplicate": ("duplicate", "second boxes of an object"),
    "background": ("background", "boxes where no object is"),
    "missed": ("missed", "objects that no box is near"),
}
"""Names of the kinds of mistakes in figures and in sentences."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8d97a5", "#7a4b00")
_LINES = ("solid", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))


def _charts(scores: DetectionScores) -> Iterator[tuple[str, Figure]]:
    yield "precision_recall", precision_recall(scores.coco.precision[0], scores.classes)
    yield "f1", f1_over_confidence(scores.curves, scores.classes)
    yield "confidence", precision_and_recall_over_confidence(scores.curves)
    yield "confusion", figures.confusion_matrix(scores.confusion, [*scores.classes, _BACKGROUND])
    yield "errors", cost_of_errors(scores.errors)
    if scores.proposals is not None:
        yield "proposals", recall_of_proposals(scores.proposals)


def _sentences(scores: DetectionScores, split: str) -> Iterator[str]:
    """Number of detected and missed objects, meaning of the metrics, and those that are unreliable."""
    right, objects = int(scores.right.sum()), int(scores.objects.sum())
    missed, invented = int(scores.confusion[:-1, -1].sum()), int(scores.confusion[-1].sum())
    yield (
        f"Of the {objects:,} objects in the {scores.images:,} images of the {split}, {right:,} were detected with the "
        f"right class, {objects - right - missed:,} with a wrong one, and {missed:,} were missed. False positives, "
        f"including duplicate boxes of an object: {invented:,} (confidence ≥ 25\u202f%, IoU ≥ 0.5)."
    )
    yield (
        "Average precision (AP) is the area under the precision-recall curve: 1 if every object is detected with a "
        "higher confidence than any false positive; the figure of a model is its mean over the classes. For AP50, a "
        "box is correct if the area that it shares with the true box is at least half of the area that they cover "
        "together (IoU ≥ 0.5); "
        "AP is the mean over IoU thresholds from 0.5 to 0.95."
    )
    if scores.curves.best is not None:
        yield (
            f"F1, the harmonic mean of precision and recall, is highest at a confidence of {scores.best_confidence:g}: "
            f"{scores.best_f1:.3f}, the mean of the classes. A good choice for hubel predict --conf "
            f"{scores.best_confidence:g} where false positives and missed objects are equally bad."
        )
    if (kind := scores.errors.most_costly) is not None:
        errors = scores.errors
        yield (
            f"What costs most are {ERRORS[kind][1]}: without them, AP50 would be "
            f"{errors.AP50 + errors.costs[kind]:.3f} instead of {errors.AP50:.3f}."
        )
    few = [f"{name} ({count})" for name, count in zip(scores.classes, scores.objects, strict=True) if 0 < count < FEW]
    if few:
        shown = ", ".join(few[:6]) + (" …" if len(few) > 6 else "")
        yield f"The metrics of classes with few objects are unreliable: {shown}."


def _of_split(scores: DetectionScores) -> dict[str, Any]:
    given = scores.to_json()
    total = {"name": "all", "images": scores.images, "objects": int(scores.objects.sum()), **given["metrics"]}
    return {
        "total": total,
        "classes": sorted((row for row in given["per_class"] if row["objects"]), key=lambda row: row["AP50"]),
        **confusion_section(scores.confusion, [*scores.classes, _BACKGROUND]),
    }


def precision_recall(precision: np.ndarray, names: Sequence[str]) -> Figure:
    """Precision over recall, a curve per class, and their mean where there are several.

    Args:
        precision: (101, classes) by :data:`~hubel.metrics.coco.RECALL_STEPS`; negative for classes without objects.
        names: of the classes.
    """
    present = [index for index in range(len(names)) if precision[0, index] >= 0]
    figure, axes = _unit_square("recall", "precision")
    _class_curves(axes, RECALL_STEPS, precision[:, present], [names[index] for index in present])
    _legend(figure, axes)
    return figure


def f1_over_confidence(curves: ConfidenceCurves, names: Sequence[str]) -> Figure:
    """F1 over the confidence from which boxes count, a curve per class, and their mean with its maximum."""
    present = [index for index in range(len(names)) if not np.isnan(curves.f1[0, index])]
    figure, axes = _unit_square("confidence threshold", "F1")
    _class_curves(axes, THRESHOLDS, curves.f1[:, present], [names[index] for index in present])
    if curves.best is not None:
        axes.plot(THRESHOLDS[curves.best], curves.mean_f1[curves.best], "o", color=figures.INK, markersize=5)
        _threshold_lines(axes, curves)
    _legend(figure, axes)
    return figure


def precision_and_recall_over_confidence(curves: ConfidenceCurves) -> Figure:
    """Mean precision and recall of the classes with objects over the confidence from which boxes count."""
    figure, axes = _unit_square("confidence threshold", "precision, recall")
    present = ~np.isnan(curves.recall[0])
    # Above the highest score of a class it has no precision; the mean ends where the first class's does.
    for values, name, colour, line in (
        (curves.precision, "precision", figures.BLUE, "solid"),
        (curves.recall, "recall", figures.ORANGE, (0, (5, 2))),
    ):
        if present.any():
            axes.plot(THRESHOLDS, values[:, present].mean(1), color=colour, linestyle=line, linewidth=2, label=name)
    if curves.best is not None:
        _threshold_lines(axes, curves)
    _legend(figure, axes)
    return figure


def cost_of_errors(errors: DetectionErrors) -> Figure:
    """By how much AP50 would rise without each kind of mistakes, and how many there are."""
    figure, axes = figures.styled_figure(5.6, 2.6)
    costs = [errors.costs[kind] for kind in ERROR_KINDS]
    bars = axes.barh([ERRORS[kind][0] for kind in ERROR_KINDS], costs, color=figures.BLUE, height=0.62)
    words = [f" +{cost:.3f}  ({errors.counts[kind]:,})" for kind, cost in zip(ERROR_KINDS, costs, strict=True)]
    axes.bar_label(bars, words, fontsize=9, color=figures.INK)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set(xlim=(0, 1.35 * max(costs) or 1), xlabel="AP50 that it costs")
    return figure


def recall_of_proposals(proposals: ProposalRecall) -> Figure:
    """Fraction of the objects that the first proposals of an image find, over their number."""
    figure, axes = figures.styled_figure(5.6, 3.5)
    for values, name, colour, line in (
        (proposals.recall[:, 0], "IoU ≥ 0.5", figures.BLUE, "solid"),
        (proposals.average, "mean of IoU 0.5 to 0.95", figures.ORANGE, (0, (5, 2))),
    ):
        axes.plot(proposals.numbers, values, color=colour, linestyle=line, linewidth=2, label=name)
    axes.set(xscale="log", ylim=(0, 1.03), xlabel="proposals of an image", ylabel="recall")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    _legend(figure, axes)
    return figure


def _unit_square(horizontal: str, vertical: str) -> tuple[Figure, Axes]:
    figure, axes = figures.styled_figure(5.6, 3.9)
    axes.set(xlim=(0, 1.01), ylim=(0, 1.03), xlabel=horizontal, ylabel=vertical)
    return figure, axes


def _class_curves(axes: Axes, steps: np.ndarray, values: np.ndarray, names: Sequence[str]) -> None:
    """Curves (steps, classes), named if they are few, and their mean if there are several."""
    named = len(names) <= NAMED_CURVES
    for index, name in enumerate(names):
        colour = _COLOURS[index % len(_COLOURS)] if named else "#c3cad3"
        line = _LINES[index % len(_LINES)] if named else "solid"
        (curve,) = axes.plot(steps, values[:, index], color=colour, linestyle=line)
        curve.set_linewidth(1.8 if named else 0.7)
        curve.set_label(name if named else f"_{index}")
    if len(names) > 1:
        axes.plot(steps, values.mean(1), color=figures.INK, linewidth=2.4, label="mean of the classes")


def _threshold_lines(axes: Axes, curves: ConfidenceCurves) -> None:
    best = THRESHOLDS[curves.best or 0]
    for threshold, name, line in (
        (best, f"highest mean F1: {best:g}", "solid"),
        (SCORE_THRESHOLD, f"default: {SCORE_THRESHOLD:g}", (0, (1, 2))),
    ):
        axes.axvline(threshold, color="#8d97a5", linewidth=1.2, linestyle=line, label=name, zorder=1)


def _legend(figure: Figure, axes: Axes) -> None:
    """Above the axes, where it covers no curve."""
    if axes.get_legend_handles_labels()[0]:
        legend = figure.legend(frameon=False, fontsize=9, labelcolor=figures.INK, loc="outside upper center", ncols=3)
        for text in legend.get_texts():
            text.set_parse_math(False)


def detection_mistakes(
    paths: Sequence[str | Path],
    labelled: Sequence[GroundTruth],
    found: Sequence[PredictedObjects],
    classes: Sequence[str],
    count: int = 12,
) -> list[DetectionMistake]:
    """The images with the worst mistakes, see :func:`hubel.metrics.detection.worst_images`.

    Boxes of the labelled and the found objects are in pixels of the upright image.
    """
    return [
        _mistake(Path(paths[image.index]), image, labelled[image.index], found[image.index], classes)
        for image in worst_images(labelled, found, count)
    ]


def _mistake(
    path: Path, image: WorstImage, labelled: GroundTruth, found: PredictedObjects, classes: Sequence[str]
) -> DetectionMistake:
    matches, truth = image.matches, [classes[label] for label in labelled.labels]
    wrong = wrong_objects(image, labelled, found, classes)
    true_boxes, found_boxes = labelled.boxes.tolist(), found.boxes.tolist()
    boxes = [
        *((true_boxes[index], "", _LABELLED, False) for index in matches.objects[matches.objects >= 0]),
        *((found_boxes[index], "", _CORRECT, False) for index in matches.right),
        *((true_boxes[index], truth[index], _MISSED, True) for index in matches.missed),
        *((found_boxes[index], words, _WRONG, False) for index, words in wrong.items()),
    ]
    return DetectionMistake(
        path,
        [BoxLabel((x1, y1, x2, y2), text, colour, dashed) for (x1, y1, x2, y2), text, colour, dashed in boxes],
        tuple(wrong.values()),
        counted(truth[index] for index in matches.missed),
    )


def wrong_objects(
    image: WorstImage, labelled: GroundTruth, found: PredictedObjects, classes: Sequence[str]
) -> dict[int, str]:
    """Index of each wrong object: its class and confidence, and the true class if there is an object of another."""
    wrong = {}
    for index in image.matches.wrong.tolist():
        matched = image.matches.objects[index]
        predicted = f"{classes[found.labels[index]]} {100 * found.scores[index]:.0f}\u202f%"
        wrong[index] = predicted if matched < 0 else f"{predicted} (truth: {classes[labelled.labels[matched]]})"
    return wrong


def counted(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once, the most frequent first, with its number if there are several: ``2 × cat``."""
    return tuple(f"{number} × {name}" if number > 1 else name for name, number in Counter(names).most_common())


@dataclass(frozen=True)
class DetectionReport(TaskReport):
    """With the key of the boxes on images with mistakes, as in :data:`KINDS`."""

    mistakes_colours: tuple[tuple[tuple[int, int, int], bool, str], ...] = KINDS


REPORT = DetectionReport(
    package="hubel.tasks.detection",
    curves={
        "loss": ("Loss per epoch", "Loss, all terms: lower is better."),
        "class_loss": ("Classification loss per epoch", "The part of the loss that is about classes."),
        "box_loss": ("Box loss per epoch", "The part of the loss that is about boxes."),
        "objectness_loss": ("Objectness loss per epoch", "The part that is about whether there is an object."),
        "proposal_box_loss": ("Proposal loss per epoch", "The part that is about the boxes of proposals."),
        "distribution_loss": ("Distribution loss per epoch", "The part that is about the distances to a box's sides."),
        "AP50": ("AP50 per epoch", "AP50: higher is better."),
        "AP": ("AP per epoch", "AP: higher is better; it rewards accurate boxes."),
    },
    charts=_charts,
    sentences=_sentences,
    of_split=_of_split,
    mistakes="Images with the worst mistakes",
    mistakes_side=640,
)
