"""Nested cross-validation: the score of settings on images that had no part in choosing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hubel.bounded import read_json
from hubel.console import ProgressBar
from hubel.data.samples import Sample
from hubel.data.splits import Splits
from hubel.fileio import write_json
from hubel.tuning.fold_training import Trainer
from hubel.tuning.folds import Folds, make_folds, read_folds
from hubel.tuning.plan import Plan, outer_folder
from hubel.tuning.running import RunningSearch
from hubel.tuning.space import Plain
from hubel.tuning.trials import Estimate, best_trial

_SCORE = "score.json"


def inner_folds(
    folds: Folds, pool: Sequence[Sample], groups: np.ndarray, classes: Sequence[str], seed: int
) -> list[Folds]:
    """For each fold of the first division, folds of all other images, as many and made in the same way.

    Args:
        folds: of the search.
        pool: all its images, N.
        groups: of them (N,): images that stay together.
        classes: names of the labels.
        seed: determines the folds.

    Raises:
        DataError: the others are too few for as many folds.
    """
    group_of = {sample.path: group for sample, group in zip(pool, groups.tolist(), strict=True)}
    inner = []
    for fold in range(folds.count):
        others, _ = folds.split(fold)
        numbers = np.array([group_of[sample.path] for sample in others])
        inner.append(make_folds(others, classes, numbers, folds.count, seed, folds.repeats))
    return inner


def nested_estimate(
    folder: Path,
    plan: Plan,
    root: Path,
    folds: Folds,
    trials: int,
    trainer: Trainer,
    bar: ProgressBar,
) -> Estimate:
    """Search without each fold of the first division, and score what that finds on the fold.

    The searches are those of :class:`~hubel.tuning.running.RunningSearch` in folders of their own, and continue.

    Args:
        folder: of the whole search, which has theirs in it.
        plan: what is searched.
        root: folder of the data set.
        folds: of the whole search.
        trials: of each search.
        trainer, bar: as there.

    Returns:
        The score of each fold of the first division.
    """
    scores = []
    for fold in range(folds.count):
        others, held_out = folds.split(fold)
        inner_folder = outer_folder(folder, fold)
        bar.log(f"search without fold {fold + 1} of {folds.count}")
        parts = read_folds(inner_folder, others, root)
        search = RunningSearch(inner_folder, plan, parts, trainer, bar)
        best = best_trial(search.search(trials), search.minimize)
        assert best is not None  # its trial 0 has ended
        settings = {**plan.defaults, **best.settings}
        score = _recorded(inner_folder / _SCORE, settings)
        if score is None:
            label = f"fold {fold + 1}/{folds.count} with the settings found without it"
            score = search.train(Splits(others, held_out), best.settings, f".best-{best.number}", label)
            write_json(inner_folder / _SCORE, {"settings": settings, "score": score})
        scores.append(score)
        bar.log(f"fold {fold + 1}: {search.metric} {score:.4f} with the settings found without it")
    return Estimate(tuple(scores))


def _recorded(path: Path, settings: Mapping[str, Plain]) -> float | None:
    """The score of these settings; ``None`` where there is no such record: they are then trained again."""
    try:
        content = read_json(path)
        return float(content["score"]) if content["settings"] == settings else None
    except (OSError, ValueError, TypeError, KeyError):
        return None
