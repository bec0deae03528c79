"""What a search searches: the options that all its trainings have in common, the defaults, and the space."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hubel.bounded import BoundError, read_yaml
from hubel.config import TrainingConfig
from hubel.errors import DataError, UsageError
from hubel.fileio import rename_unique, staged_directory, write_text
from hubel.training.train import complete_config
from hubel.tuning.folds import Folds, write_folds
from hubel.tuning.space import Plain, Space, default_space, make_space, plain, read_space

SEARCH_FILE = "search.yaml"


@dataclass(frozen=True)
class Plan:
    """What is searched: the options that all trainings have in common, the defaults, and the space.

    ``trials`` and ``minutes`` are what was asked for when the search was begun.
    """

    options: Mapping[str, Any]
    default: TrainingConfig
    space: Space
    trials: int | None = None
    minutes: float | None = None

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


def new_plan(data: Path, options: dict[str, Any], space: Path | str | Mapping[str, Any] | None) -> Plan:
    """The plan of a new search; raises as :func:`hubel.tune`."""

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
    return Plan(options, default, found)


def make_search_folder(base: Path, plan: Plan, folds: Folds, inner: Sequence[Folds], root: Path) -> Path:
    """Make ``base``, or ``base-2``, …, with what ``--resume`` needs; all of it or nothing.

    Args:
        base: the wanted folder.
        plan: what is searched.
        folds: of the search.
        inner: those of the search without each fold, for a nested search.
        root: folder of the data set.
    """
    values = plan.default.to_json()
    content = {
        "data": str(plan.default.data),
        "options": {name: values[name] for name in plan.options},
        "space": {name: described.to_json() for name, described in plan.space.items()},
        "trials": plan.trials,
        "minutes": plan.minutes,
    }
    with staged_directory(base) as staged:
        write_text(staged / SEARCH_FILE, yaml.safe_dump(content, sort_keys=False))
        write_folds(staged, folds, root)
        for fold, parts in enumerate(inner):
            outer_folder(staged, fold).mkdir()
            write_folds(outer_folder(staged, fold), parts, root)
        return rename_unique(staged, base)


def outer_folder(folder: Path, fold: int) -> Path:
    """The folder of the search without the fold at this index."""
    return folder / f"without-fold-{fold + 1}"


def recorded_plan(folder: Path) -> Plan:
    """The plan of a search in its folder; raises :class:`DataError` if it is damaged."""
    path = folder / SEARCH_FILE
    again = "start a new search without --resume"
    try:
        content = read_yaml(path)
        data, options, described = Path(content["data"]), dict(content["options"]), dict(content["space"])
        trials, minutes = content.get("trials"), content.get("minutes")
        check_asked(trials, minutes)
        default = complete_config(data, options)
        space = make_space(described, options, lambda each: complete_config(data, {**options, **each}))
        return Plan(options, default, space, trials, minutes)
    except UsageError as error:
        raise DataError(f"{path}: {error.message}", again) from error
    except KeyError as error:
        raise DataError(f"{path} is damaged: {error} is missing", again) from error
    except BoundError as error:
        raise DataError(f"{path} is damaged: it {error}", again) from error
    except (OSError, AttributeError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}", again) from error


def check_asked(trials: Any, minutes: Any) -> None:
    """Raise :class:`UsageError` unless the number of trials and the time are possible, or ``None``."""
    hint = "see hubel tune --help"
    if trials is not None and (not isinstance(trials, int) or trials < 1):
        raise UsageError(f"trials = {trials!r:.40}: it is at least 1", hint)
    if minutes is not None and (not isinstance(minutes, int | float) or not 0 < minutes < math.inf):
        raise UsageError(f"minutes = {minutes!r:.40}: it is a number greater than 0", hint)
