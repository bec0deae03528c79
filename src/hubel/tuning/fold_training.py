"""The training of one fold: as any training, but without reports, and scored after its last epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hubel.config import TrainingConfig
from hubel.data.samples import ImageDataset
from hubel.data.splits import Splits
from hubel.fileio import write_text
from hubel.tasks.registry import get_task
from hubel.training.callbacks import Callback, Callbacks
from hubel.training.distributed import SINGLE_PROCESS
from hubel.training.feature_store import FeatureStore
from hubel.training.loop import fit
from hubel.training.progress import TrainingDisplay
from hubel.training.setup import build_training
from hubel.training.train import RunData, make_model, validate_before_run, worker_deaths_explained

_DECISIONS = "decisions.json"


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


class EveryEpoch(Callback):
    """Calls a function after every epoch."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def on_epoch_end(self, row: Mapping[str, Any]) -> None:
        """See :class:`Callback`."""
        self._call()


def train_fold(
    shared: Shared,
    folder: Path,
    config: TrainingConfig,
    data: ImageDataset,
    splits: Splits,
    stop_if_asked: Callable[[], None],
    on_epoch: Callable[[], None],
) -> tuple[float, float]:
    """Train on ``splits.train`` and score ``splits.val``.

    The score is that of the last epoch: an epoch that is chosen on the images that score it would look better than it
    is. So training does not stop early either.

    Args:
        shared: by all trainings of a search.
        folder: of this training; one that was interrupted there goes on after its last epoch.
        config: resolved.
        data: has the classes.
        stop_if_asked, on_epoch: called in each step, and after each epoch.

    Returns:
        The first of the task's monitored metrics, and the seconds that the epochs took.
    """
    config = replace(config, patience=config.epochs or 1)
    model, metadata = make_model(config, data.classes)
    validate_before_run(config, model, RunData(data, splits, ()))
    folder.mkdir(parents=True, exist_ok=True)
    if (shared.folder / _DECISIONS).exists() and not (folder / _DECISIONS).exists():
        write_text(folder / _DECISIONS, (shared.folder / _DECISIONS).read_text("utf-8"))
    with TrainingDisplay(config.epochs or 1, quiet=True) as display, worker_deaths_explained():
        training, _ = build_training(folder, config, model, metadata, splits, display, SINGLE_PROCESS, shared.features)
        training.stop_if_asked, training.callbacks = stop_if_asked, Callbacks([EveryEpoch(on_epoch)])
        history = fit(training).history
    write_text(shared.folder / _DECISIONS, (folder / _DECISIONS).read_text("utf-8"))
    metric = get_task(config.task).monitor[0].removeprefix("-")
    return float(history[-1][f"val_{metric}"]), sum(row["seconds"] for row in history)
