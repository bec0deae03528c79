"""Progress of a training run: a bar for the current epoch, a line for each finished one, TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from hubel.errors import MissingExtraError


def check_progress() -> Callable[[int, int], None] | None:
    """A callback (done, of) that shows the progress of the check of the images; ``None`` without a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return None

    def show(done: int, of: int) -> None:
        console.print(f"checking images {done}/{of}", end="\r" if done < of else "\n")

    return show


class TrainingDisplay:
    """Writes to stderr; the bar only where that is a terminal.

    Args:
        epochs: of the run.
        quiet: write nothing, as all but one of several processes.
    """

    def __init__(self, epochs: int, quiet: bool = False) -> None:
        self._epochs = epochs
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> TrainingDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def log(self, line: str) -> None:
        """A line above the bar."""
        self._console.print(line, markup=False)

    def start_epoch(self, epoch: int, phase: str, steps: int) -> None:
        """A new bar."""
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(f"epoch {epoch}/{self._epochs} {phase}", total=steps, figures="")

    def step(self, loss: float, images_per_second: float) -> None:
        """One batch further."""
        if self._task is not None:
            figures = f"loss {loss:.3f}  {images_per_second:.0f} images/s"
            self._bar.update(self._task, advance=1, figures=figures)

    def end_epoch(self, row: dict[str, Any], metrics: Mapping[str, str], best: bool) -> None:
        """Write a line with the epoch's losses and its metrics, whose names in messages are given by column."""
        figures = []
        for part, words in (("train", "train"), ("val", "validation")):
            named = [(f"{part}_{name}", text) for name, text in {"loss": "loss", **metrics}.items()]
            figures.append(" ".join([words, *(f"{text} {row[name]:.3f}" for name, text in named if name in row)]))
        self.log(
            f"epoch {row['epoch']:>3}/{self._epochs}  {row['phase']:<9}  {'  '.join(figures)}  "
            f"{row['seconds']:.0f} s{'  best so far' if best else ''}"
        )


def require_tensorboard() -> None:
    """Raise :class:`MissingExtraError` where TensorBoard is not installed."""
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        raise MissingExtraError("--tensorboard", "tensorboard") from None


def write_scalars(folder: Path, row: dict[str, Any]) -> None:
    """Append the numbers of one epoch's row to the event files in ``folder``."""
    from torch.utils.tensorboard.writer import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, value in row.items():
            if isinstance(value, int | float) and name != "epoch":
                writer.add_scalar(name, value, row["epoch"])
