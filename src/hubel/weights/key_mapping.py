"""Translate other libraries' parameter names into ours; a file's keys tell which library wrote it.

The rules are in :mod:`hubel.weights.key_rules`; a group of families is imported when weights of one of them are read.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from hubel.errors import WeightsError
from hubel.weights.key_rules import KeyRules, Rules

if TYPE_CHECKING:
    from torch import Tensor

# Module → pattern of the architectures whose files it describes.
_MODULES = {
    "vgg": r"alexnet_owt|vgg\d+",
    "inception": r"googlenet_bn|inception_.*|xception",
    "resnet": r"resnet\d+|resnext.*|se_resnet\d+|senet154|densenet\d+|csp.*",
    "mbconv": r"mobilenet_.*|efficientnet_.*",
    "detection": r"ssd.*|yolo_.*|darknet_.*",
    "efficientdet": r"efficientdet_.*",
    "faster_rcnn": r"(faster|mask)rcnn_.*",
    "segmentation": r"fcn.*|deeplabv3_.*|lraspp_.*",
}


def rules_for(architecture: str) -> tuple[KeyRules, ...]:
    """The formats in which weights of an architecture are published; empty if it has none."""
    modules = [module for module, pattern in _MODULES.items() if re.fullmatch(pattern, architecture)]
    return tuple(rules for rules in _load(*modules) if re.fullmatch(rules.architectures, architecture))


def all_rules() -> tuple[KeyRules, ...]:
    """The formats of all architectures."""
    return _load(*_MODULES)


def _load(*modules: str) -> tuple[KeyRules, ...]:
    loaded = (importlib.import_module(f"hubel.weights.key_rules.{module}") for module in modules)
    return tuple(rules for module in loaded for rules in module.KEY_RULES)


class Renamed(NamedTuple):
    """Tensors under our names, and what else they need.

    Attributes:
        settings: options of ``create_model`` without which the network computes something else.
        source: the library that named them, as the catalog spells it (``"keras"``); None for hubel.
    """

    state: dict[str, Tensor]
    settings: dict[str, Any]
    source: str | None


def rename(state: Mapping[str, Tensor], architecture: str, origin: str = "The weights file") -> Renamed:
    """Give a state dictionary our names, in the same order, and its tensors our layout.

    A key that the format does not know is left as it is, so that loading reports it.

    Args:
        state: parameters and buffers by name, as hubel or another library saves them. Ours pass through.
        architecture: the one they are for, as in ``create_model(architecture)``.
        origin: the file, for messages.

    Raises:
        WeightsError: the keys are of an unknown format, or of another family's.
    """
    rules = next((rules for rules in rules_for(architecture) if rules.signature in state), None)
    if rules is None:
        others = [other.name for other in all_rules() if other.signature in state]
        if others:
            raise WeightsError(
                f"{origin} contains weights of {others[0]}, not of {architecture}",
                "choose the architecture that the file was made for",
            )
        if any(key.startswith("backbone.") for key in state):
            return Renamed(dict(state), {}, None)
        first = ", ".join(list(state)[:3]) or "none"
        raise WeightsError(
            f"{origin} has keys of an unknown format (the first: {first})",
            "use a file from hubel, torchvision, timm, Keras, effdet or efficientnet-lite-pytorch",
        )
    renamed = {_renamed(key, rules.rules): tensor for key, tensor in state.items()}
    try:
        for adapt in rules.adaptations:
            adapt(renamed)
    except (KeyError, RuntimeError, IndexError) as error:
        raise WeightsError(
            f"{origin} is incomplete: it looks like {rules.name}, but {error} is wrong or missing",
            "download the file again",
        ) from error
    return Renamed(renamed, dict(rules.settings), rules.source)


def _renamed(key: str, rules: Rules) -> str:
    module, _, parameter = key.rpartition(".")
    for pattern, ours in rules:
        match = re.fullmatch(pattern, module)
        if match:
            return f"{match.expand(ours)}.{parameter}"
    return key
