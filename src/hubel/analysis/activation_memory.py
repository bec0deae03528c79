"""Memory of activations in prediction and in training.

Prediction: a tensor lives from the operation that creates it until the last reference is gone. A machine must hold the
largest set alive at one moment; in a plain chain these are two consecutive layers' outputs.

Training: the forward pass saves tensors for the backward pass, mostly each layer's input and the indices of maxima.

Tensors that share memory (views, in-place results) count once. Working memory inside an operation does not count.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from hubel.analysis.tracing import Operation, storage_key


class LiveTensors:
    """An observer that tracks how many bytes are alive.

    Args:
        permanent: tensors that are not counted: parameters and buffers.
        given: the tensor alive before the first operation: the network's input.

    Attributes:
        now: bytes alive at the moment.
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

    Args:
        permanent: tensors that are not counted: parameters and buffers.
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
