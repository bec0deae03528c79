"""Options that are for classification alone, and networks that stand on a classifier."""

from __future__ import annotations

from dataclasses import replace

from hubel.config import DEFAULT_NETWORK, TrainingConfig
from hubel.data.transforms.object_transform import check_object_augmentations
from hubel.errors import UsageError
from hubel.models import architecture


def reject_classification_options(config: TrainingConfig) -> None:
    """For other tasks.

    Raises:
        UsageError: an option is set that means nothing there.
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


def with_object_augmentations(config: TrainingConfig) -> TrainingConfig:
    """The configuration with the augmentations that carry boxes, in the order of application, presets spelled out.

    Raises:
        UsageError: there is no such augmentation.
    """
    return replace(config, augmentation=check_object_augmentations(config.augmentation))


def with_backbone(config: TrainingConfig, network: str) -> TrainingConfig:
    """The configuration with a classifier that was named as the network as the backbone of another one.

    Args:
        config: as given.
        network: what stands on classifiers.

    Raises:
        UsageError: two of them were named.
    """
    if architecture(config.model).task != "classify":
        return config
    if config.backbone is not None and config.model != DEFAULT_NETWORK:
        message = f"--model {config.model} is a backbone of {network}, and so is --backbone {config.backbone}"
        raise UsageError(message, "name one of them")
    return replace(config, model=network, backbone=config.backbone or config.model)
