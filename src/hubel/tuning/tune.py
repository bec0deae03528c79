"""``hubel tune``: a search for better settings, each scored by cross-validation."""

from __future__ import annotations

import gc
import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch

from hubel.console import ProgressBar, count_of
from hubel.data.samples import Sample
from hubel.errors import DataError, UsageError
from hubel.fileio import NO_SPACE
from hubel.interrupts import interruptions
from hubel.system import tune_allocator
from hubel.training.run_folder import in_use, latest_run_folder
from hubel.training.train import RunData, read_run_data, with_options
from hubel.training.train_options import TrainingOptions
from hubel.tuning.folds import Folds, duplicate_groups, make_folds, read_folds
from hubel.tuning.plan import (
    SEARCH_FILE,
    Plan,
    check_asked,
    make_search_folder,
    new_plan,
    outer_folder,
    recorded_plan,
)
from hubel.tuning.report import write_tuning_report
from hubel.tuning.result import TuneResult
from hubel.tuning.space import NOT_TAKEN

TRIALS = 20
"""Number of trials where neither it nor a time is given."""


def tune(
    data: Path | str,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    folds: int = 5,
    space: Path | str | Mapping[str, Any] | None = None,
    nested: bool = False,
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
        trials: their number, trial 0 included; 20 if no time is given either. Resumed, those of before count too, and
            where neither is given it is what it was.
        minutes: no fold is begun that would probably end later; trial 0 is trained on all folds in any case.
        folds: their number, at least 2.
        space: the settings to search, each with ``{"low": …, "high": …, "log": …}`` or a list of choices; or the YAML
            file that has them. By default the most important ones, around the task's defaults.
        nested: also search without each fold, and score what that finds on the fold: ``.nested``, which no choice has
            made look better than it is. It takes as many searches more as there are folds.
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
    if folds < 2:
        raise UsageError(f"folds = {folds}: it is at least 2", "see hubel tune --help")
    check_asked(trials, minutes)
    if given := [name for name in NOT_TAKEN if name in config]:
        raise UsageError(f"{given[0]} is for hubel train: a search does not use it", "leave it out")
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UsageError("hubel tune runs in one process", "start it without torchrun or accelerate launch")
    if nested and minutes is not None:
        raise UsageError("a nested search has a number of trials, not of minutes", "pass --trials")
    from hubel.tuning.study import quiet  # Optuna, which only a search needs

    base = Path(out) if out is not None else Path("runs") / f"{Path(data).resolve().name or 'run'}-tune"
    folder = latest_run_folder(base, SEARCH_FILE, "search") if resume else None
    if folder is not None:
        plan = recorded_plan(folder)
    else:
        plan = replace(new_plan(Path(data), dict(config), space), trials=trials, minutes=minutes)
    if folder is not None and nested and not outer_folder(folder, 0).is_dir():
        raise UsageError(f"{folder} was begun without --nested", "start a new search without --resume")
    if trials is None and minutes is None:
        trials, minutes = plan.trials, plan.minutes
    tune_allocator(keep=None)
    if plan.default.threads:
        torch.set_num_threads(plan.default.threads)
    with interruptions() as stop_if_asked, quiet():
        run_data = read_run_data(plan.default, None)
        if folder is None:
            folder, parts = _begin(base, plan, run_data, folds, nested)
        else:
            parts = read_folds(folder, _pool(run_data), run_data.samples.root)
        bar = ProgressBar("preparing", lines=True)
        with in_use(folder), _full_disk_explained(folder), bar, _garbage_collected_fast():
            _announce(bar, folder, plan, run_data, parts)
            try:
                result = _search(folder, plan, run_data, parts, (trials, minutes), bar, stop_if_asked)
            except KeyboardInterrupt:
                again = f"hubel tune {data} --resume{f' --out {folder}' if out is not None else ''}"
                asked = {"trials": trials, "minutes": minutes}
                again += "".join(f" --{name} {each:g}" for name, each in asked.items() if each is not None)
                bar.log(f"interrupted: what was trained is kept in {folder}")
                bar.log(f"continue with: {again}")
                raise
            write_tuning_report(result)
    return result


tune.__signature__ = with_options(inspect.signature(tune), NOT_TAKEN)  # type: ignore[attr-defined]


def _pool(run_data: RunData) -> tuple[Sample, ...]:
    """The images that are searched with: all but a test split."""
    return (*run_data.splits.train, *run_data.splits.val)


def _begin(base: Path, plan: Plan, run_data: RunData, count: int, nested: bool) -> tuple[Path, Folds]:
    """Divide the images, and make the folder of a new search."""
    pool, classes, seed = _pool(run_data), run_data.samples.classes, plan.default.seed
    with ProgressBar("comparing images", lines=True) as bar:
        groups = duplicate_groups(pool, bar.update)
    folds = make_folds(pool, classes, groups, count, seed)
    inner = []
    if nested:
        from hubel.tuning.nested import inner_folds

        inner = inner_folds(folds, pool, groups, classes, seed)
    return make_search_folder(base, plan, folds, inner, run_data.samples.root), folds


def _announce(bar: ProgressBar, folder: Path, plan: Plan, run_data: RunData, folds: Folds) -> None:
    for note in (*run_data.warnings, *folds.notes):
        bar.log(f"note: {note}")
    groups, alike = folds.together
    kept = f"; {alike} of them look alike and stay together, in {count_of(groups, 'group')}" if groups else ""
    test = len(run_data.splits.test)
    unused = f"; the {count_of(test, 'test image')} {'is' if test == 1 else 'are'} not used" if test else ""
    bar.log(f"{len(folds)} folds of {count_of(sum(map(len, folds.parts)), 'image')}{kept}{unused}")
    bar.log(f"searched: {', '.join(plan.space)}; folder: {folder}")


def _search(
    folder: Path,
    plan: Plan,
    run_data: RunData,
    folds: Folds,
    asked: tuple[int | None, float | None],
    bar: ProgressBar,
    stop_if_asked: Callable[[], None],
) -> TuneResult:
    """Run the search, and those without each fold if it is nested; ``asked`` are the trials and minutes."""
    from hubel.tuning.fold_training import Shared
    from hubel.tuning.nested import nested_estimate
    from hubel.tuning.running import RunningSearch
    from hubel.tuning.study import importances

    trials, minutes = asked
    limit = math.inf if trials is None and minutes is not None else trials or TRIALS
    shared = Shared(folder)
    search = RunningSearch(folder, plan, run_data.samples, folds, shared, bar, stop_if_asked)
    done = search.search(limit, minutes)
    nested = None
    if minutes is None and outer_folder(folder, 0).is_dir():
        nested = nested_estimate(shared, plan, run_data.samples, folds, trials or TRIALS, bar, stop_if_asked)
    return TuneResult(
        folder=folder,
        task=plan.default.task,
        model=plan.default.model,
        data=plan.default.data,
        images=sum(map(len, folds.parts)),
        test_images=len(run_data.splits.test),
        metric=search.metric,
        minimize=search.minimize,
        folds=len(folds),
        defaults=plan.defaults,
        trials=done,
        importance=importances(done, plan.space, plan.default.seed, search.minimize),
        nested=nested,
    )


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
