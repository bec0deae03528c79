"""Tables on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import RenderableType


def print_table(table: RenderableType) -> None:
    """Print at the table's own width, so that no cell is cut off where stdout is a file or a narrow window."""
    from rich.console import Console

    console = Console(highlight=False)
    # Measured on a console without limits: the real one would measure no wider than itself.
    console.width = max(console.width, Console(width=10_000).measure(table).maximum)
    console.print(table)
