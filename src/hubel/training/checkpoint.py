"""Checkpoints: everything a resumed run needs, in one file that is replaced after every epoch.

The states of random generators are not in it: every epoch seeds them from the run's seed and its own number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from hubel.errors import DataError, ResumableError, WeightsError
from hubel.fileio import atomic_write
from hubel.models.load_checked import is_finite, load_checked
from hubel.weights.torch_files import first_line

WORKER_DEATH = "DataLoader worker"
"""In the message of the RuntimeError that torch raises in the main thread, wherever that is, when one has died."""


def selection_key(row: Mapping[str, Any], monitor: Sequence[str]) -> tuple[float, ...]:
    """Key of a row of ``metrics.csv`` by :attr:`hubel.tasks.base.Task.monitor`: the highest is the best epoch's."""
    return tuple(-row[f"val_{name[1:]}"] if name.startswith("-") else row[f"val_{name}"] for name in monitor)


@dataclass
class Progress:
    """Progress of a run: the last finished epoch and that of the weights in ``best/``, from 1; 0 before them.

    The history is a row per epoch, as in ``metrics.csv``. ``monitor`` is :attr:`hubel.tasks.base.Task.monitor`.
    """

    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0

    def should_stop_early(self, patience: int, monitor: Sequence[str]) -> bool:
        """True if validation has not improved for ``patience`` epochs."""
        return self.epoch - (self._highest(monitor)["epoch"] if self.history else 0) >= patience

    def add(
        self, row: dict[str, Any], monitor: Sequence[str], margin: Callable[[float], float] = lambda best: 0.0
    ) -> bool:
        """Record a finished epoch; returns whether its weights are those to keep.

        They are if it is better than all before, or in the first metric less than ``margin`` of the best score worse.
        """
        key = selection_key(row, monitor)
        highest = selection_key(self._highest(monitor), monitor) if self.history else None
        better = highest is None or key > highest or key[0] > highest[0] - margin(highest[0])
        self.history.append(row)
        self.epoch = row["epoch"]
        if better:
            self.best_epoch = row["epoch"]
        return better

    def _highest(self, monitor: Sequence[str]) -> dict[str, Any]:
        """The row of the best scores, the first among equals."""
        return max(self.history, key=lambda row: selection_key(row, monitor))


def save_checkpoint(path: Path, progress: Progress, tensors: dict[str, Any]) -> None:
    """Write the progress and the state dictionaries of model, optimizer, … whole or not at all."""
    with atomic_write(path) as temporary:
        try:
            torch.save({"progress": asdict(progress), **tensors}, temporary)
        except RuntimeError as error:  # torch's word for a full disk
            if WORKER_DEATH in str(error):
                raise
            raise ResumableError(
                f"{path} cannot be written: {error}", "free some space, then continue with --resume"
            ) from error


def load_checkpoint(
    path: Path, content: IO[bytes] | None = None, monitor: Sequence[str] = ()
) -> tuple[Progress, dict[str, Any]]:
    """Read what :func:`save_checkpoint` wrote, or its ``content`` from another machine; nothing in it is executed.

    ``monitor`` has the metrics that a run selects its best epoch by. Raises :class:`DataError` for a damaged file.
    """
    try:
        state = torch.load(content or path, weights_only=True, map_location="cpu")
        progress = Progress(**state.pop("progress"))
        _check_progress(progress, monitor)
    except Exception as error:  # torch raises many kinds for damaged files
        raise _damaged(path, first_line(error)) from error
    return progress, state


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(f"{path} is damaged: {reason}", "start a new run without --resume")


def _check_progress(progress: Progress, monitor: Sequence[str]) -> None:
    """Raise :class:`ValueError` unless there is a row for each epoch, with numbers that the best was chosen by."""
    numbers = [row["epoch"] for row in progress.history]
    last, best = progress.epoch, progress.best_epoch
    counted = numbers == list(range(1, len(numbers) + 1)) and last == len(numbers)
    if not (counted and type(last) is type(best) is int and min(last, 1) <= best <= last):
        raise ValueError(f"it has rows of {len(numbers)} epochs, not of those up to {last!r:.40}, best {best!r:.40}")
    for row in progress.history:
        is_plain = all(isinstance(value, int | float | str | None) for value in row.values())
        selection = (*selection_key(row, monitor), row["seconds"])
        if not is_plain or set(row) - set(progress.history[0]) or not all(map(math.isfinite, selection)):
            raise ValueError(f"the row of epoch {row['epoch']} is not one of metrics.csv")


def restore(path: Path, state: Mapping[str, Any], optimizer: torch.optim.Optimizer, **modules: nn.Module) -> None:
    """Put what a checkpoint holds into an optimizer, and into modules by their names in it.

    Of the optimizer it is the averages of gradients; its settings are the configuration's.

    Raises:
        DataError: they do not fit.
    """
    for name, module in modules.items():
        restore_module(path, state, name, module)
    try:
        tensors = _optimizer_tensors(optimizer, state["optimizer"])
        optimizer.load_state_dict({**optimizer.state_dict(), "state": tensors})
    except Exception as error:
        raise _damaged(path, f"its optimizer does not fit ({first_line(error)})") from error


def restore_module(path: Path, state: Mapping[str, Any], name: str, module: nn.Module) -> None:
    """Put weights of a checkpoint into a module; raises :class:`DataError` if they do not fit, or are not finite."""
    weights = state.get(name)
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise _damaged(path, f"it has no weights of {name}")
    try:
        load_checked(module, weights, f"{path}, {name}")
    except WeightsError as error:
        raise _damaged(path, error.message) from error


_OF_OPTIMIZERS: Mapping[type, set[str]] = {
    torch.optim.SGD: {"momentum_buffer"},
    torch.optim.AdamW: {"step", "exp_avg", "exp_avg_sq"},
}
"""What an optimizer keeps of each parameter, all of its shape but ``step``."""


def _optimizer_tensors(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> dict[int, dict[str, Any]]:
    """The tensors in an optimizer's state dictionary, by the number of their parameter; raises :class:`ValueError`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    found: dict[int, dict[str, Any]] = {}
    for index, kept in state["state"].items():
        if type(index) is not int or not 0 <= index < len(parameters) or set(kept) != _OF_OPTIMIZERS[type(optimizer)]:
            raise ValueError(f"{index!r:.40} is not one of its {len(parameters)} parameters")
        for name, tensor in kept.items():
            if tensor is None and name == "momentum_buffer":  # of a parameter without a gradient so far
                continue
            shape = () if name == "step" else parameters[index].shape
            if tensor.shape != shape or tensor.dtype != torch.float32 or not is_finite(tensor):
                raise ValueError(f"{name} of parameter {index} has other shapes or values")
        found[index] = {name: _dense(tensor) for name, tensor in kept.items()}
    return found


def _dense(tensor: Tensor | None) -> Tensor | None:
    """A tensor of which every value has its own place in memory: optimizers change them where they are."""
    if tensor is None or tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor
    return tensor.clone()
