"""Observers of a network's operations: multiply-accumulates (MACs), and the memory of activations.

MACs: counted are convolutions and dense layers, as in the usual tables ("GFLOPS" in torchvision's are MACs).
Normalization, activations, pooling, biases and other elementwise arithmetic are not: normalization folds into the
convolution before it, and the rest is small. Kernels outside a connection table (LeNet-5's C3) do not count, although
they are computed as zeros.

Memory in prediction: a tensor lives from the operation that creates it until the last reference is gone. A machine must
hold the largest set alive at one moment; in a plain chain these are two consecutive layers' outputs. In training, the
forward pass saves tensors for the backward pass, mostly each layer's input and the indices of maxima. Tensors that
share memory (views, in-place results) count once. Working memory inside an operation does not count.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from hubel.analysis.tracing import Operation, storage_key
from hubel.layers.lenet import ConnectionTableConv2d


def _macs(operation: Operation) -> int:
    """Multiply-accumulates of one operation, for the whole batch.

    A convolution has one per weight and output pixel, a transposed one per weight and input pixel. Weights are
    (out, in / groups, height, width), for transposed convolutions (in, out / groups, height, width).
    """
    if operation.name == "convolution":
        maps, weight, *_ = operation.arguments
        transposed = operation.arguments[6]
        moved_over = maps if transposed else operation.outputs[0]
        return int(moved_over.shape[0] * prod(moved_over.shape[2:]) * weight.numel())
    if operation.name in ("mm", "bmm", "addmm", "baddbmm"):
        left, right = operation.arguments[-2:]
        return int(prod(left.shape) * right.shape[-1])
    return 0


class MultiplicationCounter:
    """An observer that adds up the MACs of the operations of ``module``; hooks stay on it.

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
                part.register_forward_pre_hook(partial(self._count_only, fraction))
                part.register_forward_hook(partial(self._count_only, Fraction(1)))

    def __call__(self, operation: Operation) -> None:
        """Add the MACs of an operation."""
        self.last = int(_macs(operation) * self._fraction)
        self.total += self.last

    def _count_only(self, fraction: Fraction, *_: Any) -> None:
        self._fraction = fraction


class LiveTensors:
    """An observer that tracks how many bytes are alive.

    Args:
        permanent: tensors that are not counted: parameters and buffers.
        given: the tensor alive before the first operation: the network's input.

    Attributes:
        peak: most bytes alive at one moment so far.
    """

    def __init__(self, permanent: Iterable[Tensor], given: Tensor) -> None:
        self.now = 0
        self.peak = 0
        self._permanent = {storage_key(tensor) for tensor in permanent}
        self._alive: dict[int, tuple[weakref.ref[Any], int]] = {}
        self._born(given)

    def __call__(self, operation: Operation) -> None:
        """Count the operation's outputs; those of max pooling include the indices of the maxima, 8 bytes each."""
        for tensor in operation.outputs:
            self._born(tensor)
        self.peak = max(self.peak, self.now)

    def _born(self, tensor: Tensor) -> None:
        key = storage_key(tensor)
        if key in self._permanent or key in self._alive:
            return
        storage = tensor.untyped_storage()
        size = storage.nbytes()
        self._alive[key] = (weakref.ref(storage, lambda _: self._died(key)), size)
        self.now += size

    def _died(self, key: int) -> None:
        self.now -= self._alive.pop(key)[1]


class SavedTensors(torch.autograd.graph.saved_tensors_hooks):
    """While active (``with``), adds up the tensors that the forward pass saves for the backward pass.

    Those that are ``permanent`` (parameters and buffers) are not counted.
    """

    def __init__(self, permanent: Iterable[Tensor]) -> None:
        self._permanent = {storage_key(tensor) for tensor in permanent}
        # The storages themselves are held: a key may be given to another storage once its own has died.
        self._saved: dict[int, torch.UntypedStorage] = {}
        super().__init__(self._save, lambda tensor: tensor)

    def _save(self, tensor: Tensor) -> Tensor:
        key = storage_key(tensor)
        if key not in self._permanent:
            self._saved[key] = tensor.untyped_storage()
        return tensor

    @property
    def bytes(self) -> int:
        """Bytes saved, each storage counted once."""
        return sum(storage.nbytes() for storage in self._saved.values())
