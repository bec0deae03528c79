"""Writes ``report.html``: one file with every figure inside, and the figures beside it as PNG files."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

import hubel
from hubel.fileio import atomic_write, write_text
from hubel.reports import figures, images
from hubel.reports.format import CHOSEN_ON_THEM, cell, duration, figure, percent, split_label
from hubel.reports.report_data import TaskReport, TrainingReport


def page_from(template: str, **values: Any) -> str:
    """A page from one of the templates beside this file; everything that comes from data is escaped."""

    def source(name: str) -> str:
        return files("hubel.reports").joinpath(name).read_text(encoding="utf-8")

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(source),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def data_url(content: bytes, kind: str) -> str:
    """The content of an image file as a data URL."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def write_report(folder: str | Path, report: TrainingReport, sections: TaskReport) -> Path:
    """Write a report into a run folder.

    Args:
        folder: where ``report.html`` and ``figures/`` go; made if it is missing.
        report: its data.
        sections: of the task.

    Returns:
        The path of ``report.html``. It asks nothing of the network and can be sent as a single file.

    Raises:
        DataError: the folder cannot be written.
    """
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    charts = dict(_charts(report, sections))
    rows = images.sample_rows(report.augmentation)
    sheet = {"augmentation": images.to_png(images.augmentation_sheet(rows))} if rows else {}
    for name, png in (charts | sheet).items():
        with atomic_write(folder / "figures" / f"{name}.png") as file:
            file.write_bytes(png)
    shown, unreadable = images.read_mistakes(report.mistakes, sections.mistakes_side)
    page = _template(sections.package).render(
        report=report,
        sections=sections,
        curves=_curves(report, sections),
        version=hubel.__version__,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        charts={name: data_url(png, "png") for name, png in charts.items()},
        headline=report.scores[report.headline_split] if report.headline_split else None,
        sentences=list(_sentences(report, sections)),
        splits={name: {"scores": scores, **sections.of_split(scores)} for name, scores in report.scores.items()},
        mistakes=[(mistake, data_url(jpeg, "jpeg")) for mistake, jpeg in shown],
        unreadable=unreadable,
        samples=[[data_url(images.to_jpeg(cell), "jpeg") for cell in row] for row in rows],
        configuration=dict(_flat(report.configuration)),
        environment=dict(_flat(report.environment)),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _charts(report: TrainingReport, sections: TaskReport) -> Iterator[tuple[str, bytes]]:
    for quantity in _curves(report, sections):
        figure = figures.learning_curve(report.history, quantity, report.best_epoch)
        yield f"curve_{quantity}", figures.to_png(figure)
    for split, scores in report.scores.items():
        yield from ((f"{name}_{split}", figures.to_png(figure)) for name, figure in sections.charts(scores))


def _sentences(report: TrainingReport, sections: TaskReport) -> Iterator[str]:
    """The headline in words, with a warning if the weights were chosen on the same images."""
    split = report.headline_split
    if split is not None:
        yield from sections.sentences(report.scores[split], split_label(split))
        if report.history and split != "test":
            yield CHOSEN_ON_THEM


def _curves(report: TrainingReport, sections: TaskReport) -> dict[str, tuple[str, str]]:
    """Those of the task's curves for which the history has a number."""
    columns = {name for row in report.history for name, value in row.items() if value not in (None, "")}
    return {name: words for name, words in sections.curves.items() if {f"train_{name}", f"val_{name}"} & columns}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield f"{prefix}{name}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{name}", "–" if value is None else str(value)


def _template(package: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.FunctionLoader(partial(_source, name)) for name in (package, "hubel.reports")]
        ),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=percent, duration=duration, cell=cell, figure=figure, split_label=split_label)
    return environment.get_template("report.html.jinja")


def _source(package: str, name: str) -> str | None:
    """Text of a template in the folder of a package, if it is there."""
    file = files(package).joinpath(name)
    return file.read_text(encoding="utf-8") if file.is_file() else None
