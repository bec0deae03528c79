"""A model that is loaded only when something needs its weights in torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hubel.errors import ModelError
from hubel.models.card import ModelCard
from hubel.models.reference import FoundModel, find_model

if TYPE_CHECKING:
    from torch import nn


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

    def __init__(self, model: str | Path | nn.Module, card: ModelCard | None = None) -> None:
        self._model = model
        self._card = card
        self._network: nn.Module | None = None
        self.found: FoundModel | None = None
        if isinstance(model, str | Path):
            self.name = str(model)
            self.found = find_model(model)
        else:
            self.name = self.load()[1].architecture

    def load(self) -> tuple[nn.Module, ModelCard]:
        """The network, in evaluation mode unless it was handed over, and its card.

        Raises:
            ModelError: it cannot be found, is damaged, or does not classify.
            WeightsError: the weights could not be had.
        """
        from hubel.models.saved import describe, resolve_model

        if self._network is None:
            if isinstance(self._model, str | Path):
                self._network, self._card = resolve_model(self._model)
            else:
                self._network, self._card = self._model, self._card or describe(self._model)
        assert self._card is not None
        return self._network, classifying(self._card, self._model)


def classifying(card: ModelCard, model: object) -> ModelCard:
    """The card, if it is a classifier's.

    Raises:
        ModelError: it is not.
    """
    if card.task != "classify":
        raise ModelError(
            f"{model}: predicting with a model of the task {card.task!r} is not available", "use a classifier"
        )
    return card
