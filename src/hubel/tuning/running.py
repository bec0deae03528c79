"""A search under way in its folder: its trainings, what is told of them, and what they leave."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import yaml

from hubel.console import ProgressBar, count_of
from hubel.data.samples import Sample
from hubel.data.splits import Splits
from hubel.errors import ModelError, UsageError
from hubel.fileio import write_rows, write_text
from hubel.tasks.registry import get_task
from hubel.tuning.ensemble import Networks
from hubel.tuning.fold_training import Ask, FoldTask, Trainer, early_epoch
from hubel.tuning.folds import Folds
from hubel.tuning.plan import Plan
from hubel.tuning.record import STUDY_FILE, Record
from hubel.tuning.space import Plain
from hubel.tuning.study import Search
from hubel.tuning.trials import State, Trial, best_trial

_BEST, _TRIALS = "config.yaml", "trials.csv"


class RunningSearch:
    """Runs the trials of a search.

    Args:
        folder: of the search.
        plan: what is searched.
        folds: of the images.
        trainer: of the folds; other searches that are compared with this one have the same.
        bar: shows the progress, and writes the lines.
        networks: keep those of the best trial, for an ensemble; ``None`` to keep none.
    """

    def __init__(
        self,
        folder: Path,
        plan: Plan,
        folds: Folds,
        trainer: Trainer,
        bar: ProgressBar,
        networks: Networks | None = None,
    ) -> None:
        self._folder, self._plan, self._folds = folder, plan, folds
        self._trainer, self._bar, self._networks = trainer, bar, networks
        task = get_task(plan.default.task)
        monitor = task.monitor[0]
        self.minimize = monitor.startswith("-")
        self.metric = task.logged_metrics.get(monitor.removeprefix("-"), monitor.removeprefix("-"))
        self._seen: dict[int, Trial] = {}

    def search(self, trials: float, minutes: float | None = None) -> list[Trial]:
        """Run up to so many trials, maybe infinitely many; leaves ``config.yaml`` and ``trials.csv`` after each."""
        with Record(self._folder / STUDY_FILE, self.minimize) as record:
            return self._search(record, trials, minutes)

    def _search(self, record: Record, trials: float, minutes: float | None) -> list[Trial]:
        self._seen = {trial.number: trial for trial in record.trials(self._plan.space, len(self._folds))}
        if self._seen:
            self._bar.log(f"resuming after {count_of(len(self._ended()), 'trial')}")
        seed = self._plan.default.seed
        search = Search(self._plan.space, self._plan.defaults, len(self._folds), seed, record, self.minimize)
        started = time.monotonic()

        def left() -> float:
            return math.inf if minutes is None else started + 60 * minutes - time.monotonic()

        def train(trial: Trial, fold: int, ask: Ask | None) -> tuple[float, float] | None:
            self._seen[trial.number] = trial
            total = "" if math.isinf(trials) else f"/{int(trials) - 1}"
            label = f"trial {trial.number}{total}, {self._folds.name(fold)} of {self._folds.count}"
            task, *ahead = (self._task(trial, index, ask is not None) for index in range(fold, len(self._folds)))
            return self._train(task, label, self._note(trial, fold, trials, left()), ask, ahead)

        for ended in self._ended():
            self._remove_folders(ended)
        try:
            done = search.run(trials, train, lambda trial: self._fold_seconds(trial) <= left(), self._trial_ended)
        finally:
            self._trainer.forget()
        if done[-1].state is State.RUNNING:
            self._bar.log(f"the {minutes:g} minutes are over; --resume goes on")
        self._write_best(done)
        return done

    def train(self, splits: Splits, settings: Mapping[str, Plain], name: str, label: str) -> float:
        """The score of a training, or of what is left of it; its folder is removed then."""
        scored = self._train(FoldTask(self._folder / name, self._plan.config(settings), splits), label)
        assert scored is not None  # nothing stops it
        return scored[0]

    def _task(self, trial: Trial, fold: int, asks: bool) -> FoldTask:
        config = self._plan.config(trial.settings)
        folder = self._folder / f".trial-{trial.number}-fold-{fold + 1}"
        early = early_epoch(config) if asks and fold == 0 else None
        is_kept = fold < self._folds.count  # of the first division
        kept = self._networks.path(trial.number, fold) if self._networks is not None and is_kept else None
        return FoldTask(folder, config, Splits(*self._folds.split(fold)), early, kept)

    def _train(
        self, task: FoldTask, label: str, note: str = "", ask: Ask | None = None, ahead: Sequence[FoldTask] = ()
    ) -> tuple[float, float] | None:
        """Score and seconds of a fold, ``None`` if it was stopped; its folder is removed, the network maybe kept."""
        self._bar.restart(label, task.config.epochs)
        self._bar.advance(0, note)
        try:
            scored = self._trainer.train(
                task, ahead, lambda: self._bar.advance(note=note), ask or (lambda score, seconds: False)
            )
        except (ModelError, UsageError):  # it could only fail again
            shutil.rmtree(task.folder, ignore_errors=True)
            raise
        if scored is not None and task.kept is not None:
            shutil.rmtree(task.kept, ignore_errors=True)
            (task.folder / "last").rename(task.kept)
        shutil.rmtree(task.folder, ignore_errors=True)
        return scored

    def join(self, networks: Networks, test: Sequence[Sample], root: Path) -> Path:
        """Make an ensemble of the best trial's networks; see :meth:`~hubel.tuning.ensemble.Networks.join`."""
        best = best_trial(self._ended(), self.minimize)
        assert best is not None  # trial 0 has ended
        config = self._plan.config(best.settings)

        def train(fold: int, kept: Path) -> None:
            folder = self._folder / f".network-{best.number}-{fold + 1}"
            task = FoldTask(folder, config, Splits(*self._folds.split(fold)), kept=kept)
            self._train(task, f"network {fold + 1} of {self._folds.count} for the ensemble")

        return networks.join(best, self._folds, test, root, config, train)

    def _remove_folders(self, trial: Trial) -> None:
        """Remove folds that were begun ahead of the trial's end, or that a killed search has left."""
        for left in self._folder.glob(f".trial-{trial.number}-fold-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _note(self, trial: Trial, fold: int, trials: float, time_left: float) -> str:
        """The best score so far, and an upper bound of the time that is left."""
        parts = []
        best = best_trial(self._ended(), self.minimize)
        if best is not None:
            parts.append(f"best so far {best.estimate.mean:.4f}")
        if seconds := self._fold_seconds(trial):
            folds = ((trials - trial.number) * len(self._folds) - fold) / self._trainer.at_a_time
            parts.append(f"at most {timedelta(seconds=round(max(0.0, min(time_left, folds * seconds))))} left")
        return "  ".join(parts)

    def _ended(self) -> list[Trial]:
        return [trial for trial in self._seen.values() if trial.state is not State.RUNNING]

    def _fold_seconds(self, trial: Trial) -> float:
        """Seconds that a fold takes on average, by all that were trained; 0 before the first."""
        seconds = [taken for each in {**self._seen, trial.number: trial}.values() for taken in each.seconds]
        return sum(seconds) / len(seconds) if seconds else 0.0

    def _trial_ended(self, trial: Trial) -> None:
        self._trainer.forget()
        before = best_trial(self._ended(), self.minimize)
        self._seen[trial.number] = trial
        self._remove_folders(trial)
        best = best_trial(self._ended(), self.minimize)
        name = f"trial {trial.number:>2}{' (the defaults)' if trial.number == 0 else ''}"
        folds, them = count_of(len(trial.scores), "fold"), "it" if len(trial.scores) == 1 else "them"
        if trial.state is State.FAILED:
            line = f"failed: {trial.error}"
        elif not trial.scores and trial.early is not None:
            line = f"{self.metric} {trial.early[0]:.4f} early in the first fold, stopped: others are better by then"
        elif trial.state is State.STOPPED:
            line = f"{self.metric} {trial.estimate.mean:.4f} on {folds}, stopped: others are better on {them}"
        else:
            better = "  best so far" if best is trial and before is not None else ""
            line = f"{self.metric} {trial.estimate} on {folds}{better}"
        self._bar.log(f"{name}: {line}  {trial.total_seconds:.0f} s")
        if best is not None:
            self._write_best(list(self._seen.values()))
        worse = before if best is trial else trial
        if self._networks is not None and worse is not None:
            self._networks.discard(worse.number)

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
                    **{self._column(index): score for index, score in enumerate(scores)},
                    "early": trial.early[0] if trial.early else "",
                    "seconds": round(trial.total_seconds, 3),
                    **settings,
                }
            )
        write_rows(self._folder / _TRIALS, rows)

    def _column(self, index: int) -> str:
        """Of the score of a fold in ``trials.csv``: ``fold_1``, or ``repetition_1_fold_1``."""
        return self._folds.name(index).replace(", ", "_").replace(" ", "_")
