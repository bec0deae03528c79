"""Parameter names of other libraries as tables of data, a group of related families per file.

A library's file is recognized by one key that no other library's file for the same architectures has. Its keys are
translated by the first rule whose pattern matches the whole key. Where the library also lays tensors out in another
way, adaptations put that right.
"""

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
    """Parameter names, and where they differ tensor layouts, of one family in one library.

    Attributes:
        name: library and family, for messages: ``"torchvision's ResNets"``. It begins with the library; of two with
            equal names, with the one whose preprocessing applies.
        architectures: pattern of our architectures' names.
        signature: a key in every such file, and in no other format of the same architectures.
        rules: (pattern of a key without its last part, our name); the first full match applies.
        adaptations: change the renamed tensors in place if the library computes with another layout.
        settings: options of our architecture that these weights need; ``backbone.OPTION``: of its backbone.
    """

    name: str
    architectures: str
    signature: str
    rules: Rules
    adaptations: tuple[Adaptation, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def source(self) -> str:
        """The library as the catalog calls it: ``"torchvision"``, ``"timm"``, ``"keras"``; else its own name."""
        library = self.name.partition("'s ")[0]
        return {"the package efficientnet-lite-pytorch": "google", "TensorFlow": "google"}.get(library, library.lower())


def fold_convolution_biases(state: dict[str, Tensor]) -> None:
    """Move biases of convolutions that a batch normalization follows into its running mean.

    Keras's ResNets have both; ``norm(conv + b)`` with mean μ is ``norm(conv)`` with mean ``μ - b``.
    """
    for key in [key for key in state if key.endswith(".conv.bias")]:
        mean = key.removesuffix("conv.bias") + "norm.running_mean"
        if mean in state:
            state[mean] = state[mean] - state.pop(key)


def x_before_y(offsets: Tensor) -> Tensor:
    """Weights or biases (4 · boxes, …) of TensorFlow's offsets y, x, height, width, for ours: x, y, width, height."""
    ours: Tensor = offsets.unflatten(0, (-1, 4))[:, [1, 0, 3, 2]].flatten(0, 1)
    return ours


def reversed_input(key: str) -> Adaptation:
    """The first convolution ``key`` was trained on images with channels in the order blue, green, red."""

    def adapt(state: dict[str, Tensor]) -> None:
        state[key] = state[key].flip(1)

    return adapt


def flattened_channels_last(key: str, channels: int) -> Adaptation:
    """The dense layer ``key`` reads maps flattened as height, width, channels; ours as channels, height, width."""

    def adapt(state: dict[str, Tensor]) -> None:
        weight = state[key]
        state[key] = weight.reshape(len(weight), -1, channels).transpose(1, 2).flatten(1).contiguous()

    return adapt


def convolution_as_dense(key: str) -> Adaptation:
    """The 1×1 convolution ``key`` (out, in, 1, 1) is a dense layer (out, in) here."""

    def adapt(state: dict[str, Tensor]) -> None:
        state[key] = state[key].flatten(1)

    return adapt


def conv_norm(units: Mapping[str, tuple[str, str]]) -> Rules:
    """Rules for convolutions with their normalizations: our name of both → patterns of theirs."""
    return tuple(
        (theirs, f"backbone.{ours}.{kind}")
        for ours, both in units.items()
        for theirs, kind in zip(both, ("conv", "norm"), strict=True)
    )
