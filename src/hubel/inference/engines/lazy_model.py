"""A model that is loaded only when something needs its weights in torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hubel.errors import ModelError
from hubel.models.metadata import FoundModel, ModelMetadata, find_model

if TYPE_CHECKING:
    import numpy as np
    from torch import nn


TASKS = ("classify", "localize", "detect")
"""Of the models that are predicted with."""


class ModelSource:
    """What a predictor was given.

    Args:
        model: a reference, as :func:`hubel.models.resolve_model` takes it, or a module.
        card: of a module; by default what ``create_model`` knows of it.

    Attributes:
        name: what results and log lines call it.
        found: which model it is, where that can be told without torch; None for modules, which may be anything.

    Raises:
        ModelError, WeightsError: as ``resolve_model``.
    """

    def __init__(self, model: str | Path | nn.Module, metadata: ModelMetadata | None = None) -> None:
        self._model = model
        self._card = metadata
        self._network: nn.Module | None = None
        self.found: FoundModel | None = None
        if isinstance(model, str | Path):
            self.name = str(model)
            self.found = find_model(model)
        else:
            self.name = self.load()[1].architecture

    def load(self) -> tuple[nn.Module, ModelMetadata]:
        """The network, in evaluation mode unless it was handed over, and its card.

        Raises:
            ModelError: it cannot be found, is damaged, or its task is not predicted with.
            WeightsError: the weights could not be had.
        """
        from hubel.models.checkpoint import describe, resolve_model

        if self._network is None:
            if isinstance(self._model, str | Path):
                self._network, self._card = resolve_model(self._model)
            else:
                self._network, self._card = self._model, self._card or describe(self._model)
        assert self._card is not None
        return self._network, require_supported_task(self._card, self._model)

    def anchors(self) -> np.ndarray | None:
        """A detector's anchors for its input: float32 (A, 4) in pixels; None for other tasks.

        Raises:
            ModelError: as :meth:`load`, or the module that was handed over has none.
        """
        from hubel.models.base import Detector

        network, metadata = self.load()
        if metadata.task != "detect":
            return None
        if not isinstance(network, Detector):
            raise ModelError(
                f"{self.name} has no anchors: it is no detector of hubel's.", "Make it with hubel.create_model."
            )
        boxes: np.ndarray = network.anchors(metadata.preprocessing.height, metadata.preprocessing.width).numpy()
        return boxes


def require_supported_task(metadata: ModelMetadata, model: object) -> ModelMetadata:
    """The card, if its task is one that is predicted with.

    Raises:
        ModelError: it is not.
    """
    if metadata.task not in TASKS:
        raise ModelError(
            f"{model}: predicting with a model of the task {metadata.task!r} is not available",
            f"use a model that can {' or '.join(TASKS)}",
        )
    return metadata
