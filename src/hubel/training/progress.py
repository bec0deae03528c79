"""Progress of a training run: a bar for the current epoch, a line for each finished one."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

from hubel.console import ProgressBar, activity


class TrainingDisplay(ProgressBar):
    """Writes the progress of a training run to stderr: a line for each epoch, on a terminal a bar of its steps too.

    A quiet one, as in all but one of several processes, writes nothing. ``later`` is the number of epochs that the run
    has after these.
    """

    def __init__(self, epochs: int, quiet: bool = False, later: int = 0) -> None:
        super().__init__("preparing", visible=not quiet, lines=True)
        self.epochs, self._quiet, self._later = epochs, quiet, later
        self._announced: set[str] = set()
        self._epoch_seconds, self._epochs_left = 0.0, 0
        self.started, self.seconds = time.perf_counter(), dict[str, float]()

    def log(self, line: str) -> None:
        """Write a line, above the bar."""
        if not self._quiet:
            super().log(line)

    @contextmanager
    def stage(self, label: str) -> Iterator[None]:
        """Show what is done, and add the time that it takes to :attr:`seconds`."""
        start = time.perf_counter()
        if self.visible:
            self.restart(label, None)
        with nullcontext() if self.visible or self._quiet else activity(label):
            yield
        self.seconds[label] = self.seconds.get(label, 0.0) + time.perf_counter() - start

    def announce_trial(self, what: str) -> None:
        """Show what is timed to choose the fastest; where it is a line, once."""
        if self.visible:
            self.restart(f"timing {what}", None)
        elif what not in self._announced:
            self._announced.add(what)
            self.log(f"timing {what}")

    def advance_epoch(self, note: str) -> None:
        """Count a training step; from the second epoch on, behind the note stands what is left of the whole run."""
        if self._epoch_seconds and self._total:
            epochs = self._epochs_left - (self._done + 1) / self._total
            left = timedelta(seconds=round(max(0.0, epochs) * self._epoch_seconds))
            note = f"{note}  run: at most {left} left"
        self.advance(note=note)

    def end_epoch(self, row: dict[str, Any], metrics: Mapping[str, str], best: bool) -> None:
        """Write a line with the epoch's losses and its metrics, whose names in messages are given by column."""
        self._epoch_seconds, self._epochs_left = row["seconds"], self._later + self.epochs - row["epoch"]
        parts = []
        for part, words in (("train", "train"), ("val", "validation")):
            named = [(f"{part}_{name}", text) for name, text in {"loss": "loss", **metrics}.items()]
            parts.append(" ".join([words, *(f"{text} {row[name]:.3f}" for name, text in named if name in row)]))
        self.log(
            f"epoch {row['epoch']:>3}/{self.epochs}  {row['phase']:<9}  {'  '.join(parts)}  "
            f"{row['seconds']:.0f} s{'  best so far' if best else ''}"
        )
