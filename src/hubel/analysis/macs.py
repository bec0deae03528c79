"""Multiply-accumulates (MACs) of operations.

Counted are convolutions and dense layers, as in the usual tables ("GFLOPS" in torchvision's are MACs). Normalization,
activations, pooling, biases and other elementwise arithmetic are not: normalization folds into the convolution before
it, and the rest is small. Kernels outside a connection table (LeNet-5's C3) do not count, although they are computed as
zeros.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Any

from torch import nn

from hubel.analysis.tracing import Operation
from hubel.layers.lenet import ConnectionTableConv2d


def _of_convolution(operation: Operation) -> int:
    """One per weight and output pixel; in a transposed convolution, per weight and input pixel.

    Weights are (out, in / groups, height, width), for transposed convolutions (in, out / groups, height, width).
    """
    maps, weight = operation.arguments[:2]
    transposed = operation.arguments[6]
    moved_over = maps if transposed else operation.outputs[0]
    count: int = moved_over.shape[0] * prod(moved_over.shape[2:]) * weight.numel()
    return count


def _of_matrix_product(operation: Operation) -> int:
    left, right = operation.arguments[-2:]
    count: int = prod(left.shape) * right.shape[-1]
    return count


_COUNTED = {
    "convolution": _of_convolution,
    "mm": _of_matrix_product,
    "bmm": _of_matrix_product,
    "addmm": _of_matrix_product,
    "baddbmm": _of_matrix_product,
}


def multiplications_of(operation: Operation) -> int:
    """Multiply-accumulates of one operation, for the whole batch."""
    count = _COUNTED.get(operation.name)
    return count(operation) if count else 0


class MultiplicationCounter:
    """An observer that adds up the MACs of operations.

    Args:
        module: the network to run; hooks stay on it.

    Attributes:
        last: multiply-accumulates of the last operation, for the whole batch.
        total: of all operations so far.
    """

    def __init__(self, module: nn.Module) -> None:
        self.last = 0
        self.total = 0
        self._fraction = Fraction(1)
        for part in module.modules():
            if isinstance(part, ConnectionTableConv2d):
                fraction = Fraction(sum(part.connections), part.in_channels * part.out_channels)
                part.register_forward_pre_hook(self._counting(fraction))
                part.register_forward_hook(self._counting(Fraction(1)))

    def __call__(self, operation: Operation) -> None:
        """Add the MACs of an operation."""
        self.last = int(multiplications_of(operation) * self._fraction)
        self.total += self.last

    def _counting(self, fraction: Fraction) -> Any:
        def hook(*_: Any) -> None:
            self._fraction = fraction

        return hook
