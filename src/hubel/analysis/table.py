"""A summary as a table in the style of the papers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hubel.analysis.layer_recorder import LayerRow
from hubel.tables import Table

if TYPE_CHECKING:
    from hubel.analysis.summary import Summary

_COLUMNS = (
    *("Layer", "Type", "Maps", "Size", "Kernel", "Stride", "Padding", "Activation"),
    *("Parameters", "Multiplications", "Memory", "Receptive\nfield"),
)
_WORDS = ("Layer", "Type", "Activation")  # columns of words, aligned to the left
_OPTIONAL = ("Padding", "Activation", "Memory", "Receptive\nfield", "Kernel", "Stride", "Type")
_NONE = "–"


def format_bytes(count: int) -> str:
    """A readable number of bytes: ``"12.0 MB"``, in powers of 1000."""
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 999.5:
            return f"{count} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def format_count(count: int) -> str:
    """A readable large number: ``"225 million"``."""
    for limit, word in ((1e9, "billion"), (1e6, "million")):
        if count >= limit:
            return f"{count / limit:.4g} {word}"
    return f"{count:,}"


def layer_table(summary: Summary) -> Table:
    """The layers, with the totals below.

    Memory is that of the layer's output; the receptive field is the side of a square of pixels, or "all" of them.
    """
    channels, height, width = summary.input
    rows: list[tuple[str, ...]] = [("in", "input", str(channels), f"{height}×{width}", *([_NONE] * 7), "1")]
    rows += [_cells(name, row) for name, row in zip(_short_names(summary.rows), summary.rows, strict=True)]
    return Table(_COLUMNS, rows, left=_WORDS, optional=_OPTIONAL, notes=_totals(summary))


def _cells(name: str, row: LayerRow) -> tuple[str, ...]:
    return (
        name,
        row.kind,
        str(row.output[0]),
        "×".join(map(str, row.output[1:])) or _NONE,
        _product(row.kernel),
        _NONE if row.stride is None else _one_or_product(row.stride),
        _padding(row),
        row.activation or _NONE,
        f"{row.parameters:,}" if row.parameters else _NONE,
        f"{row.multiplications:,}" if row.multiplications else _NONE,
        format_bytes(row.activation_bytes),
        "all" if row.receptive_field is None else str(row.receptive_field),
    )


def _product(sizes: tuple[int, int] | None) -> str:
    return _NONE if sizes is None else f"{sizes[0]}×{sizes[1]}"


def _one_or_product(sizes: tuple[int, int]) -> str:
    return str(sizes[0]) if sizes[0] == sizes[1] else _product(sizes)


def _padding(row: LayerRow) -> str:
    """``valid`` and ``same`` where that is what the pixels amount to, else their number."""
    if row.padding is None or isinstance(row.padding, str):
        return row.padding or _NONE
    if row.padding == (0, 0):
        return _NONE if row.kernel == row.stride or row.kernel == (1, 1) else "valid"
    halves = row.kernel is not None and all(
        2 * pixels == kernel - 1 for pixels, kernel in zip(row.padding, row.kernel, strict=True)
    )
    return "same" if halves and row.stride == (1, 1) else _one_or_product(row.padding)


def _short_names(rows: tuple[LayerRow, ...]) -> list[str]:
    """Names without backbone and head, where they stay distinct."""
    names = [row.name for row in rows]
    short = [re.sub(r"^(backbone|head)\.", "", name) for name in names]
    return short if len(set(short)) == len(set(names)) else names


def _totals(summary: Summary) -> list[str]:
    images = "one image" if summary.batch == 1 else f"a batch of {summary.batch}"
    saved = format_bytes(summary.saved_bytes)
    unused = summary.parameters - sum(row.parameters for row in summary.rows)
    note = f" ({unused:,} of them not used in prediction)" if unused else ""
    return [
        f"{summary.parameters:,} parameters{note}, {format_count(summary.multiplications)} multiplications per image",
        f"memory for {images} in {summary.dtype}:",
        f"  inference {format_bytes(summary.inference_bytes):>8}  parameters {format_bytes(summary.parameter_bytes)}, "
        f"largest set of tensors alive at one moment {format_bytes(summary.peak_activation_bytes)}",
        f"  training  {format_bytes(summary.training_bytes):>8}  parameters {format_bytes(summary.master_bytes)}, "
        f"gradients {format_bytes(summary.gradient_bytes)}, optimizer {format_bytes(summary.optimizer_bytes)}, "
        f"kept for the backward pass {saved}",
    ]
