"""A bar for work that goes picture by picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def pictures_done() -> Iterator[Callable[[int, int], None] | None]:
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
