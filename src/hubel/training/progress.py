"""Progress of a training run: a bar for the current epoch, a line for each finished one, TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hubel.console import ProgressBar
from hubel.errors import MissingExtraError


class TrainingDisplay:
    """Writes the progress of a training run to stderr: a line for each epoch, on a terminal a bar of its steps too.

    Args:
        epochs: of the run.
        quiet: write nothing, as all but one of several processes.
    """

    def __init__(self, epochs: int, quiet: bool = False) -> None:
        self._epochs, self._quiet = epochs, quiet
        self._bar = ProgressBar("training", visible=not quiet)

    def __enter__(self) -> TrainingDisplay:
        self._bar.__enter__()
        return self

    def __exit__(self, *details: object) -> None:
        self._bar.__exit__(*details)

    def log(self, line: str) -> None:
        """Write a line, above the bar."""
        if not self._quiet:
            self._bar.log(line)

    def start_epoch(self, epoch: int, phase: str, steps: int) -> None:
        """Begin the bar of an epoch."""
        self._bar.restart(f"epoch {epoch}/{self._epochs} {phase}", steps)

    def step(self, loss: float, images_per_second: float) -> None:
        """Count one batch."""
        self._bar.advance(note=f"loss {loss:.3f}  {images_per_second:.0f} images/s")

    def end_epoch(self, row: dict[str, Any], metrics: Mapping[str, str], best: bool) -> None:
        """Write a line with the epoch's losses and its metrics, whose names in messages are given by column."""
        parts = []
        for part, words in (("train", "train"), ("val", "validation")):
            named = [(f"{part}_{name}", text) for name, text in {"loss": "loss", **metrics}.items()]
            parts.append(" ".join([words, *(f"{text} {row[name]:.3f}" for name, text in named if name in row)]))
        self.log(
            f"epoch {row['epoch']:>3}/{self._epochs}  {row['phase']:<9}  {'  '.join(parts)}  "
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
