"""Runs a network on tensors without content, and shows every operation to observers.

PyTorch's ``meta`` device computes shapes only, so a batch of a hundred images through VGG-16 takes milliseconds and
no memory. Observers see the operations below the modules (convolutions, additions, …), in custom layers as in
``torch.nn``.

PyTorch knows the shapes that all operations give, but for many of the most common ones it first imports its compiler
and sympy, which takes two seconds, and then works them out by decomposing the operation. These are computed here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from hubel.errors import ModelError
from hubel.layers.output_size import effective_kernel, output_size, same_size

_aten = torch.ops.aten


@dataclass(frozen=True)
class Operation:
    """An operation that has just run.

    Attributes:
        name: PyTorch's, without the underscore of in-place operations: ``"convolution"``, ``"add"``.
        arguments: the positional ones.
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
        is_parameter = isinstance(tensor, nn.Parameter)
        replacements[id(tensor)] = nn.Parameter(empty, tensor.requires_grad) if is_parameter else empty
    # deepcopy uses the entries of this table instead of copying.
    return copy.deepcopy(module, replacements)


@contextmanager
def outside_traces() -> Iterator[None]:
    """Keep what is computed within out of a ``torch.jit.trace`` under way, which fails on the meta device."""
    tracer: Any = torch._C
    state = tracer._get_tracing_state()
    tracer._set_tracing_state(None)
    try:
        yield
    finally:
        tracer._set_tracing_state(state)


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
        inputs = (*_tensors(args), *_tensors(kwargs.values()))
        # Numbers in arithmetic arrive as CPU tensors without dimensions and go with any device.
        devices = {tensor.device.type for tensor in inputs if tensor.dim() > 0 or tensor.is_meta}
        if kwargs.get("device") == torch.device("meta"):  # the device of a new tensor
            devices.add("meta")
        if "meta" in devices and len(devices) > 1:
            args, kwargs = tree_map_only(Tensor, _shape_only, (args, kwargs))
            inputs = (*_tensors(args), *_tensors(kwargs.values()))
        shaped = _META_KERNELS.get(func) if "meta" in devices else None
        result = func(*args, **kwargs) if shaped is None else shaped(*args, **kwargs)
        outputs = tuple(_tensors([result]))
        name = func.overloadpacket.__name__
        if name.endswith("_") and not name.endswith("__"):
            name = name[:-1]
        operation = Operation(name, args, inputs, outputs)
        for observer in self._observers:
            observer(operation)
        return result


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Those among the arguments or results of an ATen operation, which nest in lists and tuples alone."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _shape_only(tensor: Tensor) -> Tensor:
    if tensor.device.type == "meta" or tensor.dim() == 0:
        return tensor
    return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")


def _empty(shape: Sequence[int], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype or like.dtype, device="meta")


def _convolution(
    maps: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor:
    """Weights are (out, in / groups, …), for transposed convolutions (in, out / groups, …)."""
    seen = weight.shape[0] if transposed else weight.shape[1] * groups
    if maps.dim() != weight.dim() or maps.shape[1] != seen:
        given = f"{maps.shape[1]} in {maps.dim()} dimensions" if maps.dim() != weight.dim() else maps.shape[1]
        raise ModelError(
            f"a convolution expects {seen} channels, but got {given}", "pass as many channels as it expects"
        )
    sizes = []
    for axis, size in enumerate(maps.shape[2:]):
        kernel = weight.shape[axis + 2]
        step, added, apart = (values[axis % len(values)] for values in (stride, padding, dilation))
        if transposed:
            sizes.append((size - 1) * step - 2 * added + apart * (kernel - 1) + output_padding[axis] + 1)
        else:
            sizes.append(output_size(size, kernel, step, added, apart))
    channels = weight.shape[1] * groups if transposed else weight.shape[0]
    return _empty((maps.shape[0], channels, *sizes), maps)


def _batch_norm(
    maps: Tensor, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """The maps, and in training the batch's mean and deviation of each channel, which the backward pass needs."""
    statistics = (maps.shape[1] if training else 0,)
    return _empty(maps.shape, maps), _empty(statistics, maps), _empty(statistics, maps)


def _pooled(
    maps: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
    axes: int = 2,
) -> list[int]:
    sizes = list(maps.shape[:-axes])
    for axis, size in enumerate(maps.shape[-axes:]):
        taps, added, apart = (values[axis % len(values)] for values in (kernel, padding, dilation))
        step = stride[axis % len(stride)] if stride else taps
        if ceil_mode:  # one more window, if it begins inside of the maps or their padding on the left
            count = same_size(size + 2 * added - effective_kernel(taps, apart), step) + 1
            count -= (count - 1) * step >= size + added
        else:
            count = output_size(size, taps, step, added, apart)
        sizes.append(count)
    return sizes


def _max_pool(
    maps: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> tuple[Tensor, Tensor]:
    """The maxima and their 64-bit indices."""
    shape = _pooled(maps, kernel, stride, padding, dilation, ceil_mode)
    return _empty(shape, maps), _empty(shape, maps, torch.int64)


def _average_pool(
    maps: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    ceil_mode: bool = False,
    *_: Any,
    axes: int = 2,
) -> Tensor:
    return _empty(_pooled(maps, kernel, stride, padding, (1,), ceil_mode, axes), maps)


def _concatenated(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    tensors = [tensor for tensor in tensors if tensor.shape != (0,)] or tensors
    first, axis = tensors[0], axis % tensors[0].dim()
    rest = {(*tensor.shape[:axis], *tensor.shape[axis + 1 :]) for tensor in tensors}
    if len(rest) > 1:
        shapes = " and ".join("×".join(map(str, tensor.shape)) for tensor in tensors)
        raise ModelError(
            f"tensors of shapes {shapes} cannot be concatenated", "use an image size that the network accepts"
        )
    joined = sum(tensor.shape[axis] for tensor in tensors)
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return _empty((*first.shape[:axis], joined, *first.shape[axis + 1 :]), first, dtype)


def _mm(left: Tensor, right: Tensor) -> Tensor:
    if left.shape[1] != right.shape[0]:
        raise ModelError(
            f"a dense layer expects {right.shape[0]} features, but got {left.shape[1]}",
            "pass as many features as it expects",
        )
    return _empty((left.shape[0], right.shape[1]), left)


def _elementwise(first: Any, *others: Any, **_: Any) -> Tensor:
    tensors = [value for value in (first, *others) if isinstance(value, Tensor)]
    try:
        shape = np.broadcast_shapes(*(tensor.shape for tensor in tensors))  # torch's imports the compiler
    except ValueError:
        shapes = " and ".join("×".join(map(str, tensor.shape)) for tensor in tensors)
        message = f"tensors of shapes {shapes} are not compatible"
        raise ModelError(message, "use an image size that the network accepts") from None
    dtype = tensors[0].dtype if len(tensors) == 1 else torch.result_type(*tensors[:2])
    return _empty(shape, tensors[0], dtype)


def _reduction(tensor: Tensor, axes: Sequence[int] | None = None, keepdim: bool = False, **_: Any) -> Tensor:
    gone = {axis % tensor.dim() for axis in axes or range(tensor.dim())}
    sizes = (1 if axis in gone else size for axis, size in enumerate(tensor.shape) if keepdim or axis not in gone)
    return _empty(tuple(sizes), tensor)


def _like_first(tensor: Tensor, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    return _empty(tensor.shape, tensor, dtype)


def _resized(maps: Tensor, size: Sequence[int], *_: Any) -> Tensor:
    return _empty((*maps.shape[:2], *size), maps)


def _shuffled(maps: Tensor, scale: int) -> Tensor:
    images, channels, height, width = maps.shape
    return _empty((images, channels // scale**2, height * scale, width * scale), maps)


_ACTIVATIONS = ("relu", "hardtanh", "silu", "mish", "leaky_relu", "hardswish", "hardsigmoid")  # also in place
_ELEMENTWISE = (
    *(_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor, _aten.pow.Tensor_Scalar),
    *(getattr(_aten, name).default for name in ("clamp", "clamp_min", "neg", "sqrt", "exp", "elu", "tanh", "sigmoid")),
    *(getattr(_aten, name).default for name in _ACTIVATIONS),
)
_IN_PLACE = (
    *(_aten.add_.Tensor, _aten.mul_.Tensor, _aten.div_.Tensor, _aten.div_.Scalar, _aten.bernoulli_.float),
    *(getattr(_aten, f"{name}_").default for name in _ACTIVATIONS),
)
_META_KERNELS: dict[Any, Callable[..., Any]] = {
    _aten.convolution.default: _convolution,
    _aten.native_batch_norm.default: _batch_norm,
    _aten.max_pool2d_with_indices.default: _max_pool,
    _aten.avg_pool2d.default: _average_pool,
    _aten.avg_pool3d.default: partial(_average_pool, axes=3),
    _aten._adaptive_avg_pool2d.default: lambda maps, size: _empty((*maps.shape[:-2], size[0], size[-1]), maps),
    _aten.cat.default: _concatenated,
    _aten.mm.default: _mm,
    _aten.addmm.default: lambda bias, left, right, **_: _mm(left, right),
    _aten.mv.default: lambda matrix, vector: _empty(matrix.shape[:1], matrix),
    _aten.empty_like.default: _like_first,
    _aten.index_copy.default: _like_first,
    _aten._softmax.default: _like_first,
    _aten._log_softmax.default: _like_first,
    _aten.log_sigmoid_forward.default: lambda scores: (_like_first(scores), _empty((0,), scores)),
    _aten._upsample_bilinear2d_aa.default: _resized,
    _aten.upsample_bilinear2d.default: _resized,
    _aten.upsample_nearest2d.default: _resized,
    _aten.pixel_shuffle.default: _shuffled,
    _aten._prelu_kernel.default: _like_first,
    _aten.arange.default: lambda end, dtype=None, **_: torch.empty(end, dtype=dtype or torch.int64, device="meta"),
    _aten.mean.dim: _reduction,
    _aten.sum.dim_IntList: _reduction,
    _aten.linalg_vector_norm.default: lambda tensor, order, axes, keepdim=False, **_: _reduction(tensor, axes, keepdim),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_IN_PLACE, lambda first, *_, **__: first),
}
