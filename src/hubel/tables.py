"""Tables for terminals, at their width, and for notebooks."""

from __future__ import annotations

import html
import io
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hubel.terminal_text import printable

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_UNLIMITED = 10_000
_GAP = 2  # spaces between two columns
_SHOWN_CELLS = 3_000  # of a table in a notebook


@dataclass(frozen=True)
class Table:
    """Titles and rows of text, without vertical lines.

    Attributes:
        left: titles of the columns that are aligned to the left, or their number; the others are aligned to the right.
        rule: a line under the titles.
        optional: titles of the columns that a narrow terminal does without, the first to go first.
        notes: lines below the table.
    """

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int | Collection[str] = 1
    rule: bool = True
    optional: Sequence[str] = ()
    notes: Sequence[str] = ()

    def _is_left(self, column: int) -> bool:
        return column < self.left if isinstance(self.left, int) else self.titles[column] in self.left

    @property
    def width(self) -> int:
        """Columns of a terminal that the table takes."""
        return sum(self._widths()) + _GAP * (len(self.titles) - 1) + (2 if self.rule else 0)

    def _widths(self) -> list[int]:
        from rich.cells import cell_len

        cells = zip(self.titles, *([_lines(cell) for cell in row] for row in self.rows), strict=True)
        return [max((cell_len(line) for text in each for line in text.split("\n")), default=0) for each in cells]

    def fitted(self, width: int) -> tuple[Table, list[str]]:
        """The table without as many optional columns as it takes to fit, and the titles of these, on one line each."""
        dropped: list[str] = []
        table = self
        for title in self.optional:
            if table.width <= width:
                break
            table = table._without(title)
            dropped.append(" ".join(title.split("\n")))
        return table, dropped

    def _without(self, title: str) -> Table:
        kept = [index for index, each in enumerate(self.titles) if each != title]
        left = [self.titles[index] for index in kept if self._is_left(index)]
        rows = [[row[index] for index in kept] for row in self.rows]
        return replace(self, titles=[self.titles[index] for index in kept], rows=rows, left=left)

    def rich(self, fold: bool = False) -> RichTable:
        """The table for ``rich`` to print; with ``fold``, cells are broken where it has no room."""
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        style = box.SIMPLE_HEAD if self.rule else None
        table = RichTable(box=style, pad_edge=False, collapse_padding=self.rule, header_style="bold")
        for index, title in enumerate(self.titles):
            justify = "left" if self._is_left(index) else "right"
            table.add_column(title, justify=justify, no_wrap=not fold, overflow="fold")  # type: ignore[arg-type]
        for row in self.rows:
            table.add_row(*(Text(_lines(cell)) for cell in row))  # not a str, which rich searches for markup
        return table

    def text(self, width: int | None = None) -> str:
        """The table as plain text, by default as wide as it is, else fitted and its cells folded."""
        from rich.console import Console

        table, _ = self.fitted(width) if width else (self, [])
        fold = width is not None and table.width > width
        file = io.StringIO()
        Console(file=file, width=width if fold else _UNLIMITED, color_system=None).print(table.rich(fold))
        lines = [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]
        return "\n".join([*lines, *self.wrapped_notes(width)])

    def wrapped_notes(self, width: int | None) -> list[str]:
        """The notes as lines of at most ``width``, where words allow it."""
        notes = map(printable, self.notes)
        return list(notes) if width is None else [line for note in notes for line in _wrapped(note, width)]

    def html(self) -> str:
        """The table for a notebook or a page; of a very long one the beginning."""
        shown = max(1, _SHOWN_CELLS // max(1, len(self.titles)))
        align = ["left" if self._is_left(index) else "right" for index in range(len(self.titles))]
        lines = [_html_row("th", self.titles, align), *(_html_row("td", row, align) for row in self.rows[:shown])]
        more = [f"… and {len(self.rows) - shown} more rows"] if len(self.rows) > shown else []
        notes = "".join(f"<div>{html.escape(note)}</div>" for note in [*more, *self.notes])
        return f"<table>{''.join(lines)}</table>{notes}"


def _lines(cell: str) -> str:
    return "\n".join(map(printable, cell.split("\n")))


def _wrapped(note: str, width: int) -> list[str]:
    indent = " " * (len(note) - len(note.lstrip()) + 2)
    return textwrap.wrap(note, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False) or [""]


def records_table(records: Sequence[Mapping[str, Any]], notes: Sequence[str] = ()) -> Table:
    """A table of records with the same keys, which are its titles: scores of classes, metrics of splits."""
    titles = list(records[0]) if records else []
    words = [title for title in titles if isinstance(records[0][title], str)]
    rows = [[_cell(record.get(title)) for title in titles] for record in records]
    return Table(titles, rows, left=words, notes=notes)


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e6 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _html_row(tag: str, cells: Iterable[str], align: Sequence[str]) -> str:
    texts = (html.escape(cell).replace("\n", "<br>") for cell in cells)
    styled = (f'<{tag} style="text-align:{side}">{text}</{tag}>' for text, side in zip(texts, align, strict=True))
    return f"<tr>{''.join(styled)}</tr>"


def terminal_width() -> int | None:
    """Columns of the terminal that stdout is, or that ``COLUMNS`` says; None for a file or a pipe, without a limit."""
    if os.environ.get("COLUMNS", "").isdigit() or sys.stdout.isatty():
        return shutil.get_terminal_size().columns or None
    return None
