"""How every command speaks: results on stdout, everything else on stderr, errors in two lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubel.errors import UsageError
from hubel.fileio import json_line

if TYPE_CHECKING:
    from rich.console import RenderableType


def log(line: str) -> None:
    """Write one line for the person at the terminal to stderr."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Write one JSON document in one line to stdout; NaN becomes null, as JSON knows none."""
    print(json_line(value), flush=True)


def report_error(message: str, hint: str) -> None:
    """One line that names the fault, one that names the way out, on stderr."""
    log(f"error: {message}")
    log(f"hint:  {hint}")


def check_output_dir(option: str, out: Path | None, sources: Sequence[Path]) -> None:
    """See that a new folder lies in none of the data sets that are read.

    Raises:
        UsageError: it does.
    """
    for source in sources:
        inside = source if source.is_dir() else source.parent
        if out is not None and out.resolve().is_relative_to(inside.resolve()):
            raise UsageError(f"{option} {out} is inside the data set.", "Name a folder beside it.")


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, if that is a terminal; its function takes the number of pictures done and of all."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("pictures"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("pictures", total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def print_table(table: RenderableType) -> None:
    """Print at the table's own width, so that no cell is cut off where stdout is a file or a narrow window."""
    from rich.console import Console

    console = Console(highlight=False)
    # Measured on a console without limits: the real one would measure no wider than itself.
    console.width = max(console.width, Console(width=10_000).measure(table).maximum)
    console.print(table)
