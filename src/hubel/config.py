"""Everything a training run can be told; kept as ``config.yaml`` in its folder."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hubel.errors import DataError, UsageError

DEFAULT_NETWORK = "efficientnet_lite0"

# By task, chosen by measurement on flowers5, raccoon and bccd; docs/results.md has the figures. Crops would show
# boxes larger than they are in prediction; where one box is all there is, jitter shows them smaller as often. An epoch
# of a hundred images has three steps: the average must not reach back over most of the run.
DEFAULTS: dict[str, dict[str, Any]] = {
    "classify": {"batch": 32, "augmentation": ("crop", "flip"), "average": 0.98},
    "localize": {"batch": 32, "augmentation": ("scale", "flip", "color"), "average": 0.9},
    "detect": {"batch": 16, "augmentation": ("crop", "flip", "color"), "average": 0.98},
}


def _by_task(name: str) -> Callable[[dict[str, Any]], Any]:
    """What makes a setting that was not given, of those given before it."""
    return lambda given: DEFAULTS[given.get("task", "classify")][name]


class SplitFractions(NamedTuple):
    """Shares of the samples that train, validate and test; they sum to 1."""

    train: float = 0.75
    val: float = 0.15
    test: float = 0.10


def parse_fractions(text: str) -> SplitFractions:
    """Read ``"0.75,0.15,0.10"``: train, validation, test.

    Raises:
        ValueError: these are not three numbers that sum to 1, or nothing is left to train or to validate on;
            the message is for the person who typed them.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(math.isfinite(number) for number in numbers):
        raise ValueError(f"{text!r} is not three numbers for train, validation, test, such as 0.75,0.15,0.10")
    if min(numbers) < 0:
        raise ValueError(f"{text!r} has a negative share")
    if abs(sum(numbers) - 1) > 1e-6:
        raise ValueError(f"{text!r} sums to {sum(numbers):g}, not to 1")
    if numbers[0] == 0 or numbers[1] == 0:
        raise ValueError(f"{text!r} leaves nothing to train on or nothing to validate on")
    return SplitFractions(*numbers)


class TrainingSettings(BaseModel):
    """Settings of a run, checked on construction.

    Rates are for AdamW; ``None`` stands for a value that depends on whether training starts from pretrained
    weights: see :meth:`resolved`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    data: Path
    task: Literal["classify", "localize", "detect"] = "classify"
    model: str = DEFAULT_NETWORK
    backbone: str | None = None
    weights: str | None = "default"
    options: dict[str, Any] = Field(default_factory=dict)
    epochs: int | None = Field(None, ge=1)
    head_epochs: int | None = Field(None, ge=0)
    image_size: int | None = Field(None, ge=8)
    training_size: int | None = Field(None, ge=8)
    batch: int = Field(default_factory=_by_task("batch"), ge=1)
    accumulate: int = Field(1, ge=1)
    split: tuple[float, float, float] = (0.75, 0.15, 0.10)
    seed: int = 0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float | None = Field(None, gt=0)
    head_learning_rate: float | None = Field(None, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    schedule: Literal["cosine", "one-cycle", "constant"] = "cosine"
    warmup: float = Field(1.0, ge=0)
    unfreeze_from: str | None = None
    batch_norm: Literal["frozen", "train"] | None = None
    label_smoothing: float | None = Field(None, ge=0, lt=1)
    loss_weights: dict[str, float] = Field(default_factory=dict)
    augmentation: tuple[str, ...] = Field(default_factory=_by_task("augmentation"))
    average: float = Field(default_factory=_by_task("average"), ge=0, lt=1)
    balance: Literal["auto", "none", "sampling", "loss", "smote"] = "auto"
    patience: int = Field(10, ge=1)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: str = "auto"
    threads: int | None = Field(None, ge=1)
    workers: int | None = Field(None, ge=0)
    cache: Literal["auto", "ram", "disk", "none"] = "auto"
    cache_features: bool = False
    tensorboard: bool = False
    strict: bool = False

    @field_validator("split", mode="before")
    @classmethod
    def _split_from_text(cls, value: Any) -> Any:
        return parse_fractions(value) if isinstance(value, str) else value

    @field_validator("augmentation", mode="before")
    @classmethod
    def _augmentation_from_text(cls, value: Any) -> Any:
        names = value.split(",") if isinstance(value, str) else list(value)
        return tuple(name.strip() for name in names if name.strip() not in ("", "none"))

    @field_validator("loss_weights", mode="before")
    @classmethod
    def _loss_weights_from_text(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
        return {name.strip(): float(number) for name, _, number in pairs}

    @property
    def pretrained(self) -> bool:
        """Whether training starts from published weights."""
        return self.weights is not None

    def resolved(self, has_weights: bool) -> TrainingSettings:
        """Fill in what depends on the start: from pretrained weights, or from scratch.

        Args:
            has_weights: the architecture has weights to start from.
        """
        start = RECIPES[self.task][0 if self.pretrained and has_weights else 1]
        missing = {key: value for key, value in start.items() if getattr(self, key) is None}
        if not has_weights:
            missing["weights"] = None
        elif self.balance == "smote" and "head_epochs" in missing and self.unfreeze_from is None:
            missing["head_epochs"] = self.epochs or start["epochs"]  # it is for a head on fixed features
        return self.model_copy(update=missing)


# The head learns until it is good before anything below it moves: fine-tuning from a poor head distorts the features
# (Kumar et al. 2022, arXiv 2202.10054).
TRANSFER: dict[str, Any] = {
    "epochs": 11,
    "head_epochs": 3,
    "learning_rate": 3e-4,
    "unfreeze_from": "0.67",
    "batch_norm": "frozen",
}
FROM_SCRATCH: dict[str, Any] = {
    "epochs": 60,
    "head_epochs": 0,
    "learning_rate": 2e-3,
    "unfreeze_from": "1.0",
    "batch_norm": "train",
}
_CLASSES: dict[str, Any] = {"head_learning_rate": 1e-2, "label_smoothing": 0.1}
_BOXES: dict[str, Any] = {"head_learning_rate": 3e-3, "label_smoothing": 0.0}
RECIPES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "classify": ({**TRANSFER, **_CLASSES}, {**FROM_SCRATCH, **_CLASSES}),
    "detect": (
        {**FROM_SCRATCH, **_BOXES, "epochs": 60},
        {**FROM_SCRATCH, **_BOXES, "epochs": 200},
    ),
    "localize": (
        {**TRANSFER, **_BOXES, "epochs": 20, "head_epochs": 3, "learning_rate": 1e-3},
        {**FROM_SCRATCH, **_BOXES, "epochs": 120},
    ),
}
"""By task: from pretrained weights, and from scratch."""


def make_settings(**values: Any) -> TrainingSettings:
    """Build settings; a value that is out of range raises :class:`UsageError` that names it."""
    try:
        return TrainingSettings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"]) or "settings"
        raise UsageError(
            f"{name} = {first.get('input')!r}: {first['msg'].lower()}", "see hubel train --help"
        ) from error


def write_settings(path: Path, settings: TrainingSettings) -> None:
    """Write ``config.yaml``."""
    from hubel.fileio import write_text

    write_text(path, yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))


def read_settings(path: Path) -> TrainingSettings:
    """Read ``config.yaml``; raises :class:`DataError` when it is missing or damaged."""
    try:
        return make_settings(**yaml.safe_load(path.read_text()))
    except FileNotFoundError:
        raise DataError(
            f"{path} is missing: {path.parent} is not a run that can be resumed", "start it again without --resume"
        ) from None
    except (yaml.YAMLError, TypeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged: {error}", "start the run again without --resume") from error
