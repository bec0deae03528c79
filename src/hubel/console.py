"""Output of the commands: results on stdout, everything else on stderr, errors in two lines."""

from __future__ import annotations

import os
import sys
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hubel.errors import UsageError
from hubel.fileio import json_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import Progress
    from rich.table import Table


_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they reorder what follows


_LONGEST = 2_000  # characters of a message


def printable(text: str) -> str:
    """A name from a file as it may be shown in a line of text.

    Control characters, which can command a terminal, become visible escapes, line breaks and tabs among them, and so do
    changes of direction and halves of surrogate pairs, which have no encoding.
    """
    if text.isprintable():
        return text
    return "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    if letter not in _DIRECTIONS and unicodedata.category(letter) not in ("Cc", "Cs", "Zl", "Zp"):
        return letter
    return letter.encode("unicode_escape", "surrogatepass").decode("ascii")


def log(line: str) -> None:
    """Write a line, or several, to stderr; control characters in them as :func:`printable` shows them."""
    print("\n".join(map(printable, line.split("\n"))), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Write a JSON document to stdout, on one line; NaN becomes null."""
    print(json_line(value), flush=True)


def report_error(message: str, hint: str) -> None:
    """Write what is wrong and what to do about it to stderr, a line each, and no more of it than a person reads."""
    for label, text in (("error:", message), ("hint: ", hint)):
        line = printable(text.replace("\n", " "))
        log(f"{label} {line if len(line) <= _LONGEST else line[:_LONGEST] + ' …'}")


def check_output_dir(option: str, out: Path | None, sources: Sequence[Path]) -> None:
    """Raise :class:`UsageError` if a new folder is inside a data set that is read."""
    for source in sources:
        inside = source if source.is_dir() else source.parent
        if out is not None and out.resolve().is_relative_to(inside.resolve()):
            raise UsageError(f"{option} {out} is inside the data set", "choose a folder outside it")


def count_of(number: int, noun: str) -> str:
    """A number with its noun: ``1 epoch``, ``1,200 images``, ``2 classes``."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "ch", "sh")) else "s"
    return f"{number:,} {noun}{ending}"


def is_terminal() -> bool:
    """True if stderr is a terminal that moves its cursor: where a bar can be drawn."""
    return sys.stderr.isatty() and os.environ.get("TERM", "") not in ("dumb", "unknown")


_FIRST_LINE, _FURTHER_LINES = 2.0, 30.0
"""Seconds until work says what it does where no bar can be drawn, and between two such lines."""


@contextmanager
def activity(label: str) -> Iterator[None]:
    """Name on stderr what may take a while: with a running clock on a terminal, elsewhere as a line after two seconds.

    Not for blocks that write to stderr themselves.
    """
    if not is_terminal():
        timer = threading.Timer(_FIRST_LINE, log, [f"{label} …"])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
        return
    from rich import progress as rich_progress
    from rich.console import Console

    columns = rich_progress.TextColumn("{task.description}", markup=False), rich_progress.TimeElapsedColumn()
    console = Console(stderr=True, highlight=False)
    with rich_progress.Progress(rich_progress.SpinnerColumn(), *columns, console=console, transient=True) as shown:
        shown.add_task(label, total=None)
        yield


class ProgressBar:
    """A labelled bar on stderr with counts and the remaining time.

    Where stderr is not a terminal it is silent, or with ``lines`` writes a line after two seconds and then twice a
    minute. ``total`` is ``None`` if it is not known; ``in_bytes`` shows the counts as sizes of files.
    """

    def __init__(
        self,
        label: str,
        total: int | None = None,
        *,
        done: int = 0,
        in_bytes: bool = False,
        visible: bool = True,
        lines: bool = False,
    ) -> None:
        self._progress: Progress | None = None
        self._lines = lines and visible
        self._label, self._total, self._done = label, total, done
        self._next_line = time.monotonic() + _FIRST_LINE
        if visible and is_terminal():
            from rich import progress as rich_progress
            from rich.console import Console

            self._progress = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}", markup=False),
                rich_progress.BarColumn(),
                rich_progress.DownloadColumn() if in_bytes else rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("{task.fields[note]}", markup=False),
                rich_progress.TimeRemainingColumn(),
                console=Console(stderr=True, highlight=False, soft_wrap=True),
                transient=True,
            )
            self._task = self._progress.add_task(label, total=total, completed=done, note="")

    @property
    def visible(self) -> bool:
        """True if the bar is shown."""
        return self._progress is not None

    def __enter__(self) -> Self:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def restart(self, label: str, total: int | None) -> None:
        """Replace the bar by an empty one."""
        self._label, self._total, self._done = label, total, 0
        if self._progress is not None:
            self._progress.remove_task(self._task)
            self._task = self._progress.add_task(label, total=total, note="")

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count further steps; ``note`` stands behind the counts."""
        self._done += count
        if self._progress is not None:
            self._progress.update(self._task, advance=count, note=note)
        else:
            self._write_line(note)

    def update(self, done: int, total: int, label: str | None = None) -> None:
        """Set the counts, and another label if one is given."""
        self._label, self._total, self._done = label or self._label, total, done
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total, description=label)
        else:
            self._write_line()

    def log(self, line: str) -> None:
        """Write a line to stderr, above the bar."""
        if self._progress is not None:
            self._progress.console.print(line, markup=False)
        else:
            self._next_line = time.monotonic() + _FURTHER_LINES
            log(line)

    def _write_line(self, note: str = "") -> None:
        if self._lines and time.monotonic() >= self._next_line:
            total = "" if self._total is None else f" of {self._total:,}"
            self.log("  ".join(part for part in (f"{self._label}: {self._done:,}{total}", note) if part))


def make_table(titles: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, rule: bool = True) -> Table:
    """A table without vertical lines; the first ``left`` columns are aligned to the left, the others to the right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD if rule else None, pad_edge=False, collapse_padding=rule, header_style="bold")
    for index, title in enumerate(titles):
        table.add_column(title, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # not a str, which rich searches for markup
    return table


def print_table(table: RenderableType) -> None:
    """Print at the table's own width, so that no cell is cut off where stdout is a file or a narrow window."""
    from rich.console import Console

    console = Console(highlight=False)
    # Measured on a console without limits: the real one would measure no wider than itself.
    console.width = max(console.width, Console(width=10_000).measure(table).maximum)
    console.print(table)
