"""How many multiplications an operation takes.

Counted are those of convolutions and dense layers, each with its addition one multiply-accumulate (MAC), as the
field's tables count ("GFLOPS" in torchvision's are MACs). Normalization, activations, pooling, biases and other
arithmetic pixel by pixel are not counted: normalization folds into the convolution before it, and the rest is small.
"""

from __future__ import annotations

from math import prod

from hubel.insight.tracing import Operation


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
