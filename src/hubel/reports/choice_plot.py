"""Accuracy against cost for many networks, with the Pareto front: those that nobody beats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter, StrMethodFormatter
from matplotlib.transforms import Bbox

from hubel.reports.figures import BLUE, FAINT, INK, ORANGE, styled_figure

_GREY = "#6b7480"
# Where a name may stand beside its point: shift in points, and how it is anchored there.
_BELOW = ((6, 0, "left", "center"), (0, -7, "center", "top"), (5, -6, "left", "top"), (-5, -6, "right", "top"))
_ABOVE = ((-5, 5, "right", "bottom"), (-7, 0, "right", "center"), (0, 7, "center", "bottom"), (5, 6, "left", "bottom"))


def choice_plot(
    names: Sequence[str],
    costs: Sequence[float],
    accuracies: Sequence[float],
    front: Sequence[int],
    cost_label: str,
    accuracy_label: str = "top-1 on ImageNet, as published",
) -> Figure:
    """One point a network; those on the front are coloured, joined, and named first.

    Names that would cover another are left out, except on the front.

    Args:
        names: of the networks.
        costs: positive; the axis is logarithmic.
        accuracies: 0..1.
        front: indices of the Pareto front, cheapest first.
        cost_label: what the costs are, with their unit.
        accuracy_label: what the accuracies are.
    """
    figure, axes = styled_figure(10.5, 6.6)
    on_front = set(front)
    others = [index for index in range(len(names)) if index not in on_front]
    axes.set_xscale("log")
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.step(
        [costs[index] for index in front], [accuracies[index] for index in front],
        where="post", color=ORANGE, linewidth=1.4, alpha=0.55, zorder=2,
    )  # fmt: skip
    for indices, colour, size in ((others, BLUE, 22), (list(front), ORANGE, 42)):
        axes.scatter(
            [costs[index] for index in indices], [accuracies[index] for index in indices],
            s=size, color=colour, edgecolor="white", linewidth=0.6, zorder=3,
        )  # fmt: skip
    axes.margins(x=0.09, y=0.06)
    axes.set_xlabel(cost_label)
    axes.set_ylabel(accuracy_label)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.set_title(
        "On the line: the best for their cost. Whatever is more accurate costs more.",
        fontsize=11,
        color=INK,
        loc="left",
    )
    _name_points(figure, axes, names, np.column_stack([costs, accuracies]), [*front, *others], on_front)
    return figure


def _name_points(
    figure: Figure, axes: Axes, names: Sequence[str], points: np.ndarray, order: Sequence[int], always: set[int]
) -> None:
    """Write names where they cover neither points nor each other; the important ones choose first."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # the layout has to stand before anything can be measured
    figure.set_layout_engine("none")
    renderer = canvas.get_renderer()
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in axes.transData.transform(points)]
    for index in order:
        important = index in always
        places = (*_ABOVE, *_BELOW) if important else (*_BELOW, *_ABOVE)  # the front's line runs to the right
        for number, (right, up, horizontal, vertical) in enumerate(places):
            text = axes.annotate(
                names[index], points[index], (right, up), textcoords="offset points", ha=horizontal, va=vertical,
                fontsize=8.5 if important else 7, color=INK if important else _GREY, parse_math=False, zorder=4,
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
            free = inside and not any(box.overlaps(other) for other in taken)
            if free or (important and number == len(places) - 1):
                taken.append(box)
                break
            text.remove()
