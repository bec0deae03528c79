"""The report's figures, drawn with matplotlib's object-oriented interface (no pyplot, no global state).

The colours are those of Okabe and Ito's palette, told apart with any colour vision. Text is never parsed as
mathematics: class names may hold dollar signs.
"""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from hubel.metrics.classification import CalibrationBin
from hubel.reports.format import number

_QUANTITIES = {
    "top1": "accuracy",
    "AP50": "AP50",
    "AP": "AP",
    "mean_iou": "mean IoU",
    "iou50": "IoU ≥ 0.5",
}
"""Names on the vertical axis of a learning curve; other quantities are written as they are."""

CSS_PIXELS_PER_INCH = 100
"""Largest scale at which a page shows a figure: its letters are then as large as the page's."""

LABELLED_CLASSES = 30
"""Confusion matrices of more classes are drawn without names and counts."""

BLUE, ORANGE, INK, FAINT = "#0072B2", "#D55E00", "#333a45", "#d9dde3"
_GREY = "#6b7480"


def to_png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    FigureCanvasAgg(figure)
    file = io.BytesIO()
    with warnings.catch_warnings():
        # Letters that no font here has become boxes in the figure; the tables beside it name the classes.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(file, format="png", dpi=180, metadata={"Software": None})
    return file.getvalue()


def learning_curve(history: Sequence[Mapping[str, Any]], quantity: str, best_epoch: int | None) -> Figure:
    """Training and validation values of a quantity (``"loss"``, ``"top1"``, …) over the epochs.

    The phases of training are shaded; ``best_epoch`` is marked with a ring. ``history`` has rows of ``metrics.csv``.
    """
    figure, axes = styled_figure(5.6, 3.5)
    epochs = [number(row.get("epoch")) for row in history]
    _shade_phases(axes, epochs, [str(row.get("phase") or "") for row in history])
    marker = "o" if len(epochs) <= 40 else ""
    curves = (("train", "training", BLUE, (0, (4, 2))), ("val", "validation", ORANGE, "solid"))
    for split, name, colour, line in curves:
        values = [number(row.get(f"{split}_{quantity}")) for row in history]
        if all(math.isnan(value) for value in values):
            continue
        axes.plot(epochs, values, color=colour, linestyle=line, marker=marker, markersize=3.5, label=name)
        if split == "val" and best_epoch in epochs:
            best = values[epochs.index(best_epoch)]
            axes.plot([best_epoch], [best], "o", markersize=10, fillstyle="none", color=colour, label="kept")
    axes.set(xlim=(epochs[0] - 0.5, epochs[-1] + 0.5), xlabel="epoch", ylabel=_QUANTITIES.get(quantity, quantity))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if quantity == "top1":
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False, fontsize=9, labelcolor=INK)
    return figure


def overlap_curve(overlap: np.ndarray) -> Figure:
    """Fraction of the images (N,) whose IoU with the true box reaches a threshold, over that threshold."""
    figure, axes = styled_figure(5.6, 3.5)
    least = np.concatenate(([0.0], np.sort(overlap), [1.0]))
    share = np.concatenate(([1.0], 1 - np.arange(len(overlap)) / len(overlap), [0.0]))
    axes.step(least, share, where="pre", color=BLUE)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="IoU", ylabel="fraction of the images")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def gain_curve(gains: np.ndarray) -> Figure:
    """By how many decibels images (N,) are better than with bicubic interpolation, the smallest gain first."""
    figure, axes = styled_figure(5.6, 3.5)
    axes.plot(np.arange(1, len(gains) + 1) / len(gains), np.sort(gains), color=BLUE)
    axes.axhline(0, color="#888", linewidth=1)
    axes.set(xlim=(0, 1), xlabel="fraction of the images", ylabel="gain over bicubic (dB)")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def confusion_matrix(confusion: np.ndarray, names: Sequence[str]) -> Figure:
    """A matrix (K, K) of counts, rows the truth, coloured by the fraction of the true class (blue right, orange wrong).

    Beyond ``LABELLED_CLASSES`` it has no names and counts.
    """
    count = len(names)
    labelled = count <= LABELLED_CLASSES
    width = confusion_width(count)
    figure, axes = styled_figure(width, 0.92 * width)
    shares = confusion / np.maximum(confusion.sum(axis=1, keepdims=True), 1)
    right = np.eye(count, dtype=bool)[:, :, None]
    colours = np.where(right, colormaps["Blues"](0.15 + 0.7 * shares), colormaps["Oranges"](0.15 + 0.7 * shares))
    axes.imshow(
        np.where(confusion[:, :, None] > 0, colours, colormaps["Greys"](0.02)),
        interpolation="nearest" if labelled else "antialiased",
    )
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(not labelled)
    axes.set(xlabel="predicted", ylabel="truth")
    if not labelled:
        return figure
    shown = [name if len(name) <= 22 else f"{name[:12]}…{name[-9:]}" for name in names]
    turned = 45 if max(map(len, shown)) * count > 45 else 0
    axes.set_xticks(
        range(count), shown, rotation=turned, ha="right" if turned else "center",
        rotation_mode="anchor", parse_math=False,
    )  # fmt: skip
    axes.set_yticks(range(count), shown, parse_math=False)
    axes.tick_params(length=0)
    # White lines between the cells.
    axes.set_xticks(np.arange(1, count) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, count) - 0.5, minor=True)
    axes.grid(which="minor", color="white", linewidth=1.5)
    axes.tick_params(which="minor", length=0)
    for row, column in zip(*np.nonzero(confusion), strict=True):
        ink = "white" if shares[row, column] > 0.6 else INK
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", fontsize=9, color=ink)
    return figure


def confusion_width(classes: int) -> float:
    """Width in inches of the confusion matrix of that many classes."""
    return min(10.4, max(4.6, 2.6 + 0.46 * classes)) if classes <= LABELLED_CLASSES else 6.0


def reliability_diagram(bins: Sequence[CalibrationBin]) -> Figure:
    """Accuracy over confidence, above the number of images in each bin.

    The gap between accuracy and mean confidence is hatched: in orange where the network is overconfident, in green
    where it is underconfident.
    """
    figure = Figure(figsize=(5.0, 4.6), layout="constrained", facecolor="white")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3.2, 1))
    width = bins[0].high - bins[0].low
    for axes in (upper, lower):
        _style(axes)
        axes.set_xlim(0, 1)
    filled = [row for row in bins if row.images]
    centres = [(row.low + row.high) / 2 for row in filled]
    accuracy = [row.accuracy for row in filled]
    gaps = [row.confidence - row.accuracy for row in filled]
    upper.bar(centres, accuracy, width * 0.92, color="#9cc7e3", label="accuracy")
    # Overconfident: the gap stands on the bar. Underconfident: it hangs from the bar's top, inside it.
    for name, colour, hatch, chosen in (
        ("overconfident", ORANGE, "////", [gap > 0 for gap in gaps]),
        ("underconfident", "#00513a", "\\\\\\\\", [gap < 0 for gap in gaps]),
    ):
        if any(chosen):
            places, lows, heights = zip(
                *itertools.compress(zip(centres, accuracy, gaps, strict=True), chosen), strict=True
            )
            upper.bar(
                places, heights, width * 0.92, bottom=lows, facecolor="none", edgecolor=colour, hatch=hatch,
                linewidth=0.8, label=name,
            )  # fmt: skip
    upper.hlines(
        accuracy, [each - 0.46 * width for each in centres], [each + 0.46 * width for each in centres],
        color=BLUE, linewidth=2.5,
    )  # fmt: skip
    upper.plot([0, 1], [0, 1], color=INK, linewidth=1, linestyle=(0, (3, 3)), label="perfect")
    upper.set(ylim=(0, 1.02), ylabel="accuracy")
    upper.yaxis.set_major_formatter(PercentFormatter(1.0))
    figure.legend(frameon=False, fontsize=9, labelcolor=INK, loc="outside upper center", ncols=2)
    lower.bar(centres, [row.images for row in filled], width * 0.92, color="#8d97a5")
    lower.set(xlabel="confidence", ylabel="images")
    lower.yaxis.set_major_locator(MaxNLocator(3, integer=True))
    lower.xaxis.set_major_formatter(PercentFormatter(1.0))
    return figure


def styled_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty figure in the reports' style, sizes in inches."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.subplots()
    _style(axes)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#9aa3af")
    axes.tick_params(colors=INK, labelsize=9, length=3, color="#9aa3af")
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=10)


def _shade_phases(axes: Axes, epochs: Sequence[float], phases: Sequence[str]) -> None:
    """A band of grey behind every second phase, each with its name at the top; nothing for a single phase."""
    if len(set(phases)) < 2:
        return
    runs = itertools.groupby(zip(epochs, phases, strict=True), key=lambda pair: pair[1])
    for turn, (phase, pairs) in enumerate(runs):
        span = [epoch for epoch, _ in pairs]
        left, right = span[0] - 0.5, span[-1] + 0.5
        axes.axvspan(left, right, color="#eef1f5" if turn % 2 == 0 else "white", zorder=0, linewidth=0)
        axes.text(
            (left + right) / 2, 1.01, phase, transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=8.5, color=_GREY, parse_math=False,
        )  # fmt: skip


# Where a name may stand beside its point: shift in points, and how it is anchored there.
_BELOW = ((6, 0, "left", "center"), (0, -7, "center", "top"), (5, -6, "left", "top"), (-5, -6, "right", "top"))
_ABOVE = ((-5, 5, "right", "bottom"), (-7, 0, "right", "center"), (0, 7, "center", "bottom"), (5, 6, "left", "bottom"))


def choice_plot(
    names: Sequence[str],
    costs: Sequence[float],
    accuracies: Sequence[float],
    front: Sequence[int],
    cost_label: str,
    accuracy_label: str,
) -> Figure:
    """One point per network; those on the Pareto ``front``, indices, cheapest first, are coloured, joined, named first.

    Costs are positive, on a logarithmic axis, accuracies 0..1. Names that would cover another are left out, except on
    the front.
    """
    figure, axes = styled_figure(10.5, 6.6)
    others = [index for index in range(len(names)) if index not in front]
    points = np.column_stack([costs, accuracies])
    axes.set_xscale("log")
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.step(*points[list(front)].T, where="post", color=ORANGE, linewidth=1.4, alpha=0.55, zorder=2)
    for indices, colour, size in ((others, BLUE, 22), (list(front), ORANGE, 42)):
        x, y = points[indices].T
        axes.scatter(x, y, s=size, color=colour, edgecolor="white", linewidth=0.6, zorder=3)
    axes.margins(x=0.09, y=0.06)
    axes.set(xlabel=cost_label, ylabel=accuracy_label)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    title = "On the line: Pareto-optimal networks. Anything more accurate costs more."
    axes.set_title(title, fontsize=11, color=INK, loc="left")
    _name_points(figure, axes, names, points, [*front, *others], len(front))
    return figure


def _name_points(
    figure: Figure, axes: Axes, names: Sequence[str], points: np.ndarray, order: Sequence[int], always: int
) -> None:
    """Write names where they cover neither points nor each other; the first ones are always written."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout has to stand before anything can be measured
    figure.set_layout_engine("none")
    renderer = canvas.get_renderer()
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in axes.transData.transform(points)]
    for rank, index in enumerate(order):
        important = rank < always
        places = (*_ABOVE, *_BELOW) if important else (*_BELOW, *_ABOVE)  # the front's line runs to the right
        for attempt, (right, up, horizontal, vertical) in enumerate(places, 1):
            text = axes.annotate(
                names[index], points[index], (right, up), textcoords="offset points", ha=horizontal, va=vertical,
                fontsize=8.5 if important else 7, color=INK if important else _GREY, parse_math=False, zorder=4,
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            free = inside and not any(box.overlaps(other) for other in taken)
            if free or (important and attempt == len(places)):
                taken.append(box)
                break
            text.remove()
