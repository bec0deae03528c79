"""What describes how a library names the parameters of one family of architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

Rules = tuple[tuple[str, str], ...]
Adaptation = Callable[[dict[str, "Tensor"]], None]


@dataclass(frozen=True)
class KeyRules:
    """How one library names, and where it differs how it lays out, the parameters of one family.

    Attributes:
        name: library and family, for messages: ``"torchvision's ResNets"``. It begins with the library, of two that
            name alike with the one whose preprocessing counts.
        architectures: pattern of the names of our architectures that it belongs to.
        signature: a key that every such file has, and no other format's of the same architectures.
        rules: (pattern of a key without its last part, ours); the first that matches the whole counts.
        ignored: pattern of keys that mean nothing to prediction and are dropped.
        adaptations: change the renamed tensors in place where the library computes with another layout
            (:mod:`hubel.weights.key_rules.tensor_transforms`).
        settings: options of our architecture without which these weights give other numbers.
    """

    name: str
    architectures: str
    signature: str
    rules: Rules
    ignored: str = ""
    adaptations: tuple[Adaptation, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def source(self) -> str:
        """The library as the catalog calls it: ``"torchvision"``, ``"timm"``, ``"keras"``; else its own name."""
        library = self.name.partition("'s ")[0]
        return {"the package efficientnet-lite-pytorch": "google"}.get(library, library.lower())
