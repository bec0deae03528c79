"""Pages about a data set: findings of a check, each with its image, and statistics as figures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

from hubel.data.annotations import AnnotatedDataset
from hubel.data.checks.findings import KINDS, Finding
from hubel.data.checks.run import Check
from hubel.data.checks.statistics import MEDIUM, SMALL, Statistics
from hubel.data.file_listing import OUTPUT_MARK
from hubel.data.image_io import read_image
from hubel.drawing import BoxLabel, draw_boxes
from hubel.errors import ImageError
from hubel.fileio import rename_unique, staged_directory, write_text
from hubel.masks import Box
from hubel.reports.figures import BLUE, FAINT, INK, ORANGE, styled_figure, to_png
from hubel.reports.html import data_url, jpeg_url, render

_IMAGES = 48  # of the findings of a kind; the rest are lines
_LINES = 500
_CLASSES = 40  # that have a bar; the most frequent ones
_SIDE = 420  # longest, of a finding's image, or of each of two, in pixels
_GREY = (120, 124, 132)  # beyond the edges of an image
_GREEN = "#009E73"
_FARTHEST = 0.6  # fraction of the image that is shown beyond its edges
_CLOSE_UP = 0.06  # fraction of the image below which only a box's surroundings are shown


def write_check_page(path: str | Path, check: Check) -> Path:
    """Write the findings of a check as one self-contained page.

    Raises:
        DataError: it cannot be written.
    """
    path = Path(path)
    dataset = check.dataset
    boxes: dict[Path, list[BoxLabel]] = {}  # of all objects, for findings that concern all of them
    if isinstance(dataset, AnnotatedDataset):
        for image in dataset.images():
            objects = image.objects or ()
            boxes[image.path] = [BoxLabel(obj.box, dataset.classes[obj.label], obj.label) for obj in objects]
    page = render(
        "check.html.jinja",
        title=dataset.root.name or str(dataset.root),
        root=str(dataset.root),
        groups=[_group(kind, found, boxes) for kind, found in check.by_kind().items()],
        errors=check.errors,
        warnings=len(check.findings) - check.errors,
        images=sum(map(len, dataset.splits.values())),
        splits={split: len(images) for split, images in dataset.splits.items()},
        classes=len(dataset.classes),
        notes=check.notes,
    )
    write_text(path, page)
    return path


def _group(kind: str, found: list[Finding], boxes: Mapping[Path, Sequence[BoxLabel]]) -> dict[str, Any]:
    shown = []
    for finding in found[:_IMAGES]:
        image = _finding_image(finding, boxes.get(finding.image, ()) if finding.image else ())
        if image is None:  # the page would be a list with holes in it
            break
        shown.append((finding, jpeg_url(image)))
    rest = found[len(shown) :]
    lines, more = rest[:_LINES], len(rest[_LINES:])
    return {"kind": KINDS[kind], "count": len(found), "shown": shown, "lines": lines, "more": more}


def _finding_image(finding: Finding, boxes: Sequence[BoxLabel]) -> Image.Image | None:
    """The image of a finding with its box or all ``boxes``, or its two images side by side; ``None`` without any.

    A box that leaves the image is shown on a grey ground as far as it makes sense; of a small one the surroundings.
    """
    if finding.image is None or finding.kind in ("missing", "unreadable"):
        return None
    try:
        image = read_image(finding.image)
        if finding.other is not None:
            return _side_by_side(image, read_image(finding.other))
    except ImageError:
        return None
    if finding.box is not None:
        boxes = [BoxLabel(finding.box, finding.name or "", 0)]
    return _draw(image, boxes, _view(image.size, finding.box, boxes))


def _view(size: tuple[int, int], box: Box | None, boxes: Sequence[BoxLabel]) -> Box:
    """The part of the plane to show, in the image's pixels."""
    width, height = size
    if box is not None and max((box[2] - box[0]) / width, (box[3] - box[1]) / height) < _CLOSE_UP:
        x, y = (min(max((box[axis] + box[axis + 2]) / 2, 0), size[axis]) for axis in (0, 1))
        half = 1.5 * _CLOSE_UP * max(size)
        return x - half, y - half, x + half, y + half
    view = [0.0, 0.0, float(width), float(height)]
    for label in boxes:
        for index, value in enumerate(label.box):
            axis = index % 2
            value = min(max(value, -_FARTHEST * size[axis]), (1 + _FARTHEST) * size[axis])
            view[axis], view[axis + 2] = min(view[axis], value), max(view[axis + 2], value)
    return view[0], view[1], view[2], view[3]


def _draw(image: Image.Image, boxes: Sequence[BoxLabel], view: Box) -> Image.Image:
    left, top, right, bottom = view
    scale = _SIDE / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    ground = Image.new("RGB", size, _GREY)
    # Only what is seen is scaled: a close-up of a large scan would else take gigabytes.
    seen = max(0, int(left)), max(0, int(top)), min(image.width, math.ceil(right)), min(image.height, math.ceil(bottom))
    if seen[0] < seen[2] and seen[1] < seen[3]:
        part = image.crop(seen)
        part = part.resize((max(1, round(part.width * scale)), max(1, round(part.height * scale))))
        ground.paste(part, (round((seen[0] - left) * scale), round((seen[1] - top) * scale)))
    moved = []
    for label in boxes:
        (x1, x2), (y1, y2) = sorted(label.box[0::2]), sorted(label.box[1::2])
        box = ((x1 - left) * scale, (y1 - top) * scale, (x2 - left) * scale, (y2 - top) * scale)
        moved.append(replace(label, box=box))
    return draw_boxes(ground, moved)


def _side_by_side(one: Image.Image, other: Image.Image, gap: int = 6) -> Image.Image:
    one.thumbnail((_SIDE, _SIDE))
    other.thumbnail((_SIDE, _SIDE))
    sheet = Image.new("RGB", (one.width + gap + other.width, max(one.height, other.height)), "white")
    sheet.paste(one, (0, 0))
    sheet.paste(other, (one.width + gap, 0))
    return sheet


def write_statistics(out: Path, title: str, numbers: Statistics) -> Path:
    """Write a new folder with ``statistics.html`` and each figure as a PNG file; returns its path.

    Where ``out`` exists already, a number is added to its name.

    Raises:
        DataError: it cannot be written.
    """
    figures = {name: (to_png(figure), caption) for name, figure, caption in _figures(numbers)}
    charts = [(data_url(png, "png"), caption) for png, caption in figures.values()]
    with staged_directory(out) as folder:
        for name, (png, _) in figures.items():
            (folder / f"{name}.png").write_bytes(png)
        page = render("statistics.html.jinja", title=title, root="", numbers=numbers, charts=charts)
        write_text(folder / "statistics.html", page)
        (folder / OUTPUT_MARK).touch()
        return rename_unique(folder, out)


def _figures(numbers: Statistics) -> Iterator[tuple[str, Figure, str]]:
    """Name, figure and caption of each."""
    unit = "objects" if numbers.has_boxes else "images"
    many = len(numbers.classes)
    each = f"each of the {_CLASSES} most frequent of {many:,} classes" if many > _CLASSES else "each class"
    by_split = ", by split" if len(numbers.splits) > 1 else ""
    yield "classes", _classes(numbers, unit), f"Number of {unit} in {each}{by_split}."
    if numbers.has_boxes:
        yield "per_picture", _per_image(numbers), "Objects per labelled image."
    if len(numbers.boxes):
        yield (
            "sizes",
            _sizes(numbers),
            "Box width and height in pixels; the lines are COCO's limits of size.",
        )
        yield "aspects", _aspects(numbers), "Aspect ratios (width / height) of the boxes."
        yield (
            "positions",
            _positions(numbers),
            "Box positions: the fraction that covers each part of the image.",
        )


def _classes(numbers: Statistics, unit: str) -> Figure:
    counts = np.array([split.by_class for split in numbers.splits.values()]).reshape(len(numbers.splits), -1)
    order = np.argsort(-counts.sum(0), kind="stable")[:_CLASSES]
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
    axes.set(ylim=(len(order) - 0.4, -0.6), xlabel=unit)
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.grid(visible=False, axis="y")
    if len(numbers.splits) > 1:
        axes.legend(frameon=False, fontsize=9)
    return figure


def _per_image(numbers: Statistics) -> Figure:
    figure, axes = styled_figure(5.6, 3.2)
    values = np.repeat(list(numbers.per_image), list(numbers.per_image.values()))
    most = int(values.max()) if len(values) else 0
    step = max(1, -(-(most + 1) // 40))
    axes.hist(values, bins=np.arange(-0.5, most + step + 0.5, step).tolist(), color=BLUE, rwidth=0.9)
    axes.set(xlabel="objects per image", ylabel="images")
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
    axes.set(xlim=reach, ylim=(low, high), xlabel="width, pixels", ylabel="height, pixels")
    return figure


def _aspects(numbers: Statistics) -> Figure:
    figure, axes = styled_figure(5.6, 3.2)
    ratios = np.log2(numbers.aspects)
    far = max(1.0, min(4.0, float(np.abs(ratios).max())))
    axes.hist(np.clip(ratios, -far, far), bins=41, range=(-far, far), color=BLUE, rwidth=0.92)
    ticks = [power for power in range(-4, 5) if abs(power) <= far]
    axes.set_xticks(ticks, [f"{2**power}:1" if power >= 0 else f"1:{2**-power}" for power in ticks])
    axes.set(xlabel="width : height", ylabel="boxes")
    return figure


def _positions(numbers: Statistics) -> Figure:
    figure, axes = styled_figure(5.0, 4.2)
    axes.grid(visible=False)
    shown = axes.imshow(numbers.positions, cmap="cividis", vmin=0, extent=(0, 1, 1, 0), interpolation="bilinear")
    axes.set(xlabel="x / image width", ylabel="y / image height")
    figure.colorbar(shown, ax=axes, label="fraction of boxes", shrink=0.85)
    return figure
