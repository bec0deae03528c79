"""``report.html`` of a search: its history, the folds of the best settings and the defaults, what mattered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hubel.fileio import write_text
from hubel.reports.figures import BLUE, FAINT, INK, ORANGE, styled_figure, to_png
from hubel.reports.html import data_url, render
from hubel.tuning.result import TuneResult
from hubel.tuning.trials import State

_GREY = "#9aa3af"


def write_tuning_report(result: TuneResult) -> Path:
    """Write ``report.html`` into the folder of the search; returns its path. The page is self-contained.

    Raises:
        DataError: it cannot be written.
    """
    charts = [
        (_history(result), "Every trial: the mean over its folds, and the spread (one standard deviation)."),
        (_folds(result), "Each fold with the defaults and with the best settings: the same images, a line each."),
    ]
    if result.importance:
        caption = "How much of the difference between trials each setting explains (functional ANOVA)."
        charts.append((_importance(result), caption))
    ranked = result.ranked()
    page = render(
        "tuning.html.jinja",
        "hubel.tuning",
        title=result.folder.name,
        root=f"{result.task} · {result.model} · {result.data}",
        result=result,
        charts=[(data_url(to_png(figure), "png"), caption) for figure, caption in charts],
        ranked=[(trial, result.differences(trial)) for trial in ranked],
        others=[trial for trial in result.trials if trial.state is not State.FINISHED],
    )
    path = result.folder / "report.html"
    write_text(path, page)
    return path


def _history(result: TuneResult) -> Figure:
    figure, axes = styled_figure(5.6, 3.8)
    finished = [trial for trial in result.trials if trial.state is State.FINISHED]
    stopped = [trial for trial in result.trials if trial.state is State.STOPPED and trial.scores]
    if early := [trial.number for trial in result.trials if trial.state is State.STOPPED and not trial.scores]:
        at_bottom = axes.get_xaxis_transform()
        axes.plot(early, [0.02] * len(early), "|", color=_GREY, transform=at_bottom, label="stopped early in a fold")
    if stopped:
        numbers = [trial.number for trial in stopped]
        axes.plot(
            numbers, [trial.estimate.mean for trial in stopped], "x", color=_GREY, label="stopped after some folds"
        )
    numbers, means = [trial.number for trial in finished], np.array([trial.estimate.mean for trial in finished])
    spreads = [trial.estimate.spread for trial in finished]
    axes.errorbar(numbers, means, spreads, fmt="o", color=BLUE, ecolor="#9cc7e3", markersize=5, label="on all folds")
    best = np.minimum.accumulate(means) if result.minimize else np.maximum.accumulate(means)
    last = len(result.trials) - 1
    axes.step([*numbers, max(last, numbers[-1])], [*best, best[-1]], where="post", color=ORANGE, label="best so far")
    axes.axhline(result.default.mean, color=INK, linewidth=1, linestyle=(0, (4, 3)), label="defaults")
    axes.set(xlabel="trial", ylabel=result.metric, xlim=(-0.5, last + 0.5))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(frameon=False, fontsize=9, labelcolor=INK, loc="outside upper center", ncols=3)
    return figure


def _folds(result: TuneResult) -> Figure:
    """The scores of the folds, joined; the means and spreads beside them."""
    figure, axes = styled_figure(5.6, 3.8)
    columns = [("defaults", result.default, BLUE)]
    if result.best_trial.number:
        columns.append((f"best: trial {result.best_trial.number}", result.estimate, ORANGE))
        for pair in zip(result.default.scores, result.estimate.scores, strict=True):
            axes.plot((0, 1), pair, color=FAINT, linewidth=1.2, zorder=1)
    for at, (_, estimate, colour) in enumerate(columns):
        axes.plot([at] * len(estimate.scores), estimate.scores, "o", color=colour, markersize=5, alpha=0.6)
        beside = at - 0.15 if at == 0 else at + 0.15
        axes.errorbar([beside], [estimate.mean], [estimate.spread], fmt="D", color=colour, markersize=6, capsize=4)
        axes.annotate(
            str(estimate), (beside, estimate.mean), (-10 if at == 0 else 10, 0), textcoords="offset points",
            ha="right" if at == 0 else "left", va="center", fontsize=9, color=INK,
        )  # fmt: skip
    axes.set_xticks(range(len(columns)), [name for name, *_ in columns])
    axes.set(xlim=(-0.9, len(columns) - 0.1), ylabel=result.metric)
    return figure


def _importance(result: TuneResult) -> Figure:
    names = sorted(result.importance, key=result.importance.__getitem__)
    figure, axes = styled_figure(5.6, max(1.6, 0.6 + 0.3 * len(names)))
    axes.barh(range(len(names)), [result.importance[name] for name in names], color=BLUE, height=0.7)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlim=(0, 1), xlabel="importance")
    axes.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    return figure
