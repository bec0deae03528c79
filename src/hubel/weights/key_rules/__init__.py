"""Parameter names of other libraries as tables of data, a group of related families per file.

A library's file is recognized by one key that no other library's file for the same architectures has. Its keys are
translated by the first rule whose pattern matches the whole key. Where the library also lays tensors out in another
way, adaptations put that right. A group is imported when weights of one of its architectures are read.
"""

from __future__ import annotations

import importlib
import re

from hubel.weights.key_rules.base import KeyRules

# Module → pattern of the architectures whose files it describes.
_MODULES = {
    "vgg": r"alexnet_owt|vgg\d+",
    "inception": r"googlenet_bn|inception_.*|xception",
    "resnet": r"resnet\d+|resnext.*|se_resnet\d+|senet154|densenet\d+|csp.*",
    "mobilenet": r"mobilenet_.*",
    "efficientnet": r"efficientnet_.*",
    "ssd": r"ssd.*",
    "darknet": r"yolo_.*",
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
