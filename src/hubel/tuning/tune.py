"""``hubel tune``: a search for better settings, each scored by cross-validation."""

from __future__ import annotations

import gc
import importlib.util
import inspect
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch

from hubel.console import ProgressBar, count_of
from hubel.data.samples import Sample
from hubel.errors import DataError, MissingExtraError, UsageError
from hubel.fileio import NO_SPACE
from hubel.interrupts import interruptions
from hubel.system import tune_allocator
from hubel.training.run_data import RunData, read_run_data
from hubel.training.run_folder import in_use, latest_run_folder
from hubel.training.train_options import TrainingOptions, with_options
from hubel.tuning.ensemble import Networks, check_members, check_networks
from hubel.tuning.fold_processes import SeveralAtATime
from hubel.tuning.fold_training import OneAtATime, Shared, Trainer
from hubel.tuning.folds import Folds, make_folds, read_folds
from hubel.tuning.groups import GivenGroups, duplicate_groups
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
    repeats: int = 1,
    parallel: int = 1,
    groups: Path | str | Mapping[str, Any] | None = None,
    ensemble: bool = False,
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
        repeats: number of times that the images are divided into folds, each time otherwise. Every trial then has as
            many scores for each fold, and a smaller difference can be shown.
        parallel: number of folds to train at a time, each in a process with its share of the threads, which does not
            change what is proposed. A script that asks for it needs ``if __name__ == "__main__":`` around the call.
        groups: images that belong together, of a patient, a place or a film, and never are in two folds: a CSV file
            with the columns ``image``, a path relative to ``data``, and ``group``; or a mapping from such paths to
            groups. Images that look alike stay together in any case.
        ensemble: keep the networks of the best settings, one for each fold (of the first repetition), as one model that
            averages their predictions, in the search's folder ``ensemble/``; so does each ``resume`` of the search.
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
    for name, value, least in (("folds", folds, 2), ("repeats", repeats, 1), ("parallel", parallel, 1)):
        if value < least:
            raise UsageError(f"{name} = {value}: it is at least {least}", "see hubel tune --help")
    check_asked(trials, minutes)
    if unused := [name for name in NOT_TAKEN if name in config]:
        raise UsageError(f"{unused[0]} is for hubel train: a search does not use it", "leave it out")
    if int(os.environ.get("WORLD_SIZE") or 1) > 1:
        raise UsageError("hubel tune runs in one process", "start it without torchrun or accelerate launch")
    if ensemble and not resume:
        check_members(folds)
    if nested and minutes is not None:
        raise UsageError("a nested search has a number of trials, not of minutes", "pass --trials")
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtraError("hubel tune", "tune")
    from hubel.tuning.study import quiet  # Optuna, which only a search needs

    base = Path(out) if out is not None else Path("runs") / f"{Path(data).resolve().name or 'run'}-tune"
    folder = latest_run_folder(base, SEARCH_FILE, "search") if resume else None
    if folder is not None:
        plan = recorded_plan(folder)
    else:
        plan = replace(new_plan(Path(data), dict(config), space), trials=trials, minutes=minutes)
    if folder is not None and nested and not outer_folder(folder, 0).is_dir():
        raise UsageError(f"{folder} was begun without --nested", "start a new search without --resume")
    if ensemble:
        check_networks(plan.default)
    if trials is None and minutes is None:
        trials, minutes = plan.trials, plan.minutes
    given = GivenGroups(groups) if groups is not None and folder is None else None
    tune_allocator(keep=None)
    if plan.default.threads:
        torch.set_num_threads(plan.default.threads)
    with interruptions() as stop_if_asked, quiet():
        run_data = read_run_data(plan.default, None)
        if folder is None:
            folder, parts = _begin(base, plan, run_data, (folds, repeats), given, nested)
        else:
            parts = read_folds(folder, _pool(run_data), run_data.samples.root)
            if ensemble:
                check_members(parts.count)
        bar = ProgressBar("preparing", lines=True)
        with in_use(folder), _full_disk_explained(folder), bar, _garbage_collected_fast():
            _announce(bar, folder, plan, run_data, parts)
            try:
                networks = Networks(folder) if ensemble or Networks.are_kept(folder) else None
                with _trainer(parallel, folder, plan, run_data, bar, stop_if_asked) as trainer:
                    result = _search(folder, plan, run_data, parts, (trials, minutes), trainer, bar, networks)
            except KeyboardInterrupt:
                again = f"hubel tune {data} --resume{f' --out {folder}' if out is not None else ''}"
                asked = {"trials": trials, "minutes": minutes}
                again += f" --parallel {parallel}" if parallel > 1 else ""
                again += "".join(f" --{name} {each:g}" for name, each in asked.items() if each is not None)
                again += " --ensemble" if ensemble else ""
                bar.log(f"interrupted: what was trained is kept in {folder}")
                bar.log(f"continue with: {again}")
                raise
            write_tuning_report(result)
    return result


tune.__signature__ = with_options(inspect.signature(tune), NOT_TAKEN)  # type: ignore[attr-defined]


def _pool(run_data: RunData) -> tuple[Sample, ...]:
    """The images that are searched with: all but a test split."""
    return (*run_data.splits.train, *run_data.splits.val)


def _begin(
    base: Path, plan: Plan, run_data: RunData, counts: tuple[int, int], given: GivenGroups | None, nested: bool
) -> tuple[Path, Folds]:
    """Divide the images, and make the folder of a new search; ``counts`` are those of the folds and repetitions."""
    pool, samples, seed = _pool(run_data), run_data.samples, plan.default.seed
    notes: tuple[str, ...] = ()
    with ProgressBar("comparing images", lines=True) as bar:
        groups = duplicate_groups(pool, bar.update)
    if given is not None:
        groups = given.united(groups, pool, samples)
        notes = given.notes(pool, run_data.splits.test, samples.root)
    folds = make_folds(pool, samples.classes, groups, counts[0], seed, counts[1])
    inner = []
    if nested:
        from hubel.tuning.nested import inner_folds

        inner = inner_folds(folds, pool, groups, samples.classes, seed)
    folds = replace(folds, notes=(*notes, *folds.notes))
    return make_search_folder(base, plan, folds, inner, samples.root), folds


def _announce(bar: ProgressBar, folder: Path, plan: Plan, run_data: RunData, folds: Folds) -> None:
    for note in (*run_data.warnings, *folds.notes):
        bar.log(f"note: {note}")
    groups, alike = folds.together
    kept = f"; {alike} of them stay together, in {count_of(groups, 'group')}" if groups else ""
    times = f"{folds.repeats} times " if folds.repeats > 1 else ""
    test = len(run_data.splits.test)
    unused = f"; the {count_of(test, 'test image')} {'is' if test == 1 else 'are'} not used" if test else ""
    bar.log(f"{times}{folds.count} folds of {count_of(folds.images, 'image')}{kept}{unused}")
    bar.log(f"searched: {', '.join(plan.space)}; folder: {folder}")


def _trainer(
    count: int, folder: Path, plan: Plan, run_data: RunData, bar: ProgressBar, stop_if_asked: Callable[[], None]
) -> AbstractContextManager[Trainer]:
    if count > 1:
        return SeveralAtATime(count, folder, run_data.samples, plan.default.threads, bar.log)
    return nullcontext(OneAtATime(Shared(folder), run_data.samples, stop_if_asked))


def _search(
    folder: Path,
    plan: Plan,
    run_data: RunData,
    folds: Folds,
    asked: tuple[int | None, float | None],
    trainer: Trainer,
    bar: ProgressBar,
    networks: Networks | None,
) -> TuneResult:
    """Run the search, and those without each fold if it is nested; ``asked`` are the trials and minutes.

    The ``networks`` of its best trial become an ensemble.
    """
    from hubel.tuning.nested import nested_estimate
    from hubel.tuning.running import RunningSearch
    from hubel.tuning.study import importances

    trials, minutes = asked
    limit = math.inf if trials is None and minutes is not None else trials or TRIALS
    search = RunningSearch(folder, plan, folds, trainer, bar, networks)
    done = search.search(limit, minutes)
    ensemble = None if networks is None else search.join(networks, run_data.splits.test, run_data.samples.root)
    nested = None
    if minutes is None and outer_folder(folder, 0).is_dir():
        root = run_data.samples.root
        nested = nested_estimate(folder, plan, root, folds, trials or TRIALS, trainer, bar)
    return TuneResult(
        folder=folder,
        task=plan.default.task,
        model=plan.default.model,
        data=plan.default.data,
        images=folds.images,
        test_images=len(run_data.splits.test),
        metric=search.metric,
        minimize=search.minimize,
        folds=folds.count,
        repeats=folds.repeats,
        defaults=plan.defaults,
        trials=done,
        importance=importances(done, plan.space, plan.default.seed, search.minimize),
        nested=nested,
        ensemble=ensemble,
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
