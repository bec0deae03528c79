"""How many multiplications an operation takes.

Counted are those of convolutions and dense layers, each with its addition one multiply-accumulate (MAC), as the
field's tables count ("GFLOPS" in torchvision's are MACs). Normalization, activations, pooling, biases and other
arithmetic pixel by pixel are not counted: normalization folds into the convolution before it, and the rest is small.
Kernels that a connection table leaves out (LeNet-5's C3) are not counted either, although they are computed as zeros.
"""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Any

from torch import nn

from hubel.analysis.tracing import Operation
from hubel.layers.lenet import ConnectionTableConv2d


def _of_convolution(operation: Operation) -> int:
    """Each output pixel takes one a weight of its kernel; a transposed one does so with each input pixel.

    Weights are (out, in / groups, height, width), for transposed convolutions (in, out / groups, height, width).
    """
    maps, weight = operation.arguments[:2]
    transposed = operation.arguments[6]
    walked = maps if transposed else operation.outputs[0]
    positions = walked.shape[0] * prod(walked.shape[2:])
    return positions * weight.numel()


def _of_matrix_product(operation: Operation) -> int:
    left, right = operation.arguments[-2:]
    return prod(left.shape) * right.shape[-1]


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
    """An observer of operations that adds up their multiplications.

    Args:
        module: the network that is going to run; hooks stay on it.

    Attributes:
        last: multiply-accumulates of the last operation, for the whole batch.
        total: of all operations so far.
    """

    def __init__(self, module: nn.Module) -> None:
        self.last = 0
        self.total = 0
        self._share = Fraction(1)
        for part in module.modules():
            if isinstance(part, ConnectionTableConv2d):
                share = Fraction(sum(part.connections), part.in_channels * part.out_channels)
                part.register_forward_pre_hook(self._sharing(share))
                part.register_forward_hook(self._sharing(Fraction(1)))

    def __call__(self, operation: Operation) -> None:
        """Add those of one operation."""
        self.last = int(multiplications_of(operation) * self._share)
        self.total += self.last

    def _sharing(self, share: Fraction) -> Any:
        def hook(*_: Any) -> None:
            self._share = share

        return hook
