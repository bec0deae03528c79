"""The search itself, by Optuna: it proposes settings, stops what is worse than others, and records all of it.

Everything that is decided follows from the seed and the scores of the folds, which ``study.db`` keeps, an SQLite file
in Optuna's own form. A search that goes on is decided again from the beginning, with the scores that are recorded in
place of trainings, so it proposes what an unbroken one would have.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import optuna

from hubel.data.loader import seed_for
from hubel.errors import ModelError, UsageError
from hubel.tuning.record import ENDS, Record, distributions
from hubel.tuning.space import Plain, Space
from hubel.tuning.trials import Estimate, State, Trial

_STARTUP = 8
"""Trials of random settings before proposals learn from them."""

Ask = Callable[[float, float], bool]
"""From the score and the seconds early in the first fold to whether the trial is to be stopped there."""

Train = Callable[[Trial, int, Ask | None], tuple[float, float] | None]
"""From a trial and the index of a fold to a score and seconds; raises if the settings cannot be trained.

In the first fold it may ask, once, whether to go on; ``None`` if it is not to.
"""

_EARLY = 0  # what Optuna's tools show as a step: 0 early in the first fold, then the number of folds


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
        self._distributions = distributions(space)
        # A single fold of several says little: trials differ by an image or two on it.
        first = 1 if folds < 4 else 2
        self._reached: dict[int, list[float]] = {_EARLY: []}  # scores at each step where trials are stopped
        self._reached |= {first << power: [] for power in range(folds.bit_length()) if first << power < folds}
        self._sign = -1 if minimize else 1
        direction: Any = "minimize" if minimize else "maximize"
        self._study = optuna.create_study(direction=direction)

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

        def is_stopped(score: float, seconds: float) -> bool:
            nonlocal trial
            trial = replace(trial, early=(score, seconds))
            self._record.add_early(trial)
            return self._falls_behind(proposal, _EARLY, score)

        if trial.early is not None and self._falls_behind(proposal, _EARLY, trial.early[0]):
            return self._ended(trial, proposal, State.STOPPED)
        for fold in range(self._folds):
            if fold == len(trial.scores):
                if trial.error:
                    break
                if trial.number and not may_start(trial):
                    return replace(trial, state=State.RUNNING)
                asks = fold == 0 and trial.early is None
                try:
                    scored = train(trial, fold, is_stopped if asks else None)
                except (ModelError, UsageError) as fault:
                    if trial.number == 0:
                        raise
                    trial = replace(trial, error=fault.message)
                    break
                if scored is None:
                    return self._ended(trial, proposal, State.STOPPED)
                trial = replace(trial, scores=(*trial.scores, scored[0]), seconds=(*trial.seconds, scored[1]))
                self._record.add_score(trial)
            if self._falls_behind(proposal, fold + 1, Estimate(trial.scores[: fold + 1]).mean):
                return self._ended(trial, proposal, State.STOPPED)
        return self._ended(trial, proposal, State.FAILED if trial.error else State.FINISHED)

    def _falls_behind(self, proposal: optuna.Trial, step: int, score: float) -> bool:
        """Successive halving (Jamieson and Talwalkar 2016, arXiv 1502.07943), asynchronous as in arXiv 1810.05934.

        True for a score that is not in the better half of those that have got as far; never for the defaults.
        """
        proposal.report(score, step)
        if step not in self._reached:
            return False
        reached = self._reached[step]
        reached.append(self._sign * score)
        least = sorted(reached, reverse=True)[max(0, len(reached) // 2 - 1)]
        return proposal.number > 0 and reached[-1] < least

    def _ended(self, trial: Trial, proposal: optuna.Trial, state: State) -> Trial:
        self._study.tell(proposal, trial.estimate.mean if state is State.FINISHED else None, ENDS[state])
        return replace(trial, state=state)


def importances(trials: Sequence[Trial], space: Space, seed: int, minimize: bool = False) -> dict[str, float]:
    """How much of the difference between the finished trials each setting explains; fractions that sum to 1.

    Functional ANOVA (Hutter, Hoos and Leyton-Brown 2014) in Optuna's implementation. Empty for fewer than four
    finished trials, or if all have the same score.
    """
    direction: Any = "minimize" if minimize else "maximize"
    study = optuna.create_study(direction=direction)
    described = distributions(space)
    for trial in trials:
        if trial.state is State.FINISHED and trial.settings:
            study.add_trial(
                optuna.trial.create_trial(
                    params=dict(trial.settings), distributions=described, value=trial.estimate.mean
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
