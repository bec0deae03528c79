"""Runs a network on tensors that have a shape and no content, and shows every operation to observers.

PyTorch's ``meta`` device computes shapes only, so that a batch of a hundred photographs through VGG-16 costs
milliseconds and no memory. Observers see the operations that really run (convolutions, additions, …), below the
modules: what a custom layer does inside is seen as well as what ``torch.nn`` does.
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
    """One operation that has just run.

    Attributes:
        name: PyTorch's, without the underscore that marks it as working in place: ``"convolution"``, ``"add"``.
        arguments: as the operation was called.
        inputs: all tensors among the arguments.
        outputs: all tensors that came out; with an operation in place, one of the inputs.
    """

    name: str
    arguments: tuple[Any, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


Observer = Callable[[Operation], None]


def storage_key(tensor: Tensor) -> int:
    """What views and in-place results of one piece of memory have in common while it is alive."""
    return tensor.untyped_storage()._cdata


def to_meta(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of ``module`` with its parameters and buffers on the meta device; ``module`` stays as it is.

    Floating-point parameters and buffers take ``dtype``; shared parameters stay shared. Costs no memory.
    """
    stand_ins: dict[int, Any] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        wanted = dtype if tensor.is_floating_point() else tensor.dtype
        empty = torch.empty(tensor.shape, dtype=wanted, device="meta")
        if isinstance(tensor, nn.Parameter):
            stand_ins[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad)
        else:
            stand_ins[id(tensor)] = empty
    # deepcopy takes what it finds in this table in place of a copy.
    return copy.deepcopy(module, stand_ins)


class Tracing(TorchDispatchMode):
    """While active (``with``), every operation is shown to the observers after it has run.

    Tensors that a layer keeps outside its parameters and buffers, or makes anew, are on the CPU; where they meet
    meta tensors they are replaced by meta tensors of their shape.
    """

    def __init__(self, *observers: Observer) -> None:
        super().__init__()
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
        if kwargs.get("device") == torch.device("meta"):  # where what is made from nothing is wanted
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
