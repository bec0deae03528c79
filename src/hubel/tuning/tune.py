"""``hubel tune``: a search for better settings, each scored by cross-validation."""

from __future__ import annotations

import gc
import inspect
import math
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Unpack

import torch
import yaml

from hubel.bounded import BoundError, read_yaml
from hubel.config import TrainingConfig
from hubel.console import ProgressBar, count_of
from hubel.data.samples import ImageDataset
from hubel.data.splits import Splits
from hubel.errors import DataError, ModelError, UsageError
from hubel.fileio import NO_SPACE, rename_unique, staged_directory, write_rows, write_text
from hubel.interrupts import interruptions
from hubel.system import tune_allocator
from hubel.tasks.registry import get_task
from hubel.training.run_folder import in_use, latest_run_folder
from hubel.training.train import complete_config, read_run_data, with_options
from hubel.training.train_options import TrainingOptions
from hubel.tuning.fold_training import train_fold
from hubel.tuning.folds import Folds, duplicate_groups, make_folds, read_folds, write_folds
from hubel.tuning.report import write_tuning_report
from hubel.tuning.result import TuneResult
from hubel.tuning.space import NOT_TAKEN, Plain, Space, default_space, make_space, plain, read_space
from hubel.tuning.trials import State, Trial, best_trial

TRIALS = 20
"""Number of trials where neither it nor a time is given."""

_SEARCH, _BEST, _TRIALS = "search.yaml", "best.yaml", "trials.csv"


@dataclass(frozen=True)
class _Plan:
    """What is searched: the options that all trainings have in common, the defaults, and the space."""

    options: Mapping[str, Any]
    default: TrainingConfig
    space: Space

    def config(self, settings: Mapping[str, Any]) -> TrainingConfig:
        """The resolved configuration of a training with these settings."""
        return complete_config(self.default.data, {**self.options, **settings})

    @property
    def defaults(self) -> dict[str, Plain]:
        """The values of the settings that are searched."""
        return {name: plain(getattr(self.default, name)) for name in self.space}

    def as_options(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The options and the settings as ``hubel train --config`` takes them."""
        values = self.config(settings).to_json()
        return {name: values[name] for name in dict.fromkeys(("task", *self.options, *settings))}


def tune(
    data: Path | str,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    folds: int = 5,
    space: Path | str | Mapping[str, Any] | None = None,
    resume: bool = False,
    out: Path | str | None = None,
    **config: Unpack[TrainingOptions],
) -> TuneResult:
    """Search for settings of a training by cross-validation; the same as ``hubel tune``.

    The images of training and validation are divided into folds, near-duplicates never into two; a test split is not
    touched. Trial 0 has the defaults. Every trial trains once for each fold, unless it is stopped as worse than half of
    the others.

    Args:
        data: as for :func:`hubel.train`.
        trials: their number, trial 0 included; 20 if no time is given either. Resumed, those of before count too.
        minutes: no fold is begun that would probably end later; trial 0 is trained on all folds in any case.
        folds: their number, at least 2.
        space: the settings to search, each with ``{"low": …, "high": …, "log": …}`` or a list of choices; or the YAML
            file that has them. By default the most important ones, around the task's defaults.
        resume: continue the newest search of this name (or ``out``), with its own options.
        out: folder of the search; ``runs/NAME-tune`` by default, with a number if it exists.
        config: options that all trainings have in common, as for :func:`hubel.train`; they are not searched.

    Returns:
        The search: ``.best``, the settings by name; ``.estimate``, their score over the folds; ``.default``, that of
        the defaults.

    Raises:
        DataError: the data cannot be used, or cannot be divided into as many folds.
        UsageError: an option, or a setting of the space, has a value that it cannot have.
        MissingExtraError: Optuna is not installed.
        KeyboardInterrupt: on Ctrl-C, SIGTERM or SIGHUP; what was trained is kept and ``resume`` continues.
    """
    for name, number, least in (("folds", folds, 2), ("trials", trials, 1)):
        if number is not None and number < least:
            raise UsageError(f"{name} = {number}: it is at least {least}", "see hubel tune --help")
    if minutes is not None and not 0 < minutes < math.inf:
        raise UsageError(f"minutes = {minutes:g}: it is a number greater than 0", "see hubel tune --help")
    if given := [name for name in NOT_TAKEN if name in config]:
        raise UsageError(f"{given[0]} is for hubel train: a search does not use it", "leave it out")
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UsageError("hubel tune runs in one process", "start it without torchrun or accelerate launch")
    from hubel.tuning.study import quiet  # Optuna, which only a search needs

    base = Path(out) if out is not None else Path("runs") / f"{Path(data).resolve().name or 'run'}-tune"
    folder = latest_run_folder(base, _SEARCH, "search") if resume else None
    plan = _recorded_plan(folder) if folder is not None else _new_plan(Path(data), dict(config), space)
    tune_allocator(keep=None)
    if plan.default.threads:
        torch.set_num_threads(plan.default.threads)
    with interruptions() as stop_if_asked, quiet():
        run_data = read_run_data(plan.default, None)
        pool = (*run_data.splits.train, *run_data.splits.val)
        if folder is None:
            with ProgressBar("comparing images", lines=True) as bar:
                groups = duplicate_groups(pool, bar.update)
            parts = make_folds(pool, run_data.samples.classes, groups, folds, plan.default.seed)
            folder = _make_folder(base, plan, parts, run_data.samples)
        else:
            parts = read_folds(folder, pool, run_data.samples.root)
        with in_use(folder), _full_disk_explained(folder):
            running = _Running(folder, plan, run_data.samples, parts, len(run_data.splits.test))
            for note in (*run_data.warnings, *parts.notes):
                running.bar.log(f"note: {note}")
            limit = math.inf if trials is None and minutes is not None else trials or TRIALS
            asked = {"trials": trials, "minutes": minutes}
            with running.bar, _garbage_collected_fast():
                try:
                    result = running.search(limit, minutes, stop_if_asked)
                except KeyboardInterrupt:
                    option = f" --out {folder}" if out is not None else ""
                    running.bar.log(f"interrupted: what was trained is kept in {folder}")
                    option += "".join(f" --{name} {each:g}" for name, each in asked.items() if each is not None)
                    running.bar.log(f"continue with: hubel tune {data} --resume{option}")
                    raise
            write_tuning_report(result)
    return result


tune.__signature__ = with_options(inspect.signature(tune), NOT_TAKEN)  # type: ignore[attr-defined]


def _new_plan(data: Path, options: dict[str, Any], space: Path | str | Mapping[str, Any] | None) -> _Plan:
    def check(settings: Mapping[str, Any]) -> TrainingConfig:
        return complete_config(data, {**options, **settings})

    default = check({})
    options["task"] = default.task  # guessed once
    if space is None:
        found = default_space(default, options)
    elif isinstance(space, Mapping):
        found = make_space(space, options, check)
    else:
        found = read_space(Path(space), options, check)
    if not found:
        raise UsageError("no setting is left to search", "pass some with --space, or give fewer options")
    return _Plan(options, default, found)


def _make_folder(base: Path, plan: _Plan, folds: Folds, data: ImageDataset) -> Path:
    """Make ``base``, or ``base-2``, …, with what ``--resume`` needs; all of it or nothing."""
    values = plan.default.to_json()
    content = {
        "data": str(plan.default.data),
        "options": {name: values[name] for name in plan.options},
        "space": {name: described.to_json() for name, described in plan.space.items()},
    }
    with staged_directory(base) as staged:
        write_text(staged / _SEARCH, yaml.safe_dump(content, sort_keys=False))
        write_folds(staged, folds, data.root)
        return rename_unique(staged, base)


def _recorded_plan(folder: Path) -> _Plan:
    path = folder / _SEARCH
    again = "start a new search without --resume"
    try:
        content = read_yaml(path)
        data, options, space = Path(content["data"]), dict(content["options"]), dict(content["space"])
        default = complete_config(data, options)
        return _Plan(
            options, default, make_space(space, options, lambda each: complete_config(data, {**options, **each}))
        )
    except UsageError as error:
        raise DataError(f"{path}: {error.message}", again) from error
    except (OSError, BoundError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged: it {error}", again) from error


@contextmanager
def _full_disk_explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        message = f"{folder} cannot be written: {error.strerror}"
        raise DataError(message, "free some space, then continue with --resume") from error


@contextmanager
def _garbage_collected_fast() -> Iterator[None]:
    """Exempt what is imported from garbage collection, which every training does: it takes longer than a short one."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Running:
    """A search under way in its folder."""

    def __init__(self, folder: Path, plan: _Plan, data: ImageDataset, folds: Folds, test_images: int) -> None:
        self._folder, self._plan, self._data, self._folds = folder, plan, data, folds
        self._test_images = test_images
        task = get_task(plan.default.task)
        monitor = task.monitor[0]
        self._minimize = monitor.startswith("-")
        self._metric = task.logged_metrics.get(monitor.removeprefix("-"), monitor.removeprefix("-"))
        self.bar = ProgressBar("preparing", lines=True)
        self._seen: dict[int, Trial] = {}

    def search(self, trials: float, minutes: float | None, stop_if_asked: Any) -> TuneResult:
        """Run the trials; leaves ``best.yaml`` and ``trials.csv`` after each."""
        images = sum(map(len, self._folds.parts))
        groups, alike = self._folds.together
        kept = f"; {alike} of them look alike and stay together, in {count_of(groups, 'group')}" if groups else ""
        unused = f"; the {self._test_images} test images are not used" if self._test_images else ""
        self.bar.log(f"{len(self._folds)} folds of {count_of(images, 'image')}{kept}{unused}")
        self.bar.log(f"searched: {', '.join(self._plan.space)}; folder: {self._folder}")
        from hubel.tuning.study import STUDY_FILE, Record, Search

        record = Record(self._folder / STUDY_FILE, self._minimize)
        self._seen = {trial.number: trial for trial in record.trials(self._plan.space, len(self._folds))}
        if self._seen:
            self.bar.log(f"resuming after {count_of(len(self._ended()), 'trial')}")
        seed = self._plan.default.seed
        search = Search(self._plan.space, self._plan.defaults, len(self._folds), seed, record, self._minimize)
        started = time.monotonic()

        def left() -> float:
            return math.inf if minutes is None else started + 60 * minutes - time.monotonic()

        def train(trial: Trial, fold: int) -> tuple[float, float]:
            stop_if_asked()
            return self._train(trial, fold, trials, left(), stop_if_asked)

        done = search.run(trials, train, lambda trial: self._fold_seconds(trial) <= left(), self._trial_ended)
        if done[-1].state is State.RUNNING:
            self.bar.log(f"the {minutes:g} minutes are over; --resume goes on")
        self._write_best(done)
        return self._result(done)

    def _train(
        self, trial: Trial, fold: int, trials: float, time_left: float, stop_if_asked: Any
    ) -> tuple[float, float]:
        """Train a fold, or what is left of it; its folder is removed once it has a score."""
        self._seen[trial.number] = trial
        config = self._plan.config(trial.settings)
        total = "" if math.isinf(trials) else f"/{int(trials) - 1}"
        self.bar.restart(f"trial {trial.number}{total}, fold {fold + 1}/{len(self._folds)}", config.epochs)
        note = self._note(trial, fold, trials, time_left)
        self.bar.advance(0, note)
        folder = self._folder / f".trial-{trial.number}-fold-{fold + 1}"
        splits = Splits(*self._folds.split(fold))
        try:
            scored = train_fold(
                self._folder, folder, config, self._data, splits, stop_if_asked, lambda: self.bar.advance(note=note)
            )
        except (ModelError, UsageError):  # it could only fail again
            shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)
        return scored

    def _note(self, trial: Trial, fold: int, trials: float, time_left: float) -> str:
        """The best score so far, and an upper bound of the time that is left."""
        parts = []
        best = best_trial(self._ended(), self._minimize)
        if best is not None:
            parts.append(f"best so far {best.estimate.mean:.4f}")
        if seconds := self._fold_seconds(trial):
            folds = (trials - trial.number) * len(self._folds) - fold
            parts.append(f"at most {timedelta(seconds=round(min(time_left, folds * seconds)))} left")
        return "  ".join(parts)

    def _ended(self) -> list[Trial]:
        return [trial for trial in self._seen.values() if trial.state is not State.RUNNING]

    def _fold_seconds(self, trial: Trial) -> float:
        """Seconds that a fold takes on average, by all that were trained; 0 before the first."""
        seconds = [taken for each in {**self._seen, trial.number: trial}.values() for taken in each.seconds]
        return sum(seconds) / len(seconds) if seconds else 0.0

    def _trial_ended(self, trial: Trial) -> None:
        before = best_trial(self._ended(), self._minimize)
        self._seen[trial.number] = trial
        best = best_trial(self._ended(), self._minimize)
        name = f"trial {trial.number:>2}{' (the defaults)' if trial.number == 0 else ''}"
        folds, them = count_of(len(trial.scores), "fold"), "it" if len(trial.scores) == 1 else "them"
        if trial.state is State.FAILED:
            line = f"failed: {trial.error}"
        elif trial.state is State.STOPPED:
            line = f"{self._metric} {trial.estimate.mean:.4f} on {folds}, stopped: others are better on {them}"
        else:
            better = "  best so far" if best is trial and before is not None else ""
            line = f"{self._metric} {trial.estimate} on {folds}{better}"
        self.bar.log(f"{name}: {line}  {sum(trial.seconds):.0f} s")
        if best is not None:
            self._write_best(list(self._seen.values()))

    def _write_best(self, trials: list[Trial]) -> None:
        best = best_trial(trials, self._minimize)
        assert best is not None  # trial 0 has ended
        settings = {**self._plan.defaults, **best.settings}
        text = yaml.safe_dump(self._plan.as_options(settings), sort_keys=False)
        write_text(self._folder / _BEST, f"# trial {best.number}: {self._metric} {best.estimate}\n{text}")
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

    def _result(self, trials: list[Trial]) -> TuneResult:
        from hubel.tuning.study import importances

        default = self._plan.default
        return TuneResult(
            folder=self._folder,
            task=default.task,
            model=default.model,
            data=default.data,
            images=sum(map(len, self._folds.parts)),
            test_images=self._test_images,
            metric=self._metric,
            minimize=self._minimize,
            folds=len(self._folds),
            defaults=self._plan.defaults,
            trials=trials,
            importance=importances(trials, self._plan.space, default.seed, self._minimize),
        )
