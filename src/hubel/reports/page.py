"""Writes ``report.html``: one file with every figure inside, and the figures beside it as PNG files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

import hubel
from hubel.metrics.classification import ClassificationScores, ClassMetrics
from hubel.reports import figures, pictures
from hubel.reports.data_pages import data_url
from hubel.reports.records import TrainingReport
from hubel.writing import replacing, write_text

CONFUSED_PAIRS = 20
"""How many of the most confused pairs of classes are listed."""


CSS_PIXELS_PER_INCH = 100
"""How large a figure is shown at most: its letters then are as large as the page's."""


def write_report(folder: str | Path, report: TrainingReport) -> Path:
    """Write a report into a run folder.

    Args:
        folder: where ``report.html`` and ``figures/`` go; made if it is missing.
        report: what there is to say.

    Returns:
        The path of ``report.html``. It asks nothing of the network and can be sent as a single file.

    Raises:
        DataError: the folder cannot be written.
    """
    folder = Path(folder)
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    charts = dict(_charts(report))
    rows = pictures.sample_rows(report.augmentation)
    sheet = {"augmentation": pictures.to_png(pictures.augmentation_sheet(rows))} if rows else {}
    for name, png in (charts | sheet).items():
        with replacing(folder / "figures" / f"{name}.png") as file:
            file.write_bytes(png)
    pictured, unreadable = pictures.read_mistakes(report.mistakes)
    page = _template().render(
        report=report,
        version=hubel.__version__,
        written=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M"),
        charts={name: data_url(png, "png") for name, png in charts.items()},
        headline=report.scores[report.headline_split] if report.headline_split else None,
        five_of_more=any(scores.top_n < len(scores.per_class) for scores in report.scores.values()),
        sentences=list(_sentences(report)),
        splits={name: _split(scores) for name, scores in report.scores.items()},
        mistakes=[(mistake, data_url(jpeg, "jpeg")) for mistake, jpeg in pictured],
        unreadable=unreadable,
        samples=[[data_url(pictures.to_jpeg(cell), "jpeg") for cell in row] for row in rows],
        configuration=dict(_flat(report.configuration)),
        environment=dict(_flat(report.environment)),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _charts(report: TrainingReport) -> Iterator[tuple[str, bytes]]:
    for quantity in ("loss", "top1") if report.history else ():
        figure = figures.learning_curve(report.history, quantity, report.best_epoch)
        yield f"curve_{quantity}", figures.to_png(figure)
    for split, scores in report.scores.items():
        names = [row.name for row in scores.per_class]
        yield f"confusion_{split}", figures.to_png(figures.confusion_matrix(scores.confusion, names))
        yield f"calibration_{split}", figures.to_png(figures.reliability_diagram(scores.calibration))


def _sentences(report: TrainingReport) -> Iterator[str]:
    """The headline in plain words: what was right, how sure that is, and what flatters it."""
    split = report.headline_split
    if split is None:
        return
    scores = report.scores[split]
    right = int(np.trace(scores.confusion))
    low, high = percent(scores.top1_low), percent(scores.top1_high)
    yield (
        f"Of the {scores.images:,} images of the {set_name(split)}, {right:,} were classified correctly. On more "
        f"pictures of the same kind the accuracy would likely lie between {low} and {high} "
        "(95\u202f% confidence interval)."
    )
    if scores.small:
        wide = (scores.top1_high - scores.top1_low) / 2
        yield (
            f"{scores.images:,} images are few: a model whose accuracy differs from this by less than about "
            f"{100 * wide * math.sqrt(2):.1f} points may differ by chance alone."
        )
    if report.history and split != "test":
        yield (
            "The weights that were kept were chosen on these images, so the figures flatter a little; only a "
            "test set that took no part in any choice is free of that."
        )


def _split(scores: ClassificationScores) -> dict[str, Any]:
    """One split's material for the template, beyond the scores themselves."""
    return {
        "scores": scores,
        "labelled": len(scores.per_class) <= figures.LABELLED_CLASSES,
        "confused": confused_pairs(scores, CONFUSED_PAIRS),
        "calibration": _calibration_sentence(scores),
        "matrix_width": figures.confusion_width(len(scores.per_class)) * CSS_PIXELS_PER_INCH,
        "classes": sorted(scores.per_class, key=_weakest_first),
    }


def _weakest_first(row: ClassMetrics) -> tuple[bool, float]:
    return row.images == 0, row.f1


def confused_pairs(scores: ClassificationScores, count: int) -> list[tuple[str, str, int, float]]:
    """The most frequent confusions.

    Args:
        scores: of a split.
        count: how many pairs at most.

    Returns:
        Truth, prediction, number of images, share of the true class's images; most frequent first, equally
        frequent ones by their share.
    """
    pairs = []
    for truth, predicted in zip(*np.nonzero(scores.confusion), strict=True):
        if truth != predicted:
            row, images = scores.per_class[truth], int(scores.confusion[truth, predicted])
            pairs.append((row.name, scores.per_class[predicted].name, images, images / row.images))
    return sorted(pairs, key=lambda pair: (-pair[2], -pair[3]))[:count]


def _calibration_sentence(scores: ClassificationScores) -> str:
    confidence = sum(row.images * row.confidence for row in scores.calibration) / scores.images
    means = f"Mean confidence {percent(confidence)}, accuracy {percent(scores.top1)}"
    if confidence > scores.top1 + 0.02:
        return f"{means}: the model is surer than it should be."
    if confidence < scores.top1 - 0.02:
        return f"{means}: the model is less sure than it could be, as label smoothing and mixup make it."
    return f"{means}: on the whole the probabilities mean what they say."


def set_name(split: str) -> str:
    """What a split is called in a sentence, such as "validation set"."""
    names = {"train": "training set", "val": "validation set", "all": "whole data set"}
    return names.get(split, f"{split} set")


def percent(share: float) -> str:
    """A fraction as a person reads it, such as ``95.2 %``."""
    return f"{100 * share:.1f}\u202f%"


def duration(seconds: float) -> str:
    """Seconds as a person reads them, such as ``0.42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def cell(value: Any) -> str:
    """A value of ``metrics.csv`` for the table of epochs: four significant digits, empty where there is none."""
    try:
        value = figures.number(value)
    except ValueError:
        return str(value)
    return "" if math.isnan(value) else f"{value:.4g}"


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield f"{prefix}{name}", ", ".join(str(item) for item in value)
        else:
            yield f"{prefix}{name}", "–" if value is None else str(value)


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(percent=percent, duration=duration, cell=cell, set_name=set_name)
    source = files("hubel.reports").joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(source)
