"""The architectures, the registry that lists them, and saved models.

A model maps a batch of images to raw tensors, the same type in training and evaluation. Losses, thresholds
and decoding belong to the tasks. Imported on first use, as a model's card is read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubel.models.card import ModelCard as ModelCard
    from hubel.models.creation import architecture as architecture
    from hubel.models.creation import create_model as create_model
    from hubel.models.creation import default_preprocessing as default_preprocessing
    from hubel.models.creation import list_models as list_models
    from hubel.models.creation import summary as summary
    from hubel.models.registry import Architecture as Architecture
    from hubel.models.registry import ClassificationHead as ClassificationHead
    from hubel.models.registry import Classifier as Classifier
    from hubel.models.saved import describe as describe
    from hubel.models.saved import load_model as load_model
    from hubel.models.saved import resolve_model as resolve_model
    from hubel.models.saved import save_model as save_model

_HOME_OF = {
    "Architecture": "registry",
    "ClassificationHead": "registry",
    "Classifier": "registry",
    "ModelCard": "card",
    "architecture": "creation",
    "create_model": "creation",
    "default_preprocessing": "creation",
    "describe": "saved",
    "list_models": "creation",
    "load_model": "saved",
    "resolve_model": "saved",
    "save_model": "saved",
    "summary": "creation",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"hubel.models.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'hubel.models' has no attribute {name!r}")
