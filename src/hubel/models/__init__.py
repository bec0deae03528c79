"""The architectures, the registry that lists them, and saved models.

A model maps a batch of images to raw tensors, the same type in training and evaluation, and brings its losses and the
decoding of its outputs. Thresholds and suppression belong to the tasks. Imported on first use, as names and metadata
are read without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hubel.models.base import Architecture as Architecture
    from hubel.models.base import Classifier as Classifier
    from hubel.models.checkpoint import describe as describe
    from hubel.models.checkpoint import load_model as load_model
    from hubel.models.checkpoint import resolve_model as resolve_model
    from hubel.models.checkpoint import save_model as save_model
    from hubel.models.factory import create_model as create_model
    from hubel.models.factory import default_preprocessing as default_preprocessing
    from hubel.models.factory import summary as summary
    from hubel.models.metadata import ModelMetadata as ModelMetadata
    from hubel.models.registry import architecture as architecture
    from hubel.models.registry import list_models as list_models

_HOME_OF = {
    "Architecture": "base",
    "Classifier": "base",
    "ModelMetadata": "metadata",
    "architecture": "registry",
    "create_model": "factory",
    "default_preprocessing": "factory",
    "describe": "checkpoint",
    "list_models": "registry",
    "load_model": "checkpoint",
    "resolve_model": "checkpoint",
    "save_model": "checkpoint",
    "summary": "factory",
}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"hubel.models.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'hubel.models' has no attribute {name!r}")
