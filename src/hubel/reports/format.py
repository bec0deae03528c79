"""Numbers and names as a person reads them in a report."""

from __future__ import annotations

import math
from typing import Any

CONFUSED_PAIRS = 20
"""Number of the most confused pairs of classes that a report lists."""

CHOSEN_ON_THEM = (
    "The saved weights were chosen on these images, so the metrics are slightly optimistic; only a test set that "
    "played no part in any choice is free of that."
)


def split_label(split: str) -> str:
    """The name of a split in a sentence, such as "validation set"."""
    names = {"train": "training set", "val": "validation set", "all": "whole data set"}
    return names.get(split, f"{split} set")


def percent(share: float) -> str:
    """A fraction as a person reads it, such as ``95.2 %``."""
    return f"{100 * share:.1f}\u202f%"


def figure(value: float | None) -> str:
    """A score of three decimals; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


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


def number(value: Any) -> float:
    """A value of ``metrics.csv`` as a number; NaN where it is empty."""
    return math.nan if value is None or value == "" else float(value)


def cell(value: Any) -> str:
    """A value of ``metrics.csv`` for the table of epochs: four significant digits, empty where there is none."""
    try:
        value = number(value)
    except ValueError:
        return str(value)
    return "" if math.isnan(value) else f"{value:.4g}"
