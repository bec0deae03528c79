"""From another library's parameters to ours. Whose file it is, its keys tell (:mod:`hubel.weights.key_rules`)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from hubel.errors import WeightsError
from hubel.weights.key_rules import FORMATS
from hubel.weights.key_rules.key_rules import KeyRules, Rules

if TYPE_CHECKING:
    from torch import Tensor


class Renamed(NamedTuple):
    """Tensors under our names, and what else they need.

    Attributes:
        state: name → tensor.
        settings: options of ``create_model`` without which the network computes something else.
        source: whose format it was, as the catalog calls them (``"keras"``); None for our own.
    """

    state: dict[str, Tensor]
    settings: dict[str, Any]
    source: str | None


def rename(state: Mapping[str, Tensor], architecture: str, origin: str = "The weights file") -> Renamed:
    """Give a state dictionary our names, and its tensors our layout.

    Args:
        state: parameters and buffers by name, as we or another library save them. Ours pass through.
        architecture: the one they are for, as in ``create_model(architecture)``.
        origin: the file, for messages.

    Returns:
        The tensors in the same order, the settings, the source. A key that the format does not know stays, so that
        loading names it.

    Raises:
        WeightsError: the keys are of no format that is known, or of another family.
    """
    matching = [known for known in FORMATS if known.signature in state]
    if not matching and any(key.startswith("backbone.") for key in state):
        return Renamed(dict(state), {}, None)
    known = _recognized(matching, state, architecture, origin)
    kept = {key: tensor for key, tensor in state.items() if not re.fullmatch(known.ignored, key)}
    renamed = {_renamed(key, known.rules): tensor for key, tensor in kept.items()}
    try:
        for adapt in known.adaptations:
            adapt(renamed)
    except (KeyError, RuntimeError, IndexError) as error:
        raise WeightsError(
            f"{origin} is not complete: it looks like {known.name}, but {error} is wrong or missing.",
            "get the file again",
        ) from error
    return Renamed(renamed, dict(known.settings), known.source)


def _recognized(matching: list[KeyRules], state: Mapping[str, Tensor], architecture: str, origin: str) -> KeyRules:
    if not matching:
        first = ", ".join(list(state)[:3]) or "none"
        raise WeightsError(
            f"{origin} has keys of no known format (the first: {first}).",
            "give a file of hubel, torchvision, timm, Keras or efficientnet-lite-pytorch",
        )
    for known in matching:
        if re.fullmatch(known.architectures, architecture):
            return known
    raise WeightsError(
        f"{origin} holds weights of {matching[0].name}, not of {architecture}.",
        "choose the architecture that the file was made for",
    )


def _renamed(key: str, rules: Rules) -> str:
    module, _, parameter = key.rpartition(".")
    for pattern, ours in rules:
        match = re.fullmatch(pattern, module)
        if match:
            return f"{match.expand(ours)}.{parameter}"
    return key
