"""The architectures, the registry that lists them, and saved models.

A model maps a batch of images to raw tensors, the same type in training and evaluation. Losses, thresholds
and decoding belong to the tasks.
"""

from hubel.models.creation import architecture, create_model, default_preprocessing, list_models, summary
from hubel.models.registry import Architecture, ClassificationHead, Classifier
from hubel.models.saved import ModelCard, describe, load_model, resolve_model, save_model

__all__ = [
    "Architecture",
    "ClassificationHead",
    "Classifier",
    "ModelCard",
    "architecture",
    "create_model",
    "default_preprocessing",
    "describe",
    "list_models",
    "load_model",
    "resolve_model",
    "save_model",
    "summary",
]
