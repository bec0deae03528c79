"""The network a run begins with: pretrained features and a new head, or random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from hubel.config import TrainingSettings
from hubel.errors import ModelError
from hubel.models import ModelCard, architecture, create_model, describe
from hubel.models.base import ClassificationHead, Network
from hubel.training.tasks import task_named
from hubel.weights import default_entry


def weights_name(settings: TrainingSettings) -> str | None:
    """The catalog name or file to start from; ``None`` from scratch or where there are no weights.

    They are the network's, or its backbone's, if it has one that can be chosen.
    """
    if settings.weights != "default":
        return settings.weights
    entry = default_entry(settings.backbone or architecture(settings.model).backbone or settings.model)
    return entry.name if entry else None


def make_model(settings: TrainingSettings, classes: Sequence[str]) -> tuple[Network, ModelCard]:
    """The network with a head for the data's classes, and its card."""
    row = architecture(settings.model)
    size = settings.image_size or row.input[1]
    begin: dict[str, Any] = {"weights": weights_name(settings)}
    if row.backbone is not None:
        ground = settings.backbone or row.backbone
        begin = {"backbone": f"{ground}:{begin['weights']}" if begin["weights"] else ground}
    torch.manual_seed(settings.seed)
    model = create_model(
        settings.model, len(classes), in_channels=row.input[0], image_size=size, **begin, **settings.options
    )
    if not isinstance(model, Network):
        raise ModelError(f"{settings.model} is not trained here", "hubel models lists the networks there are")
    card = replace(describe(model), classes=list(classes))
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
