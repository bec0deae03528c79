"""Writes ``report.html``: one file with every figure inside, and the figures beside it as PNG files."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

import hubel
from hubel.data.image_io import read_image
from hubel.drawing import draw_boxes, draw_instances
from hubel.errors import ImageError
from hubel.fileio import atomic_write, write_text
from hubel.reports import figures
from hubel.reports.format import CHOSEN_ON_THEM, cell, duration, figure, percent, split_label
from hubel.reports.report_data import Comparison, InstanceMistake, TaskReport, TrainingReport

SAMPLE_SIDE = 160
"""Side of an augmented sample's cell in pixels."""


def render(template: str, *packages: str, **values: Any) -> str:
    """A page from a template in the folder of one of the packages, or in this one; what comes from data is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader([jinja2.PackageLoader(name, "") for name in (*packages, "hubel.reports")]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, duration=duration, cell=cell, figure=figure, split_label=split_label)
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return environment.get_template(template).render(values, version=hubel.__version__, written=written)


def data_url(content: bytes, kind: str) -> str:
    """The content of an image file as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def jpeg_url(image: Image.Image) -> str:
    """The image as a JPEG file in a data URL."""
    return data_url(_encoded(image, format="JPEG", quality=82), "jpeg")


def _encoded(image: Image.Image, **settings: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, **settings)
    return file.getvalue()


def write_report(folder: str | Path, report: TrainingReport, sections: TaskReport) -> Path:
    """Write a report into a run folder, which is made if it is missing.

    Returns the path of ``report.html``. It is self-contained and can be sent as a single file; its figures
    are in ``figures/`` as well.

    Raises:
        DataError: the folder cannot be written.
    """
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    # Those of the task's curves for which the history has a number.
    columns = {name for row in report.history for name, value in row.items() if value not in (None, "")}
    curves = {name: words for name, words in sections.curves.items() if {f"train_{name}", f"val_{name}"} & columns}
    charts = {}
    for name in curves:
        charts[f"curve_{name}"] = figures.to_png(figures.learning_curve(report.history, name, report.best_epoch))
    for split, scores in report.scores.items():
        charts |= {f"{name}_{split}": figures.to_png(chart) for name, chart in sections.charts(scores)}
    samples = [[_cell(pixels) for pixels in (each.original, *each.augmented)] for each in report.augmentation]
    sheet = {"augmentation": _encoded(_sheet(samples), format="PNG", optimize=True)} if samples else {}
    for name, png in (charts | sheet).items():
        with atomic_write(folder / "figures" / f"{name}.png") as file:
            file.write_bytes(png)
    mistakes: list[tuple[Any, str]] = []
    unreadable = []
    for mistake in report.mistakes:
        if isinstance(mistake, Comparison):
            mistakes.append((mistake, data_url(_encoded(_side_by_side(mistake), format="PNG", optimize=True), "png")))
            continue
        try:
            image = read_image(mistake.path)
        except ImageError:
            unreadable.append(mistake.path.name)
            continue
        if isinstance(mistake, InstanceMistake):
            image = _truth_and_found(image, mistake)
        elif mistake.boxes:
            image = draw_boxes(image, mistake.boxes)
        image.thumbnail((sections.mistakes_side, sections.mistakes_side), Image.Resampling.LANCZOS)
        mistakes.append((mistake, jpeg_url(image)))
    page = render(
        "report.html.jinja",
        sections.package,
        report=report,
        sections=sections,
        curves=curves,
        charts={name: data_url(png, "png") for name, png in charts.items()},
        headline=report.scores[report.headline_split] if report.headline_split else None,
        sentences=list(_sentences(report, sections)),
        splits={name: {"scores": scores, **sections.of_split(scores)} for name, scores in report.scores.items()},
        mistakes=mistakes,
        unreadable=unreadable,
        samples=[[jpeg_url(image) for image in row] for row in samples],
        configuration=dict(_flat(report.configuration)),
        environment=dict(_flat(report.environment)),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _sentences(report: TrainingReport, sections: TaskReport) -> Iterator[str]:
    """The headline in words, with a warning if the weights were chosen on the same images."""
    split = report.headline_split
    if split is not None:
        yield from sections.sentences(report.scores[split], split_label(split))
        if report.history and split != "test":
            yield CHOSEN_ON_THEM


def _cell(pixels: np.ndarray) -> Image.Image:
    """An array (H, W, C) as an image that fits a cell of the sheet."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    scale = SAMPLE_SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC)


def _sheet(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """All augmented samples in one image: a row each, the original first and set apart."""
    gap, apart = 6, 18
    columns = max(len(row) for row in rows)
    width = columns * (SAMPLE_SIDE + gap) + gap + apart
    sheet = Image.new("RGB", (width, len(rows) * (SAMPLE_SIDE + gap) + gap), "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            left = gap + x * (SAMPLE_SIDE + gap) + (apart if x else 0) + (SAMPLE_SIDE - image.width) // 2
            sheet.paste(image, (left, gap + y * (SAMPLE_SIDE + gap) + (SAMPLE_SIDE - image.height) // 2))
    return sheet


def _side_by_side(comparison: Comparison) -> Image.Image:
    """The panels in a row, each pixel twice as wide and high."""
    gap = 4
    images = [Image.fromarray(pixels) for _, pixels in comparison.panels]
    width, height = images[0].size
    row = Image.new("RGB", (len(images) * (width + gap) - gap, height), "white")
    for number, image in enumerate(images):
        row.paste(image, (number * (width + gap), 0))
    return row.resize((2 * row.width, 2 * row.height), Image.Resampling.NEAREST)


def _truth_and_found(image: Image.Image, mistake: InstanceMistake) -> Image.Image:
    """The image with the labelled objects, and beside it with those that were found."""
    panels = [
        draw_instances(image, [label for label, _ in side], [mask for _, mask in side])
        for side in (mistake.truth, mistake.found)
    ]
    width, height = panels[0].size
    gap = max(4, width // 80)
    both = Image.new("RGB", (2 * width + gap, height), "white")
    for number, panel in enumerate(panels):
        both.paste(panel, (number * (width + gap), 0))
    return both


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield f"{prefix}{name}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{name}", "–" if value is None else str(value)
