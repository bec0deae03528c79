"""The network a run begins with: pretrained features and a new head, or random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from hubel.errors import ModelError
from hubel.models import ModelCard, architecture, create_model, describe
from hubel.models.registry import ClassificationHead, Network
from hubel.training.settings import TrainingSettings
from hubel.training.tasks import task_named
from hubel.weights import default_entry


def weights_name(settings: TrainingSettings) -> str | None:
    """The catalog name or file to start from; ``None`` from scratch or where the architecture has no weights."""
    if settings.weights != "default":
        return settings.weights
    entry = default_entry(settings.model)
    return entry.name if entry else None


def make_model(settings: TrainingSettings, classes: Sequence[str]) -> tuple[Network, ModelCard]:
    """The network with a head for the data's classes, and its card."""
    row = architecture(settings.model)
    channels = row.input[0]
    size = settings.image_size or row.input[1]
    weights = weights_name(settings)
    torch.manual_seed(settings.seed)
    model = create_model(
        settings.model, len(classes), in_channels=channels, image_size=size, weights=weights, **settings.options
    )
    if not isinstance(model, Network):
        raise ModelError(f"{settings.model} is not trained here", "hubel models lists the networks there are")
    card = replace(describe(model), classes=list(classes))
    if weights is not None:  # the whole centre of a photograph: what one trains on is seldom as centred as ImageNet
        card = replace(card, preprocessing=replace(card.preprocessing, crop_fraction=1.0))
    return model, task_named(settings.task).prepare(settings, model, card)


def training_size(settings: TrainingSettings, model: Network, size: int) -> int:
    """Side of the training crops for a prediction input of ``size`` pixels.

    Random crops show objects larger than they are in prediction. Training at six sevenths of the size, to a
    multiple of 32, makes up for it (Touvron et al. 2019, arXiv 1906.06423) and takes less time; networks whose
    dense layers have a fixed size, or that learn from scratch, train at the size itself.
    """
    if settings.training_size:
        return settings.training_size
    flexible = isinstance(model.head, ClassificationHead) and settings.pretrained and "crop" in settings.augmentation
    return max(32, round(size * 6 / 7 / 32) * 32) if flexible and size >= 64 else size
