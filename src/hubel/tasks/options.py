"""Options of training that several tasks treat alike."""

from __future__ import annotations

from dataclasses import replace

from hubel.config import DEFAULT_NETWORK, TrainingConfig
from hubel.errors import UsageError
from hubel.models import architecture


def reject_classification_options(config: TrainingConfig) -> None:
    """For other tasks.

    Raises:
        UsageError: an option is set that only classification has.
    """
    given = {
        "--balance": config.balance not in ("auto", "none"),
        "--label-smoothing": bool(config.label_smoothing),
        "--cache-features": config.cache_features,
        "--training-size": config.training_size is not None,
    }
    for option, is_set in given.items():
        if is_set:
            raise UsageError(f"{option} is for --task classify, not for {config.task}", "leave it out")


def with_backbone(config: TrainingConfig, network: str) -> TrainingConfig:
    """Turn a classifier that was named as the model into the backbone of ``network``.

    Raises:
        UsageError: two backbones were named.
    """
    if not architecture(config.model).is_backbone:
        return config
    if config.backbone is not None and config.model != DEFAULT_NETWORK:
        message = f"--model {config.model} is a backbone of {network}, and so is --backbone {config.backbone}"
        raise UsageError(message, "name one of them")
    return replace(config, model=network, backbone=config.backbone or config.model)
