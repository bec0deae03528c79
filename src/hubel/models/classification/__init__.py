"""The classifiers, a family per file; :mod:`hubel.models.registry` lists them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hubel.models.base import Architecture, Classifier


def imagenet_classifier(
    name: str, build: Callable[..., Classifier], config: Any, depth: int, reference: str, size: int = 224
) -> Architecture:
    """An architecture for colour images of ``size`` × ``size`` pixels and ImageNet's 1000 classes."""
    return Architecture(name, "classify", build, config, (3, size, size), 1000, depth, reference)
