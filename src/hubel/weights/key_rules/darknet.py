"""Darknet's ``.weights`` files: numbers without names, in the order of the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hubel.errors import WeightsError
from hubel.weights.key_rules.base import KeyRules

if TYPE_CHECKING:
    from torch import Tensor

FLAT = "flat"
"""The one tensor of such a file; the model says by ``flat_order()`` what it is made of."""


def unflatten(flat: Tensor, order: Sequence[str], own: dict[str, Tensor], origin: str) -> dict[str, Tensor]:
    """A state dictionary of a file's numbers.

    Args:
        flat: float32 (numbers,).
        order: names of the tensors.
        own: the model's state dictionary, for their shapes.
        origin: the file, for messages.

    Raises:
        WeightsError: the file has more or fewer numbers than the model.
    """
    wanted = sum(own[name].numel() for name in order)
    if flat.numel() != wanted:
        raise WeightsError(
            f"{origin} has {flat.numel():,} numbers, and the network {wanted:,}.",
            "Give the cfg that the file was made with (cfg=..., num_classes=...).",
        )
    parts = flat.split([own[name].numel() for name in order])
    return {name: part.view_as(own[name]).clone() for name, part in zip(order, parts, strict=True)}


KEY_RULES = (KeyRules("Darknet's networks", r"yolo_.*", FLAT, ()),)
