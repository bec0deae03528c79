"""What a report says that depends on the task."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from hubel.reports.records import TrainingReport


@dataclass(frozen=True)
class Sections:
    """One task's part of a report.

    Attributes:
        headline: template of the first section, shown where there are scores.
        scores: template of the section of a split.
        curves: columns of ``metrics.csv`` without ``train_`` and ``val_`` that are drawn over the epochs: what a curve
            shows, and its caption.
        charts: of a split's scores, by name.
        sentences: the headline in plain words.
        of_split: what the templates need of a split's scores beyond the scores themselves.
        mistakes: heading of the pictures of mistakes.
        mistakes_key: how to read them; begins with a space.
        mistakes_shown: template of the pictures.
        mistakes_side: longest side of each in pixels, about twice that on a phone's page, so that it is sharp.
    """

    headline: str
    scores: str
    curves: Mapping[str, tuple[str, str]]
    charts: Callable[[Any], Iterable[tuple[str, Figure]]]
    sentences: Callable[[TrainingReport], Iterable[str]]
    of_split: Callable[[Any], dict[str, Any]]
    mistakes: str
    mistakes_key: str = ""
    mistakes_shown: str = "mistakes.html.jinja"
    mistakes_side: int = 320
