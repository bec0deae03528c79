"""How much memory the signals between the layers take, in prediction and in training.

Prediction: a tensor lives from the operation that makes it until nobody refers to it any more. The largest set alive
at one moment is what a machine must hold; in a plain chain that is two consecutive layers' outputs.

Training: what backpropagation will need is kept from the forward pass on: mostly each layer's input, and the places
of the maxima.

Tensors that share memory (views, results in place) count once. Working memory inside an operation does not count.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from hubel.analysis.tracing import Operation, storage_key


class LiveTensors:
    """An observer of operations that follows how many bytes are alive.

    Args:
        permanent: tensors that are there all the time and not counted: parameters and buffers.
        given: tensors alive before the first operation: the network's input.

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
        """Count what the operation has made: of max pooling also the places of the maxima, of 8 bytes each, which
        prediction drops as soon as it has them.
        """
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
    """While active (``with``), adds up what the forward pass keeps for the backward pass.

    Args:
        permanent: tensors not counted: parameters and buffers, which are there anyway.
    """

    def __init__(self, permanent: Iterable[Tensor]) -> None:
        self._permanent = {storage_key(tensor) for tensor in permanent}
        # The storages themselves are held: a key may be given to another storage once its own has died.
        self._kept: dict[int, torch.UntypedStorage] = {}
        super().__init__(self._keep, lambda tensor: tensor)

    def _keep(self, tensor: Tensor) -> Tensor:
        key = storage_key(tensor)
        if key not in self._permanent:
            self._kept[key] = tensor.untyped_storage()
        return tensor

    @property
    def bytes(self) -> int:
        """Bytes kept, each storage counted once."""
        return sum(storage.nbytes() for storage in self._kept.values())
