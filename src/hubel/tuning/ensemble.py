"""The networks of the best settings, one for each fold, as one model that averages their predictions."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from hubel.bounded import read_json
from hubel.config import TrainingConfig
from hubel.config_file import write_config
from hubel.data.samples import Sample
from hubel.data.splits import Splits, write_splits
from hubel.errors import ModelError, UsageError, WeightsError
from hubel.fileio import staged_directory, write_json
from hubel.models import create_model
from hubel.models.base import Model
from hubel.models.checkpoint import load_model, save_model
from hubel.models.ensemble import Ensemble
from hubel.models.metadata import ENSEMBLE, ModelMetadata
from hubel.models.metadata_checks import MOST_MEMBERS
from hubel.training.run_folder import CONFIG, SPLITS
from hubel.tuning.folds import Folds
from hubel.tuning.trials import Trial

_RECORD = "trial.json"


def check_members(folds: int) -> None:
    """Raise :class:`UsageError` if there are more folds than an ensemble can have networks."""
    if folds > MOST_MEMBERS:
        raise UsageError(f"folds = {folds}: an ensemble has at most {MOST_MEMBERS} networks", "use fewer folds")


def check_networks(config: TrainingConfig) -> None:
    """Raise :class:`UsageError` for networks whose predictions cannot be averaged, before they are trained."""
    with torch.device("meta"):
        network = create_model(config.model, image_size=config.image_size, weights=None, **config.options)
    if getattr(network, "selects_regions", False):
        message = f"--ensemble cannot average the boxes of several {config.model}: each has proposals of its own"
        raise UsageError(message, "omit --ensemble, or choose --model one_stage")


class Networks:
    """The trained networks of a search's best trial so far, and of those under way, in its folder ``networks/``.

    Where the images are divided several times, those of the first division. The folder, or that of the ensemble, tells
    a search that goes on that its networks become one.
    """

    def __init__(self, folder: Path) -> None:
        self._search = folder
        self._folder = folder / "networks"
        self._folder.mkdir(exist_ok=True)

    @staticmethod
    def are_kept(folder: Path) -> bool:
        """True for a search that was to make an ensemble, or has made one."""
        return (folder / "networks").is_dir() or (folder / ENSEMBLE).is_dir()

    def path(self, trial: int, fold: int) -> Path:
        """The folder of a network: of the trial with that number, without the fold at this index."""
        return self._folder / f"trial-{trial}-fold-{fold + 1}"

    def discard(self, trial: int) -> None:
        """Remove the networks of a trial that is not the best."""
        for path in self._folder.glob(f"trial-{trial}-*"):
            shutil.rmtree(path, ignore_errors=True)

    def join(
        self,
        best: Trial,
        folds: Folds,
        test: Sequence[Sample],
        root: Path,
        config: TrainingConfig,
        train: Callable[[int, Path], None],
    ) -> Path:
        """Make the best trial's networks one model, in the search's folder ``ensemble/``; returns its path.

        Beside the model are the records of a run, which say what was trained on and what was not. An ensemble of the
        same trial stays as it is.

        Args:
            best: finished on all folds.
            folds: of the search.
            test: images that it has not used.
            root: the data set's folder.
            config: of the trainings.
            train: trains without the fold of an index and leaves the network in a folder. Called where none was kept:
                the search was begun without an ensemble.
        """
        target, record = self._search / ENSEMBLE, {"trial": best.number, "scores": list(best.scores)}
        if not _is_recorded(target / _RECORD, record):
            loaded = [self._member(self.path(best.number, fold), fold, train) for fold in range(folds.count)]
            members, metadata = [network for network, _ in loaded], loaded[0][1]
            pool = tuple(sample for part in folds.parts[: folds.count] for sample in part)
            with staged_directory(target) as staged:
                save_model(staged, Ensemble(members), replace(metadata, members=len(members)))
                write_config(staged / CONFIG, config)
                write_splits(staged / SPLITS, Splits(pool, (), tuple(test)), root)
                write_json(staged / _RECORD, record)
                shutil.rmtree(target, ignore_errors=True)
                staged.rename(target)
        shutil.rmtree(self._folder, ignore_errors=True)
        return target

    def _member(self, path: Path, fold: int, train: Callable[[int, Path], None]) -> tuple[Model, ModelMetadata]:
        try:
            network, metadata = load_model(path)
        except (ModelError, WeightsError):  # none, or a damaged one
            train(fold, path)
            network, metadata = load_model(path)
        return cast(Model, network), metadata


def _is_recorded(path: Path, record: dict[str, Any]) -> bool:
    try:
        return bool(read_json(path) == record)
    except (OSError, ValueError):
        return False
