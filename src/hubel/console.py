"""Output of the commands: results on stdout, everything else on stderr, errors in two lines."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from hubel.errors import UsageError
from hubel.fileio import json_line
from hubel.tables import Table, terminal_width
from hubel.terminal_text import printable as printable

if TYPE_CHECKING:
    from rich.progress import Progress


_LONGEST = 2_000  # characters of a message


def log(line: str) -> None:
    """Write a line, or several, to stderr; control characters in them as :func:`printable` shows them."""
    print("\n".join(map(printable, line.split("\n"))), file=sys.stderr, flush=True)


def show(text: str = "") -> None:
    """Write a line, or several, to stdout; control characters in them, of names in files, as :func:`log` does."""
    print("\n".join(map(printable, text.split("\n"))), flush=True)


def print_json(value: Any) -> None:
    """Write a JSON document to stdout, on one line; NaN becomes null, and what stdout cannot encode JSON's escapes."""
    text = json_line(value)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json_line(value, ascii_only=True)
    print(text, flush=True)


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


def count_of(number: int, noun: str, verb: str = "") -> str:
    """A number with its noun: ``1 epoch``, ``1,200 images``, ``2 classes``; ``have`` after it gives ``1 image has``."""
    ending = "" if number == 1 else "es" if noun.endswith(("s", "x", "sh", "tch", "nch")) else "s"
    if verb and number == 1:
        verb = {"have": "has", "are": "is"}.get(verb, f"{verb}s")
    return f"{number:,} {noun}{ending} {verb}".rstrip()


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


def print_table(table: Table) -> None:
    """Print a table to stdout, fitted to the terminal; what a narrow one has no room for is named on stderr.

    Where stdout is a file or a pipe, nothing is left out or cut off.
    """
    from rich.console import Console

    width = terminal_width()
    fitted, dropped = table.fitted(width) if width else (table, [])
    fold = width is not None and fitted.width > width
    console = Console(highlight=False)
    console.width = width if width and fold else max(fitted.width, console.width)
    console.print(fitted.rich(fold))
    for note in table.wrapped_notes(width):
        print(note)
    if dropped:
        log(f"note:  {width} columns are too few for {', '.join(dropped)}: widen the window, or use --json")
