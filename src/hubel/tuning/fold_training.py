"""The training of one fold: as any training, but without reports, and scored after its last epoch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from hubel.config import TrainingConfig
from hubel.data.samples import ImageDataset
from hubel.data.splits import Splits
from hubel.fileio import write_text
from hubel.tasks.registry import get_task
from hubel.training.callbacks import Callback, Callbacks, RunStart
from hubel.training.checkpoint import load_checkpoint
from hubel.training.distributed import DistributedContext
from hubel.training.feature_store import FeatureStore
from hubel.training.finetune import plan_phases
from hubel.training.loop import fit
from hubel.training.progress import TrainingDisplay
from hubel.training.run_data import RunData
from hubel.training.run_folder import CHECKPOINT
from hubel.training.setup import build_training
from hubel.training.train import make_model, validate_before_run, worker_deaths_explained

DECISIONS = "decisions.json"
"""File of what is decided by measuring, in the folder of the search and in those of its trainings."""

_SAVING_INTERVAL = 20.0
"""Seconds of training that a killed search may lose. Writing a checkpoint after every epoch took as long as training
does where only a head is trained on features."""


@dataclass(frozen=True)
class Shared:
    """What the trainings of a search have in common, also those of a nested one.

    Attributes:
        folder: keeps what a first training decides by measuring (precision, workers): it holds for all, as their
            scores are compared.
        features: of a frozen backbone, which are computed once.
    """

    folder: Path
    features: FeatureStore = field(default_factory=FeatureStore)


@dataclass(frozen=True)
class FoldTask:
    """A fold to train.

    Attributes:
        folder: of this training; one that was interrupted there goes on after its last epoch.
        config: resolved.
        splits: ``train`` to train on, and ``val``, the fold, to score.
        early_epoch: last one of the part after which the trial may be stopped; ``None`` for none.
        kept: where the network goes that has the score; ``None`` if it is not kept.
    """

    folder: Path
    config: TrainingConfig
    splits: Splits
    early_epoch: int | None = None
    kept: Path | None = None


Ask = Callable[[float, float], bool]
"""From the score and seconds up to the early epoch to whether to stop."""


class Trainer(Protocol):
    """Trains folds, one after the other or up to ``at_a_time`` at a time."""

    at_a_time: int

    def train(
        self, task: FoldTask, ahead: Sequence[FoldTask], on_epoch: Callable[[], None], ask: Ask
    ) -> tuple[float, float] | None:
        """Score and seconds of a fold, as :func:`train_fold`; those ``ahead`` may be begun meanwhile."""

    def forget(self) -> None:
        """Stop what was begun ahead: it is not needed."""


class OneAtATime:
    """Trains folds in this process.

    Args:
        shared: with all trainings of the search.
        data: has the classes.
        stop_if_asked: called in each step; raises if the user has interrupted.
    """

    at_a_time = 1

    def __init__(self, shared: Shared, data: ImageDataset, stop_if_asked: Callable[[], None]) -> None:
        self._shared, self._data, self._stop_if_asked = shared, data, stop_if_asked

    def train(
        self, task: FoldTask, ahead: Sequence[FoldTask], on_epoch: Callable[[], None], ask: Ask
    ) -> tuple[float, float] | None:
        """See :class:`Trainer`; nothing is begun ahead."""
        self._stop_if_asked()
        return train_fold(self._shared, task, self._data, self._stop_if_asked, on_epoch, ask)

    def forget(self) -> None:
        """See :class:`Trainer`."""


def early_epoch(config: TrainingConfig) -> int | None:
    """The epoch after which a trial's first fold is compared with those of others; ``None`` for few epochs.

    A fraction of the training, not a number of epochs: what a schedule has reached by then is comparable among
    trainings of different lengths. A third of the last phase: before it, all of them have trained the head alone.
    """
    phase = plan_phases(config)[-1]
    epoch = phase.first_epoch - 1 + math.ceil(phase.epochs / 3)
    return epoch if epoch < phase.last_epoch else None


class _Stopped(Exception):
    """A training need not go on."""


class _Follower(Callback):
    """Calls a function after every epoch, and asks after the early one whether to go on.

    Of a training that is resumed behind that epoch, it asks at once: by the rows of its checkpoint.
    """

    def __init__(self, task: FoldTask, metric: str, on_epoch: Callable[[], None], ask: Ask) -> None:
        self._task, self._column = task, f"val_{metric}"
        self._on_epoch, self._ask = on_epoch, ask
        self._seconds = 0.0

    def on_run_start(self, run: RunStart) -> None:
        """See :class:`Callback`."""
        if run.epoch:
            for row in load_checkpoint(run.folder / CHECKPOINT, monitor=get_task(run.config.task).monitor)[0].history:
                self._passed(row)

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        """See :class:`Callback`."""
        self._on_epoch()
        self._passed(row)

    def _passed(self, row: Mapping[str, Any]) -> None:
        self._seconds += row["seconds"]
        if row["epoch"] == self._task.early_epoch and self._ask(float(row[self._column]), self._seconds):
            raise _Stopped


def train_fold(
    shared: Shared,
    task: FoldTask,
    data: ImageDataset,
    stop_if_asked: Callable[[], None],
    on_epoch: Callable[[], None],
    ask: Ask,
    trainings: int = 1,
) -> tuple[float, float] | None:
    """Train a fold and score it.

    The score is that of the last epoch: an epoch that is chosen on the images that score it would look better than it
    is. So training does not stop early either, unless ``ask`` says so.

    Args:
        shared: by all trainings of a search.
        task: what is trained.
        data: has the classes.
        stop_if_asked, on_epoch: called in each step, and after each epoch.
        ask: called after the early epoch, if the task has one.
        trainings: that share the memory and the cores of this machine.

    Returns:
        The first of the task's monitored metrics, and the seconds that the epochs took; ``None`` if it was stopped.
    """
    folder = task.folder
    config = replace(task.config, patience=task.config.epochs or 1)
    metric = get_task(config.task).monitor[0].removeprefix("-")
    model, metadata = make_model(config, data.classes, task.splits.train)
    validate_before_run(config, model, RunData(data, task.splits, ()))
    folder.mkdir(parents=True, exist_ok=True)
    if (shared.folder / DECISIONS).exists() and not (folder / DECISIONS).exists():
        write_text(folder / DECISIONS, (shared.folder / DECISIONS).read_text("utf-8"))
    with TrainingDisplay(config.epochs or 1, quiet=True) as display, worker_deaths_explained():
        processes = DistributedContext(on_this_machine=trainings)
        own = (folder, config, model, metadata, task.splits)
        training, _ = build_training(*own, display, processes, shared.features)
        training.stop_if_asked, training.saving_interval = stop_if_asked, _SAVING_INTERVAL
        training.callbacks = Callbacks([_Follower(task, metric, on_epoch, ask)])
        try:
            history = fit(training).history
        except _Stopped:
            history = []
    write_text(shared.folder / DECISIONS, (folder / DECISIONS).read_text("utf-8"))
    if not history:
        return None
    return float(history[-1][f"val_{metric}"]), sum(row["seconds"] for row in history)
