"""The settings that a search tries, each with a range or a list of choices: from a YAML file, or a task's default."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from hubel.bounded import BoundError, read_yaml
from hubel.config import TrainingConfig
from hubel.errors import HubelError, UsageError

Plain = str | int | float | bool | None
"""A value of a setting as text, YAML and Optuna hold it."""

Check = Callable[[Mapping[str, Any]], TrainingConfig]
"""From settings to the resolved configuration of a training that has them; raises as it does."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones if both are. ``log``: every octave is as likely."""

    low: float
    high: float
    log: bool = False

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def to_json(self) -> dict[str, Any]:
        """As in the file."""
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True)
class Choices:
    """A list of values."""

    values: tuple[Plain, ...]

    def __contains__(self, value: object) -> bool:
        return value in self.values

    def to_json(self) -> list[Plain]:
        """As in the file."""
        return list(self.values)


Space = dict[str, Range | Choices]

# What the data and the machine decide, what makes scores incomparable, and what does not change what is learned.
_NOT_SEARCHED = frozenset(
    {"data", "task", "split", "seed", "options", "patience", "precision", "device", "threads", "workers", "cache"}
    | {"staged", "strict", "tensorboard", "wandb", "mlflow", "log_steps"}
)
NOT_TAKEN = ("image_labels", "staged", "patience", "tensorboard", "wandb", "mlflow", "log_steps")
"""Options of a training that a search has no use for: its trainings are single, run to their last epoch and keep no
record."""

_LARGEST = 1e15  # end of a range: whole numbers up to it are exact as floats, too
_FORMS = "write a range, {low: 0.0001, high: 0.01, log: true}, or a list of choices, [cosine, one-cycle]"


def searchable() -> list[str]:
    """Names of the settings that a space can have."""
    return [each.name for each in fields(TrainingConfig) if each.name not in _NOT_SEARCHED]


def plain(value: Any) -> Plain:
    """A setting's value as text where it is several: ``crop,flip``, ``class=1,giou=2``."""
    if isinstance(value, Mapping):
        return ",".join(f"{name}={number}" for name, number in value.items())
    if isinstance(value, list | tuple):
        return ",".join(map(str, value)) or "none"
    return str(value) if isinstance(value, Path) else value


def read_space(path: Path, given: Collection[str], check: Check) -> Space:
    """Read a space from a YAML file.

    Args:
        path: a mapping from settings to ranges and lists.
        given: settings that all trainings have in common, which cannot be searched as well.
        check: tells whether a value is possible.

    Raises:
        UsageError: the file cannot be read, names a setting that does not exist, or one of its values is not possible.
    """
    try:
        content = read_yaml(path)
    except OSError as error:
        raise UsageError(f"--space {path} cannot be read: {error.strerror or error}", f"in it, {_FORMS}") from error
    except BoundError as error:
        raise UsageError(f"--space {path} {error}", f"after the name of a setting, {_FORMS}") from error
    if not isinstance(content, dict) or not content or not all(isinstance(name, str) for name in content):
        raise UsageError(f"--space {path} is not a mapping of settings", f"after the name of each, {_FORMS}")
    return make_space(content, given, check, f"--space {path}: ")


def make_space(content: Mapping[str, Any], given: Collection[str], check: Check, where: str = "") -> Space:
    """The space that a mapping of settings describes; ``where`` begins the messages. Raises as :func:`read_space`."""
    space: Space = {}
    for written, described in content.items():
        name = str(written).replace("-", "_")
        if name in _NOT_SEARCHED:
            raise UsageError(f"{where}{name} cannot be searched", f"choose from {', '.join(searchable())}")
        if name in given:
            raise UsageError(f"{where}{name} is also given as an option", "leave one of the two out")
        if isinstance(described, Mapping):
            space[name] = _range(name, described, check, where)
        elif isinstance(described, list | tuple) and described:
            space[name] = Choices(tuple(dict.fromkeys(_checked(name, value, check, where) for value in described)))
        else:
            _checked(name, described, check, where)  # a name that does not exist is the larger fault
            raise UsageError(f"{where}{name}: {described!r:.100} is neither a range nor a list of choices", _FORMS)
    return space


def _range(name: str, described: Mapping[str, Any], check: Check, where: str) -> Range:
    missing = {"low", "high"} - set(described)
    if missing or set(described) - {"low", "high", "log"} or not isinstance(described.get("log", False), bool):
        raise UsageError(f"{where}{name}: a range has low and high, and log: true or false", _FORMS)
    low, high = (_checked(name, described[end], check, where) for end in ("low", "high"))
    numbers = [end for end in (low, high) if isinstance(end, int | float) and not isinstance(end, bool)]
    if len(numbers) < 2:
        raise UsageError(f"{where}{name}: only numbers have a range", f"list the choices, {name}: [{plain(low)}, …]")
    if max(map(abs, numbers)) > _LARGEST:
        message = f"{where}{name}: a range to {max(numbers)!r:.20} is too wide"
        raise UsageError(message, f"end it at {_LARGEST:.0e} or below")
    if numbers[0] >= numbers[1]:
        raise UsageError(f"{where}{name}: low, {numbers[0]:g}, is not below high, {numbers[1]:g}", _FORMS)
    log = described.get("log", False)
    if log and numbers[0] <= 0:
        raise UsageError(
            f"{where}{name}: a range from {numbers[0]:g} has no logarithm", "start above 0, or leave out log"
        )
    return Range(numbers[0], numbers[1], log)


def _checked(name: str, value: Any, check: Check, where: str) -> Plain:
    """The value as a configuration has it."""
    try:
        return plain(getattr(check({name: value}), name))
    except HubelError as error:
        raise UsageError(f"{where}{error.message}", error.hint) from error


# Beside the default: stronger and weaker augmentation. Boxes leave the image in crops, so that is a choice there, too.
_AUGMENTATIONS = {
    "classify": ("crop,flip", "crop,flip,color", "crop,flip,randaugment", "crop,flip,mixup,cutmix"),
    "localize": ("scale,flip,color", "scale,flip", "crop,flip,color"),
    "detect": ("crop,flip,color", "crop,flip", "scale,flip,color", "mosaic,crop,flip,color"),
    "instances": ("scale,flip,color", "scale,flip", "crop,flip,color"),
    "segment": ("scale,flip,color", "scale,flip", "flip,color"),
    "super-resolve": ("flip,turn", "flip"),
}


def default_space(default: TrainingConfig, given: Collection[str]) -> Space:
    """What is searched unless somebody says otherwise: a wide neighbourhood of the default, which it contains.

    Not the input's size and the backbone, which change what a prediction costs.

    Args:
        default: the resolved configuration that the search starts from.
        given: settings that all trainings have in common; they are left out.
    """
    epochs, head_epochs = default.epochs or 1, default.head_epochs or 0
    least = head_epochs + 1 if head_epochs < epochs else 1  # so that every trial has the same phases
    space: Space = {
        # Never more than by default: what is found does not take longer for that.
        "epochs": Choices(tuple(dict.fromkeys((max(least, round(2 * epochs / 3)), epochs)))),
        "schedule": Choices(("cosine", "one-cycle")),
        "average": Choices(_choices_with(default.average, (0.9, 0.98))),
    }
    if default.weight_decay:
        space["weight_decay"] = Range(0.005, 0.2, log=True)
    if head_epochs < epochs:
        space["learning_rate"] = _around(default.learning_rate or 1e-3)
    if head_epochs:
        space["head_learning_rate"] = _around(default.head_learning_rate or 1e-2)
    if 0 < head_epochs < epochs:
        space["unfreeze_from"] = Choices(_choices_with(default.unfreeze_from, ("0.34", "0.67", "1.0")))
        space["layer_decay"] = Choices(_choices_with(default.layer_decay or 1.0, (0.8,)))
    if not default.cache_features:
        space["augmentation"] = Choices(_choices_with(plain(default.augmentation), _AUGMENTATIONS[default.task]))
    if default.task == "classify":
        space["label_smoothing"] = Choices(_choices_with(default.label_smoothing, (0.0, 0.05, 0.1, 0.2)))
    return {name: values for name, values in space.items() if name not in given}


def _around(rate: float) -> Range:
    """Two octaves on either side."""
    return Range(rate / 4, rate * 4, log=True)


def _choices_with(first: Plain, others: tuple[Plain, ...]) -> tuple[Plain, ...]:
    return tuple(dict.fromkeys((first, *others)))
