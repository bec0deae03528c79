"""Checkpoints: everything a resumed run needs, in one file that is replaced after every epoch.

The states of random generators are not in it: every epoch seeds them from the run's seed and its own number.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from hubel.errors import DataError
from hubel.fileio import atomic_write

WORKER_DEATH = "DataLoader worker"
"""In the message of the RuntimeError that torch raises in the main thread, wherever that is, when one has died."""


def selection_key(row: Mapping[str, Any], monitor: Sequence[str]) -> tuple[float, ...]:
    """Key of a row of ``metrics.csv`` by :attr:`hubel.tasks.base.Task.monitor`: the highest is the best epoch's."""
    return tuple(-row[f"val_{name[1:]}"] if name.startswith("-") else row[f"val_{name}"] for name in monitor)


@dataclass
class Progress:
    """Progress of a run: the last finished epoch and that of the weights in ``best/``, from 1; 0 before them.

    The history is a row per epoch, as in ``metrics.csv``.
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0

    def should_stop_early(self, patience: int) -> bool:
        """True if validation has not improved for ``patience`` epochs."""
        return self.epoch - self.best_epoch >= patience

    def add(self, row: dict[str, Any], monitor: Sequence[str]) -> bool:
        """Record a finished epoch; returns whether it is the best so far."""
        best = self.history[self.best_epoch - 1] if self.best_epoch else None
        better = best is None or selection_key(row, monitor) > selection_key(best, monitor)
        self.history.append(row)
        self.epoch = row["epoch"]
        if better:
            self.best_epoch = row["epoch"]
        return better


def save_checkpoint(path: Path, progress: Progress, tensors: dict[str, Any]) -> None:
    """Write the progress and the state dictionaries of model, optimizer, … whole or not at all."""
    with atomic_write(path) as temporary:
        try:
            torch.save({"progress": asdict(progress), **tensors}, temporary)
        except RuntimeError as error:  # torch's word for a full disk
            if WORKER_DEATH in str(error):
                raise
            raise DataError(
                f"{path} cannot be written: {error}", "free some space, then continue with --resume"
            ) from error


def load_checkpoint(path: Path, content: IO[bytes] | None = None) -> tuple[Progress, dict[str, Any]]:
    """Read what :func:`save_checkpoint` wrote, or its ``content`` from another machine; nothing in it is executed."""
    try:
        state = torch.load(content or path, weights_only=True, map_location="cpu")
        progress = Progress(**state.pop("progress"))
    except Exception as error:  # torch raises many kinds for damaged files
        raise DataError(f"{path} is damaged: {error}", "start a new run without --resume") from error
    return progress, state
