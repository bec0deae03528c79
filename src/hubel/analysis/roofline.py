"""Upper bound of a network's speed on a machine: the roofline model (Williams, Waterman and Patterson 2009).

A network needs a number of multiply-accumulates and has to move a number of bytes; a machine does a certain number of
each per second. Whichever takes longer is the bound, as computing and moving overlap at best.

Counted are the fewest bytes that a network moves if nothing stays in a cache between two layers: the weights once for
each batch, the input once, and the output of every layer twice, as it is written by one layer and read by the next.
Sums, products, concatenations and normalizations move nothing of their own, as an engine may do them while it writes
the maps of the layer before. Small feature maps do stay in a processor's cache, so the bandwidth is a bound for large
ones only; a network of small maps may pass it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}  # of a weight or activation, by precision

# Kinds of layers that need no pass over memory of their own.
_ON_THE_WAY = ("addition", "channel-wise multiplication", "concatenation", "zero padding")


@dataclass(frozen=True)
class NetworkCost:
    """Cost of a network in numbers, independent of their precision.

    Attributes:
        macs: multiply-accumulates for one image (:mod:`hubel.analysis.costs`).
        weights: numbers that are read once for each batch: parameters, and buffers such as running means.
        moved: numbers that are written or read for each image.
    """

    macs: int
    weights: int
    moved: int

    def bytes_an_image(self, precision: str, batch: int = 1) -> float:
        """Bytes moved per image of a batch, in a precision of ``BYTES``."""
        return BYTES[precision] * (self.moved + self.weights / batch)


@dataclass(frozen=True)
class MachineLimits:
    """Measured limits of a machine.

    Attributes:
        macs_per_second: multiply-accumulates by precision, for those that it supports.
        bytes_per_second: read and written.
    """

    macs_per_second: dict[str, float]
    bytes_per_second: float
    threads: int


@dataclass(frozen=True)
class Bound:
    """The maximum speed of a network on a machine, and what limits it."""

    images_per_second: float
    by: Literal["compute", "memory"]


def cost(network: nn.Module, input_shape: tuple[int, int, int]) -> NetworkCost:
    """Cost of a network for one image (channels, height, width).

    Activations count as part of the layer before them, as engines compute them there.
    """
    from hubel.analysis.layer_recorder import NORMALIZATIONS
    from hubel.analysis.summary import summarize

    summary = summarize(network, input_shape)  # in float32, 4 bytes per number
    free = {*_ON_THE_WAY, *NORMALIZATIONS.values()}
    outputs = sum(row.activation_bytes for row in summary.rows if row.kind not in free) // BYTES["fp32"]
    weights = summary.parameter_bytes // BYTES["fp32"]
    return NetworkCost(summary.multiplications, weights, prod(input_shape) + 2 * outputs)


def bound(network: NetworkCost, machine: MachineLimits, precision: str, batch: int = 1) -> Bound | None:
    """The bound for a batch size and precision; None if the machine has no measured speed in it."""
    speed = machine.macs_per_second.get(precision)
    if not speed or not machine.bytes_per_second:
        return None
    computing = network.macs / speed
    moving = network.bytes_an_image(precision, batch) / machine.bytes_per_second
    return Bound(1 / max(computing, moving), "compute" if computing >= moving else "memory")
