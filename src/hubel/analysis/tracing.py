"""Runs a network on tensors without content, and shows every operation to observers.

PyTorch's ``meta`` device computes shapes only, so a batch of a hundred images through VGG-16 takes milliseconds and
no memory. Observers see the operations below the modules (convolutions, additions, …), in custom layers as in
``torch.nn``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from hubel.analysis.meta_shapes import META_KERNELS


@dataclass(frozen=True)
class Operation:
    """An operation that has just run.

    Attributes:
        name: PyTorch's, without the underscore of in-place operations: ``"convolution"``, ``"add"``.
        arguments: positional arguments.
        inputs: all tensors among the arguments.
        outputs: all tensors among the results; for an in-place operation, one of the inputs.
    """

    name: str
    arguments: tuple[Any, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


Observer = Callable[[Operation], None]


def storage_key(tensor: Tensor) -> int:
    """Identifies memory while it is alive: the same for views and in-place results."""
    key: int = tensor.untyped_storage()._cdata
    return key


def to_meta(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of ``module`` with its parameters and buffers on the meta device; ``module`` stays as it is.

    Floating-point parameters and buffers take ``dtype``; shared parameters stay shared. Costs no memory.
    """
    replacements: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        target = dtype if tensor.is_floating_point() else tensor.dtype
        empty = torch.empty(tensor.shape, dtype=target, device="meta")
        if isinstance(tensor, nn.Parameter):
            replacements[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        else:
            replacements[id(tensor)] = empty
    # deepcopy uses the entries of this table instead of copying.
    return copy.deepcopy(module, replacements)


class Tracing(TorchDispatchMode):
    """While active (``with``), shows every operation to the observers after it has run.

    Tensors that a layer creates, or stores outside its parameters and buffers, are on the CPU; in operations with meta
    tensors they are replaced by meta tensors of their shape.
    """

    def __init__(self, *observers: Observer) -> None:
        TorchDispatchMode.__init__(self)
        self._observers = observers

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep PyTorch from importing its compiler, which takes two seconds, to exempt this class from it."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation, then show it."""
        kwargs = dict(kwargs or {})
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        # Numbers in arithmetic arrive as CPU tensors without dimensions and go with any device.
        devices = {tensor.device.type for tensor in inputs if tensor.dim() > 0}
        if kwargs.get("device") == torch.device("meta"):  # the device of a new tensor
            devices.add("meta")
        if "meta" in devices and len(devices) > 1:
            args, kwargs = tree_map_only(Tensor, _shape_only, (args, kwargs))
            inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        shaped = META_KERNELS.get(func) if "meta" in devices else None
        result = func(*args, **kwargs) if shaped is None else shaped(*args, **kwargs)
        outputs = tuple(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        name = func.overloadpacket.__name__
        if name.endswith("_") and not name.endswith("__"):
            name = name[:-1]
        operation = Operation(name, args, tuple(inputs), outputs)
        for observer in self._observers:
            observer(operation)
        return result


def _shape_only(tensor: Tensor) -> Tensor:
    if tensor.device.type == "meta" or tensor.dim() == 0:
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")
