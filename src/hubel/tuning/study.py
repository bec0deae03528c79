"""The search itself, by Optuna: it proposes settings, stops what is worse than others, and records all of it.

Everything that is decided follows from the seed and the scores of the folds, which ``study.db`` keeps, an SQLite file
in Optuna's own form. A search that goes on is decided again from the beginning, with the scores that are recorded in
place of trainings, so it proposes what an unbroken one would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hubel.data.loader import seed_for
from hubel.errors import DataError, MissingExtraError, ModelError, UsageError
from hubel.tuning.space import Choices, Plain, Space
from hubel.tuning.trials import Estimate, State, Trial

try:
    import optuna
    from optuna.distributions import (
        BaseDistribution,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )
    from sqlalchemy.exc import DBAPIError
except ImportError as error:
    raise MissingExtraError("hubel tune", "tune") from error

STUDY_FILE = "study.db"
_NAME = "hubel"
_FOLDS, _ERROR = "scores and seconds of the folds", "error"
_STARTUP = 8
"""Trials of random settings before proposals learn from them."""

Train = Callable[[Trial, int], tuple[float, float]]
"""From a trial and the index of a fold to a score and seconds; raises if the settings cannot be trained."""

_STATES = {
    optuna.trial.TrialState.COMPLETE: State.FINISHED,
    optuna.trial.TrialState.PRUNED: State.STOPPED,
    optuna.trial.TrialState.FAIL: State.FAILED,
}
_ENDS = {state: theirs for theirs, state in _STATES.items()}


def _distribution(values: Any) -> BaseDistribution:
    if isinstance(values, Choices):
        return CategoricalDistribution(values.values)
    kind = IntDistribution if isinstance(values.low, int) and isinstance(values.high, int) else FloatDistribution
    return kind(values.low, values.high, log=values.log)


class Record:
    """``study.db``: the trials, in a file that each change leaves whole.

    Args:
        path: of the file; made if it is missing.
        minimize: whether lower scores are better.

    Raises:
        DataError: by all methods, if the file is damaged, or cannot be written.
    """

    def __init__(self, path: Path, minimize: bool = False) -> None:
        self._path = path
        with self._faults_explained():
            storage = optuna.storages.RDBStorage(f"sqlite:///{quote(path.resolve().as_posix())}")
            direction: Any = "minimize" if minimize else "maximize"
            self._study = optuna.create_study(
                storage=storage, study_name=_NAME, direction=direction, load_if_exists=True
            )

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
                    distributions={name: _distribution(space[name]) for name in settings},
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

    def end(self, trial: Trial) -> None:
        """Record how the trial ended."""
        with self._faults_explained():
            if trial.error:
                frozen = self._study.get_trials(deepcopy=False)[trial.number]
                optuna.Trial(self._study, frozen._trial_id).set_user_attr(_ERROR, trial.error)
            value = trial.estimate.mean if trial.state is State.FINISHED else None
            self._study.tell(trial.number, value, _ENDS[trial.state])


def _trial(frozen: optuna.trial.FrozenTrial, space: Space, folds: int) -> Trial:
    """The trial as recorded, maybe by other tools; raises :class:`ValueError` or :class:`TypeError` if it is not."""
    scores, seconds = (tuple(map(float, values)) for values in frozen.user_attrs.get(_FOLDS, ((), ())))
    state, error = _STATES.get(frozen.state, State.RUNNING), str(frozen.user_attrs.get(_ERROR, ""))
    is_possible = all(name in space and value in space[name] for name, value in frozen.params.items())
    if not is_possible or set(frozen.params) not in (set(space), set() if frozen.number == 0 else set(space)):
        raise ValueError(f"trial {frozen.number} has settings that are not searched")
    is_whole = len(scores) == folds if state is State.FINISHED else len(scores) <= folds
    if not is_whole or len(scores) != len(seconds) or not all(map(math.isfinite, (*scores, *seconds))):
        raise ValueError(f"trial {frozen.number} has no score for each of its folds")
    return Trial(frozen.number, frozen.params, scores, seconds, state, error)


class Search:
    """Proposes settings and stops trials; see the module.

    Args:
        space: what is searched.
        default: the settings of trial 0. Where the space does not contain them all, that trial has none in the record.
        folds: of every trial.
        seed: with the scores, it determines all proposals.
        record: of the search so far.
        minimize: whether lower scores are better.
    """

    def __init__(
        self,
        space: Space,
        default: Mapping[str, Plain],
        folds: int,
        seed: int,
        record: Record,
        minimize: bool = False,
    ) -> None:
        self._space, self._folds, self._seed, self._record = space, folds, seed, record
        self._default = dict(default) if all(default[name] in values for name, values in space.items()) else {}
        self._distributions = {name: _distribution(values) for name, values in space.items()}
        # A single fold of several says little: trials differ by an image or two on it.
        first = 1 if folds < 4 else 2
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=2)
        direction: Any = "minimize" if minimize else "maximize"
        self._study = optuna.create_study(direction=direction, pruner=pruner)

    def run(
        self,
        trials: float,
        train: Train,
        may_start: Callable[[Trial], bool] = lambda trial: True,
        ended: Callable[[Trial], None] = lambda trial: None,
    ) -> list[Trial]:
        """Run up to ``trials`` trials, those of the record included, which are not trained again.

        Args:
            trials: their number; may be infinite.
            train: trains a fold.
            may_start: asked before a fold is trained; a refusal ends the search, and leaves the trial to be continued.
            ended: called after a trial that was trained here.

        Returns:
            All trials in order; the last may not have ended.

        Raises:
            ModelError, UsageError: training with the defaults fails.
            DataError: the record cannot be written.
        """
        known = self._record.trials(self._space, self._folds)
        done: list[Trial] = []
        while len(done) < max(trials, len([trial for trial in known if trial.state is not State.RUNNING])):
            number = len(done)
            trial = known[number] if number < len(known) else None
            was_open = trial is None or trial.state is State.RUNNING
            trial, proposal = self._proposed(number, trial)
            trial = self._trained(trial, proposal, train, may_start)
            done.append(trial)
            if trial.state is State.RUNNING:
                break
            if was_open:
                self._record.end(trial)
                ended(trial)
        return done

    def _proposed(self, number: int, known: Trial | None) -> tuple[Trial, optuna.Trial]:
        """The trial of that number, as recorded or new, and the same in the search."""
        sampler_seed = seed_for(self._seed, "trial", number) % 2**32
        self._study.sampler = optuna.samplers.TPESampler(n_startup_trials=_STARTUP, seed=sampler_seed)
        settings = known.settings if known is not None else self._default if number == 0 else None
        if settings is not None:
            self._study.enqueue_trial(dict(settings))
        without = number == 0 and not settings
        proposal = self._study.ask({} if without else self._distributions)
        if known is None:
            known = Trial(number, proposal.params)
            self._record.begin(known.settings, self._space)
        return known, proposal

    def _trained(self, trial: Trial, proposal: optuna.Trial, train: Train, may_start: Callable[[Trial], bool]) -> Trial:
        """The trial with the scores of its folds, in the record as in the search, and how it ended."""
        scores, seconds, error = list(trial.scores), list(trial.seconds), trial.error

        def so_far(state: State = State.RUNNING) -> Trial:
            return Trial(trial.number, trial.settings, tuple(scores), tuple(seconds), state, error)

        for fold in range(self._folds):
            if fold == len(scores):
                if error:
                    break
                if trial.number and not may_start(so_far()):
                    return so_far()
                try:
                    score, taken = train(so_far(), fold)
                except (ModelError, UsageError) as fault:
                    if trial.number == 0:
                        raise
                    error = fault.message
                    break
                scores.append(score)
                seconds.append(taken)
                self._record.add_score(so_far())
            proposal.report(Estimate(tuple(scores[: fold + 1])).mean, fold + 1)
            if proposal.should_prune() and trial.number and fold + 1 < self._folds:
                self._study.tell(proposal, state=_ENDS[State.STOPPED])
                return so_far(State.STOPPED)
        if error:
            self._study.tell(proposal, state=_ENDS[State.FAILED])
            return so_far(State.FAILED)
        self._study.tell(proposal, Estimate(tuple(scores)).mean)
        return so_far(State.FINISHED)


def importances(trials: Sequence[Trial], space: Space, seed: int, minimize: bool = False) -> dict[str, float]:
    """How much of the difference between the finished trials each setting explains; fractions that sum to 1.

    Functional ANOVA (Hutter, Hoos and Leyton-Brown 2014) in Optuna's implementation. Empty for fewer than four
    finished trials, or if all have the same score.
    """
    direction: Any = "minimize" if minimize else "maximize"
    study = optuna.create_study(direction=direction)
    distributions = {name: _distribution(values) for name, values in space.items()}
    for trial in trials:
        if trial.state is State.FINISHED and trial.settings:
            study.add_trial(
                optuna.trial.create_trial(
                    params=dict(trial.settings), distributions=distributions, value=trial.estimate.mean
                )
            )
    values = {trial.value for trial in study.trials}
    if len(study.trials) < 4 or len(values) < 2:
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=seed)
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: value for name, value in found.items() if math.isfinite(value)}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Optuna from writing a line for each trial."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
