"""Output of the commands: results on stdout, everything else on stderr, errors in two lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hubel.errors import UsageError
from hubel.fileio import json_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


def log(line: str) -> None:
    """Write a line to stderr."""
    print(line, file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """Write a JSON document to stdout, on one line; NaN becomes null."""
    print(json_line(value), flush=True)


def report_error(message: str, hint: str) -> None:
    """Write what is wrong and what to do about it to stderr, a line each."""
    log(f"error: {message}")
    log(f"hint:  {hint}")


def check_output_dir(option: str, out: Path | None, sources: Sequence[Path]) -> None:
    """Check that a new folder is not inside a data set that is read.

    Raises:
        UsageError: it is.
    """
    for source in sources:
        inside = source if source.is_dir() else source.parent
        if out is not None and out.resolve().is_relative_to(inside.resolve()):
            raise UsageError(f"{option} {out} is inside the data set", "name a folder outside it")


@contextmanager
def progress_bar(text: str = "images", total: int | None = None, shown: bool = True) -> Iterator[Callable[..., None]]:
    """A progress bar on stderr, if that is a terminal and ``shown``.

    Call its function without arguments to advance by one, or with the number done, the total and a new text.
    """
    if not (shown and sys.stderr.isatty()):
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(text, total=total)

        def advance(done: int | None = None, total: int | None = None, text: str | None = None) -> None:
            if done is None:
                bar.advance(task)
            else:
                bar.update(task, completed=done, total=total, description=text)

        yield advance


def make_table(titles: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1, rule: bool = True) -> Table:
    """A table without vertical lines; the first ``left`` columns are aligned to the left, the others to the right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if rule else None, pad_edge=False, collapse_padding=rule, header_style="bold")
    for index, title in enumerate(titles):
        table.add_column(title, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def print_table(table: RenderableType) -> None:
    """Print at the table's own width, so that no cell is cut off where stdout is a file or a narrow window."""
    from rich.console import Console

    console = Console(highlight=False)
    # Measured on a console without limits: the real one would measure no wider than itself.
    console.width = max(console.width, Console(width=10_000).measure(table).maximum)
    console.print(table)
