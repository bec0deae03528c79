"""Changes to tensors that another library lays out in another way. Each works in place on our names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubel.weights.key_rules.key_rules import Adaptation

if TYPE_CHECKING:
    from torch import Tensor


def fold_convolution_biases(state: dict[str, Tensor]) -> None:
    """Move biases of convolutions that a batch normalization follows into its running mean.

    Keras's ResNets have both; ``norm(conv + b)`` with mean μ is ``norm(conv)`` with mean ``μ - b``.
    """
    for key in [key for key in state if key.endswith(".conv.bias")]:
        mean = key.removesuffix("conv.bias") + "norm.running_mean"
        if mean in state:
            state[mean] = state[mean] - state.pop(key)


def reversed_input(key: str) -> Adaptation:
    """The first convolution ``key`` was trained on images with channels in the order blue, green, red."""

    def adapt(state: dict[str, Tensor]) -> None:
        state[key] = state[key].flip(1)

    return adapt


def flattened_channels_last(key: str, channels: int) -> Adaptation:
    """The dense layer ``key`` reads maps flattened as height, width, channels; ours as channels, height, width."""

    def adapt(state: dict[str, Tensor]) -> None:
        weight = state[key]
        state[key] = weight.unflatten(1, (-1, channels)).transpose(1, 2).flatten(1).contiguous()

    return adapt


def convolution_as_dense(key: str) -> Adaptation:
    """The 1×1 convolution ``key`` (out, in, 1, 1) is a dense layer (out, in) here."""

    def adapt(state: dict[str, Tensor]) -> None:
        state[key] = state[key].flatten(1)

    return adapt
