"""``study.db``: the trials of a search in Optuna's own form, an SQLite file that each change leaves whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from sqlalchemy.exc import DBAPIError

from hubel.errors import DataError
from hubel.tuning.space import Choices, Plain, Space
from hubel.tuning.trials import Estimate, State, Trial

STUDY_FILE = "study.db"
_NAME = "hubel"
_FOLDS, _EARLY, _ERROR = "scores and seconds of the folds", "score and seconds early in the first fold", "error"

_STATES = {
    optuna.trial.TrialState.COMPLETE: State.FINISHED,
    optuna.trial.TrialState.PRUNED: State.STOPPED,
    optuna.trial.TrialState.FAIL: State.FAILED,
}
ENDS = {state: theirs for theirs, state in _STATES.items()}
"""Optuna's word for how a trial ended."""


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna has it."""
    return {name: _distribution(values) for name, values in space.items()}


def _distribution(values: Any) -> BaseDistribution:
    if isinstance(values, Choices):
        return CategoricalDistribution(values.values)
    kind = IntDistribution if isinstance(values.low, int) and isinstance(values.high, int) else FloatDistribution
    return kind(values.low, values.high, log=values.log)


class Record:
    """The trials of a search in their file; a context, which closes it.

    Args:
        path: of the file; made if it is missing.
        minimize: whether lower scores are better.

    Raises:
        DataError: by all methods, if the file is damaged, or cannot be written.
    """

    def __init__(self, path: Path, minimize: bool = False) -> None:
        self._path = path
        with self._faults_explained():
            self._storage = optuna.storages.RDBStorage(f"sqlite:///{quote(path.resolve().as_posix())}")
            direction: Any = "minimize" if minimize else "maximize"
            self._study = optuna.create_study(
                storage=self._storage, study_name=_NAME, direction=direction, load_if_exists=True
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file, which could not be moved on Windows while it is open."""
        self._storage.remove_session()
        self._storage.engine.dispose()

    @contextmanager
    def _faults_explained(self) -> Iterator[None]:
        try:
            yield
        except (optuna.exceptions.StorageInternalError, DBAPIError) as error:
            cause = error if isinstance(error, DBAPIError) else error.__cause__ or error
            reason = " ".join(str(getattr(cause, "orig", None) or cause).split())
            if "not a database" in reason or "malformed" in reason:
                raise DataError(f"{self._path} is damaged: {reason}", "start a new search without --resume") from error
            hint = "free some space, then continue with --resume: what was recorded before is kept"
            raise DataError(f"{self._path} cannot be written: {reason}", hint) from error

    def trials(self, space: Space, folds: int) -> list[Trial]:
        """All that have been begun, in order; they have settings of the space, and scores of up to so many folds."""
        with self._faults_explained():
            recorded = self._study.get_trials(deepcopy=False)
        try:
            return [_trial(frozen, space, folds) for frozen in recorded]
        except (ValueError, TypeError) as error:
            again = "start a new search without --resume"
            raise DataError(f"{self._path} is not the record of this search: {error}", again) from error

    def begin(self, settings: Mapping[str, Plain], space: Space) -> None:
        """Record the settings of the next trial."""
        with self._faults_explained():
            self._study.add_trial(
                optuna.trial.create_trial(
                    state=optuna.trial.TrialState.RUNNING,
                    params=dict(settings),
                    distributions=distributions({name: space[name] for name in settings}),
                )
            )

    def add_score(self, trial: Trial) -> None:
        """Record the trial's last score, that of a fold just trained."""
        with self._faults_explained():
            frozen = self._study.get_trials(deepcopy=False)[trial.number]
            open_trial = optuna.Trial(self._study, frozen._trial_id)
            open_trial.set_user_attr(_FOLDS, [trial.scores, trial.seconds])
            for folds in range(1, len(trial.scores) + 1):
                if folds not in frozen.intermediate_values:  # the last, or the one before which a process was killed
                    open_trial.report(Estimate(trial.scores[:folds]).mean, folds)

    def add_early(self, trial: Trial) -> None:
        """Record the score early in the first fold, which Optuna's tools show as that of step 0."""
        with self._faults_explained():
            frozen = self._study.get_trials(deepcopy=False)[trial.number]
            open_trial = optuna.Trial(self._study, frozen._trial_id)
            open_trial.set_user_attr(_EARLY, trial.early)
            if trial.early is not None:
                open_trial.report(trial.early[0], 0)

    def end(self, trial: Trial) -> None:
        """Record how the trial ended."""
        with self._faults_explained():
            if trial.error:
                frozen = self._study.get_trials(deepcopy=False)[trial.number]
                optuna.Trial(self._study, frozen._trial_id).set_user_attr(_ERROR, trial.error)
            value = trial.estimate.mean if trial.state is State.FINISHED else None
            self._study.tell(trial.number, value, ENDS[trial.state])


def _trial(frozen: optuna.trial.FrozenTrial, space: Space, folds: int) -> Trial:
    """The trial as recorded, maybe by other tools; raises :class:`ValueError` or :class:`TypeError` if it is not."""
    scores, seconds = (tuple(map(float, values)) for values in frozen.user_attrs.get(_FOLDS, ((), ())))
    early = _early(frozen.user_attrs.get(_EARLY))
    state, error = _STATES.get(frozen.state, State.RUNNING), str(frozen.user_attrs.get(_ERROR, ""))
    is_possible = all(name in space and value in space[name] for name, value in frozen.params.items())
    if not is_possible or set(frozen.params) not in (set(space), set() if frozen.number == 0 else set(space)):
        raise ValueError(f"trial {frozen.number} has settings that are not searched")
    is_whole = len(scores) == folds if state is State.FINISHED else len(scores) <= folds
    if not is_whole or len(scores) != len(seconds) or not all(map(math.isfinite, (*scores, *seconds, *(early or ())))):
        raise ValueError(f"trial {frozen.number} has no score for each of its folds")
    return Trial(frozen.number, frozen.params, scores, seconds, state, error, early)


def _early(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    score, seconds = map(float, value)
    return score, seconds
