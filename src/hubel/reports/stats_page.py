"""What is in a data set, as figures and a page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

import hubel
from hubel.data.checks.statistics import MEDIUM, SMALL, Statistics
from hubel.fileio import rename_unique, staged_directory, write_text
from hubel.reports.figures import BLUE, INK, ORANGE, styled_figure, to_png
from hubel.reports.html import data_url, page_from

SHOWN = 40
"""Classes that have a bar; the most frequent ones."""

_GREEN = "#009E73"


def write_statistics(out: Path, title: str, numbers: Statistics) -> Path:
    """Write a new folder with ``statistics.html`` and each figure as a PNG file.

    Args:
        out: the folder; where there is something already, a number is added to its name.
        title: the data set's name.
        numbers: what to draw.

    Returns:
        The folder.

    Raises:
        DataError: it cannot be written.
    """
    figures = {name: (to_png(figure), caption) for name, figure, caption in _figures(numbers)}
    with staged_directory(out) as folder:
        for name, (png, _) in figures.items():
            (folder / f"{name}.png").write_bytes(png)
        page = page_from(
            "statistics.html.jinja",
            title=title,
            root="",
            numbers=numbers,
            charts=[(data_url(png, "png"), caption) for png, caption in figures.values()],
            version=hubel.__version__,
            written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        )
        write_text(folder / "statistics.html", page)
        return rename_unique(folder, out)


def _figures(numbers: Statistics) -> Iterator[tuple[str, Figure, str]]:
    """Name, figure and caption of each."""
    things = "objects" if numbers.has_boxes else "pictures"
    many = len(numbers.classes)
    each = f"each of the {SHOWN} most frequent of {many:,} classes" if many > SHOWN else "each class"
    by_split = ", by split" if len(numbers.splits) > 1 else ""
    yield "classes", _classes(numbers, things), f"How many {things} {each} has{by_split}."
    if numbers.has_boxes:
        yield "per_picture", _per_picture(numbers), "How many objects a labelled picture has."
    if len(numbers.boxes):
        yield "sizes", _sizes(numbers), "Sides of boxes in pixels; the lines are COCO's limits of small and medium."
        yield "aspects", _aspects(numbers), "Width over height of boxes."
        yield "positions", _positions(numbers), "Where boxes are: the share that covers each place of its picture."


def _classes(numbers: Statistics, things: str) -> Figure:
    counts = np.array([split.by_class for split in numbers.splits.values()]).reshape(len(numbers.splits), -1)
    order = np.argsort(-counts.sum(0), kind="stable")[:SHOWN]
    figure, axes = styled_figure(5.6, max(1.6, 0.5 + 0.24 * len(order)))
    left = np.zeros(len(order))
    for number, (split, row) in enumerate(zip(numbers.splits, counts, strict=True)):
        colour = (BLUE, ORANGE, _GREEN, INK)[number % 4]
        axes.barh(np.arange(len(order)), row[order], left=left, color=colour, label=split, height=0.72)
        left += row[order]
    axes.set_yticks(np.arange(len(order)), [numbers.classes[label] for label in order], parse_math=False)
    for at, total in enumerate(counts.sum(0)[order]):
        axes.annotate(f"{total:,}", (total, at), (4, 0), textcoords="offset points", va="center", fontsize=9)
    axes.margins(x=0.12)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.grid(axis="x", color="#d9dde3", linewidth=0.8)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(things)
    if len(numbers.splits) > 1:
        axes.legend(frameon=False, fontsize=9)
    return figure


def _per_picture(numbers: Statistics) -> Figure:
    figure, axes = styled_figure(5.6, 3.2)
    values = np.repeat(list(numbers.per_image), list(numbers.per_image.values()))
    most = int(values.max()) if len(values) else 0
    step = max(1, -(-(most + 1) // 40))
    axes.hist(values, bins=np.arange(-0.5, most + step + 0.5, step).tolist(), color=BLUE, rwidth=0.9)
    axes.set_xlabel("objects in a picture")
    axes.set_ylabel("pictures")
    return figure


def _sizes(numbers: Statistics) -> Figure:
    figure, axes = styled_figure(5.6, 4.2)
    width, height = numbers.sides.T
    some = np.linspace(0, len(width) - 1, min(len(width), 5000)).astype(int)
    axes.loglog(width[some], height[some], ".", color=BLUE, alpha=0.35, markersize=5, markeredgewidth=0)
    reach = np.array([max(1.0, width.min() / 1.5), width.max() * 1.5])
    low, high = max(1.0, height.min() / 1.5), height.max() * 1.5
    for area, name in ((SMALL, "small"), (MEDIUM, "medium")):
        axes.plot(reach, area / reach, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        right = min(reach[1], area / low)  # where the line leaves the figure
        if reach[0] < right and area / right < high:
            place = (right, area / right)
            axes.annotate(name, place, (-16, 3), textcoords="offset points", color=INK, fontsize=9, ha="right")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.set_ylim(low, high)
    axes.set_xlim(*reach)
    axes.set_xlabel("width, pixels")
    axes.set_ylabel("height, pixels")
    return figure


def _aspects(numbers: Statistics) -> Figure:
    figure, axes = styled_figure(5.6, 3.2)
    ratios = np.log2(numbers.aspects)
    far = max(1.0, min(4.0, float(np.abs(ratios).max())))
    axes.hist(np.clip(ratios, -far, far), bins=41, range=(-far, far), color=BLUE, rwidth=0.92)
    ticks = [power for power in range(-4, 5) if abs(power) <= far]
    axes.set_xticks(ticks, [f"{2**power}:1" if power >= 0 else f"1:{2**-power}" for power in ticks])
    axes.set_xlabel("width : height")
    axes.set_ylabel("boxes")
    return figure


def _positions(numbers: Statistics) -> Figure:
    figure, axes = styled_figure(5.0, 4.2)
    axes.grid(visible=False)
    shown = axes.imshow(numbers.positions, cmap="cividis", vmin=0, extent=(0, 1, 1, 0), interpolation="bilinear")
    axes.set_xlabel("of the picture's width")
    axes.set_ylabel("of its height")
    figure.colorbar(shown, ax=axes, label="share of boxes", shrink=0.85)
    return figure
