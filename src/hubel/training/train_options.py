"""Keywords of :func:`hubel.train` with their types, for editors and type checkers.

What they mean stands at the fields of :class:`hubel.config.TrainingConfig`.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, ForwardRef, Literal, TypedDict

from hubel.config import TrainingConfig


class TrainingOptions(TypedDict, total=False):
    """See :class:`hubel.config.TrainingConfig`; text is read as on the command line."""

    task: Literal["classify", "localize", "detect", "segment", "instances", "super-resolve"]
    model: str
    backbone: str | None
    weights: str | Path | None
    options: Mapping[str, Any] | Sequence[str]
    image_labels: str | Path | None
    epochs: int | None
    head_epochs: int | None
    image_size: int | None
    training_size: int | None
    batch: int
    accumulate: int
    split: tuple[float, float, float] | str
    seed: int
    optimizer: Literal["adamw", "sgd"]
    learning_rate: float | None
    head_learning_rate: float | None
    layer_decay: float | None
    weight_decay: float
    schedule: Literal["cosine", "one-cycle", "constant"]
    warmup: float
    unfreeze_from: str | None
    staged: bool
    batch_norm: Literal["frozen", "train"] | None
    label_smoothing: float | None
    loss_weights: Mapping[str, float] | str
    augmentation: Sequence[str] | str
    close_mosaic: int
    average: float
    balance: Literal["auto", "none", "sampling", "loss", "smote"]
    patience: int
    precision: Literal["auto", "float32", "bfloat16", "float16"]
    device: str
    threads: int | None
    workers: int | None
    cache: Literal["auto", "ram", "disk", "none"]
    cache_features: bool
    tensorboard: bool
    wandb: bool
    mlflow: bool
    log_steps: bool
    strict: bool


def with_options(signature: inspect.Signature, without: Collection[str] = ()) -> inspect.Signature:
    """The signature with each option, but those ``without``, as a keyword, which notebooks complete."""
    defaults = {each.name: each.default for each in fields(TrainingConfig)}
    *own, _ = signature.parameters.values()
    options = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if defaults[name] is MISSING else defaults[name],
            annotation=kind.__forward_arg__ if isinstance(kind, ForwardRef) else kind,
        )
        for name, kind in TrainingOptions.__annotations__.items()
        if name not in without
    ]
    return signature.replace(parameters=[*own, *options])
