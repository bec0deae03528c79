"""A search under way in its folder: its trainings, what is told of them, and what they leave."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import yaml

from hubel.console import ProgressBar, count_of
from hubel.data.samples import ImageDataset
from hubel.data.splits import Splits
from hubel.errors import ModelError, UsageError
from hubel.fileio import write_rows, write_text
from hubel.tasks.registry import get_task
from hubel.tuning.fold_training import Shared, train_fold
from hubel.tuning.folds import Folds
from hubel.tuning.plan import Plan
from hubel.tuning.space import Plain
from hubel.tuning.study import STUDY_FILE, Record, Search
from hubel.tuning.trials import State, Trial, best_trial

_BEST, _TRIALS = "config.yaml", "trials.csv"


class RunningSearch:
    """Runs the trials of a search.

    Args:
        folder: of the search.
        plan: what is searched.
        data: has the classes.
        folds: of the images.
        shared: with other searches that are compared with this one.
        bar: shows the progress, and writes the lines.
        stop_if_asked: called in each step; raises if the user has interrupted.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        data: ImageDataset,
        folds: Folds,
        shared: Shared,
        bar: ProgressBar,
        stop_if_asked: Callable[[], None],
    ) -> None:
        self._folder, self._plan, self._data, self._folds = folder, plan, data, folds
        self._shared, self._bar, self._stop_if_asked = shared, bar, stop_if_asked
        task = get_task(plan.default.task)
        monitor = task.monitor[0]
        self.minimize = monitor.startswith("-")
        self.metric = task.logged_metrics.get(monitor.removeprefix("-"), monitor.removeprefix("-"))
        self._seen: dict[int, Trial] = {}

    def search(self, trials: float, minutes: float | None = None) -> list[Trial]:
        """Run up to so many trials, maybe infinitely many; leaves ``config.yaml`` and ``trials.csv`` after each."""
        record = Record(self._folder / STUDY_FILE, self.minimize)
        self._seen = {trial.number: trial for trial in record.trials(self._plan.space, len(self._folds))}
        if self._seen:
            self._bar.log(f"resuming after {count_of(len(self._ended()), 'trial')}")
        seed = self._plan.default.seed
        search = Search(self._plan.space, self._plan.defaults, len(self._folds), seed, record, self.minimize)
        started = time.monotonic()

        def left() -> float:
            return math.inf if minutes is None else started + 60 * minutes - time.monotonic()

        def train(trial: Trial, fold: int) -> tuple[float, float]:
            self._seen[trial.number] = trial
            total = "" if math.isinf(trials) else f"/{int(trials) - 1}"
            label = f"trial {trial.number}{total}, fold {fold + 1}/{len(self._folds)}"
            splits = Splits(*self._folds.split(fold))
            note = self._note(trial, fold, trials, left())
            return self.train(splits, trial.settings, f".trial-{trial.number}-fold-{fold + 1}", label, note)

        done = search.run(trials, train, lambda trial: self._fold_seconds(trial) <= left(), self._trial_ended)
        if done[-1].state is State.RUNNING:
            self._bar.log(f"the {minutes:g} minutes are over; --resume goes on")
        self._write_best(done)
        return done

    def train(
        self, splits: Splits, settings: Mapping[str, Plain], name: str, label: str, note: str = ""
    ) -> tuple[float, float]:
        """Score and seconds of a training, or of what is left of it; its folder is removed once it has a score."""
        self._stop_if_asked()
        config = self._plan.config(settings)
        self._bar.restart(label, config.epochs)
        self._bar.advance(0, note)
        folder = self._folder / name

        def on_epoch() -> None:
            self._bar.advance(note=note)

        try:
            scored = train_fold(self._shared, folder, config, self._data, splits, self._stop_if_asked, on_epoch)
        except (ModelError, UsageError):  # it could only fail again
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return scored

    def _note(self, trial: Trial, fold: int, trials: float, time_left: float) -> str:
        """The best score so far, and an upper bound of the time that is left."""
        parts = []
        best = best_trial(self._ended(), self.minimize)
        if best is not None:
            parts.append(f"best so far {best.estimate.mean:.4f}")
        if seconds := self._fold_seconds(trial):
            folds = (trials - trial.number) * len(self._folds) - fold
            parts.append(f"at most {timedelta(seconds=round(max(0.0, min(time_left, folds * seconds))))} left")
        return "  ".join(parts)

    def _ended(self) -> list[Trial]:
        return [trial for trial in self._seen.values() if trial.state is not State.RUNNING]

    def _fold_seconds(self, trial: Trial) -> float:
        """Seconds that a fold takes on average, by all that were trained; 0 before the first."""
        seconds = [taken for each in {**self._seen, trial.number: trial}.values() for taken in each.seconds]
        return sum(seconds) / len(seconds) if seconds else 0.0

    def _trial_ended(self, trial: Trial) -> None:
        before = best_trial(self._ended(), self.minimize)
        self._seen[trial.number] = trial
        best = best_trial(self._ended(), self.minimize)
        name = f"trial {trial.number:>2}{' (the defaults)' if trial.number == 0 else ''}"
        folds, them = count_of(len(trial.scores), "fold"), "it" if len(trial.scores) == 1 else "them"
        if trial.state is State.FAILED:
            line = f"failed: {trial.error}"
        elif trial.state is State.STOPPED:
            line = f"{self.metric} {trial.estimate.mean:.4f} on {folds}, stopped: others are better on {them}"
        else:
            better = "  best so far" if best is trial and before is not None else ""
            line = f"{self.metric} {trial.estimate} on {folds}{better}"
        self._bar.log(f"{name}: {line}  {sum(trial.seconds):.0f} s")
        if best is not None:
            self._write_best(list(self._seen.values()))

    def _write_best(self, trials: list[Trial]) -> None:
        best = best_trial(trials, self.minimize)
        assert best is not None  # trial 0 has ended
        settings = {**self._plan.defaults, **best.settings}
        text = yaml.safe_dump(self._plan.as_options(settings), sort_keys=False)
        write_text(self._folder / _BEST, f"# trial {best.number}: {self.metric} {best.estimate}\n{text}")
        rows = []
        for trial in trials:
            scores = [*trial.scores, *[""] * (len(self._folds) - len(trial.scores))]
            settings = self._plan.defaults if trial.number == 0 else dict(trial.settings)
            mean, spread = (trial.estimate.mean, trial.estimate.spread) if trial.scores else ("", "")
            rows.append(
                {
                    "trial": trial.number,
                    "state": trial.state.value,
                    "mean": mean,
                    "spread": spread,
                    **{f"fold_{number}": score for number, score in enumerate(scores, 1)},
                    "seconds": round(sum(trial.seconds), 3),
                    **settings,
                }
            )
        write_rows(self._folder / _TRIALS, rows)
