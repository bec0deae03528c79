"""Figures of a detector's scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from hubel.metrics.coco import RECALL_STEPS
from hubel.reports.figures import INK, styled_figure

NAMED_CURVES = 8
"""Of more classes the curves are drawn faint, without names, behind their mean."""

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8d97a5", "#7a4b00")
_LINES = ("solid", (0, (5, 2)), (0, (2, 1.5)), (0, (6, 2, 1.5, 2)))


def precision_recall(precision: np.ndarray, names: Sequence[str]) -> Figure:
    """Precision over recall, a curve a class, and their mean where there are several.

    Args:
        precision: (101, classes) by :data:`~hubel.metrics.coco.RECALL_STEPS`; negative for classes without objects.
        names: of the classes.
    """
    figure, axes = styled_figure(5.6, 3.9)
    there = [place for place in range(len(names)) if precision[0, place] >= 0]
    named = len(there) <= NAMED_CURVES
    for number, place in enumerate(there):
        colour = _COLOURS[number % len(_COLOURS)] if named else "#c3cad3"
        line = _LINES[number % len(_LINES)] if named else "solid"
        (curve,) = axes.plot(RECALL_STEPS, precision[:, place], color=colour, linestyle=line)
        curve.set_linewidth(1.8 if named else 0.7)
        curve.set_label(names[place] if named else f"_{place}")
    if len(there) > 1:
        axes.plot(RECALL_STEPS, precision[:, there].mean(1), color=INK, linewidth=2.4, label="mean of the classes")
    axes.set_xlim(0, 1.01)
    axes.set_ylim(0, 1.03)
    axes.set_xlabel("recall")
    axes.set_ylabel("precision")
    if axes.get_legend_handles_labels()[0]:
        legend = axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower left")
        for text in legend.get_texts():
            text.set_parse_math(False)
    return figure
