"""Options that are for classification alone, and networks that stand on a classifier."""

from __future__ import annotations

from hubel.config import DEFAULT_NETWORK, TrainingSettings
from hubel.data.transforms.object_pipeline import check_object_augmentations
from hubel.errors import UsageError
from hubel.models import architecture


def reject_classification_options(settings: TrainingSettings) -> None:
    """For other tasks.

    Raises:
        UsageError: an option is set that means nothing there.
    """
    given = {
        "--balance": settings.balance not in ("auto", "none"),
        "--label-smoothing": bool(settings.label_smoothing),
        "--cache-features": settings.cache_features,
        "--training-size": settings.training_size is not None,
    }
    for option, is_set in given.items():
        if is_set:
            raise UsageError(f"{option} is for --task classify, not for {settings.task}", "leave it out")


def with_object_augmentations(settings: TrainingSettings) -> TrainingSettings:
    """Settings whose augmentations are those that carry boxes, in the order of application, presets spelled out.

    Raises:
        UsageError: there is no such augmentation.
    """
    return settings.model_copy(update={"augmentation": check_object_augmentations(settings.augmentation)})


def with_backbone(settings: TrainingSettings, network: str) -> TrainingSettings:
    """Settings in which a classifier that was named as the network is the backbone of another one.

    Args:
        settings: as they were given.
        network: what stands on classifiers.

    Raises:
        UsageError: two of them were named.
    """
    if architecture(settings.model).task != "classify":
        return settings
    if settings.backbone is not None and settings.model != DEFAULT_NETWORK:
        message = f"--model {settings.model} is a backbone of {network}, and so is --backbone {settings.backbone}"
        raise UsageError(message, "name one of them")
    return settings.model_copy(update={"model": network, "backbone": settings.backbone or settings.model})
