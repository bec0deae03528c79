"""Output shapes of the most common operations on the meta device.

PyTorch knows them all, but for many of them first imports its compiler and sympy, which takes two seconds, and then
works them out by decomposing the operation. What is not in this table is left to PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

from hubel.errors import ModelError
from hubel.layers.output_size import effective_kernel, output_size, same_size

_aten = torch.ops.aten


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
    """Weights are (out, in / groups, ...), for transposed convolutions (in, out / groups, ...)."""
    seen = weight.shape[0] if transposed else weight.shape[1] * groups
    if maps.dim() != weight.dim() or maps.shape[1] != seen:
        given = f"{maps.shape[1]} in {maps.dim()} dimensions" if maps.dim() != weight.dim() else maps.shape[1]
        raise ModelError(f"a convolution for {seen} channels got {given}.", "Give it as many as it takes.")
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


def _adaptive_pool(maps: Tensor, size: Sequence[int]) -> Tensor:
    return _empty((*maps.shape[:-2], size[0], size[-1]), maps)


def _concatenated(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    tensors = [tensor for tensor in tensors if tensor.shape != (0,)] or tensors
    first, axis = tensors[0], axis % tensors[0].dim()
    rest = {(*tensor.shape[:axis], *tensor.shape[axis + 1 :]) for tensor in tensors}
    if len(rest) > 1:
        shapes = " and ".join("×".join(map(str, tensor.shape)) for tensor in tensors)
        raise ModelError(f"tensors of {shapes} cannot be joined.", "Give an image size that the network takes.")
    joined = sum(tensor.shape[axis] for tensor in tensors)
    dtype = reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    return _empty((*first.shape[:axis], joined, *first.shape[axis + 1 :]), first, dtype)


def _addmm(bias: Tensor, left: Tensor, right: Tensor, **_: Any) -> Tensor:
    return _mm(left, right)


def _mm(left: Tensor, right: Tensor) -> Tensor:
    if left.shape[1] != right.shape[0]:
        raise ModelError(
            f"a dense layer for {right.shape[0]} numbers got {left.shape[1]}.", "Give as many as it takes."
        )
    return _empty((left.shape[0], right.shape[1]), left)


def _elementwise(first: Any, *others: Any, **_: Any) -> Tensor:
    tensors = [value for value in (first, *others) if isinstance(value, Tensor)]
    # From the last axis on, each size is that of the operands that do not have 1 there.
    columns = list(zip_longest(*(reversed(tensor.shape) for tensor in tensors), fillvalue=1))
    if any(len({1, *column}) > 2 for column in columns):
        shapes = " and ".join("×".join(map(str, tensor.shape)) for tensor in tensors)
        raise ModelError(f"tensors of {shapes} do not go together.", "Give an image size that the network takes.")
    shape = [next((size for size in column if size != 1), 1) for column in reversed(columns)]
    dtype = tensors[0].dtype if len(tensors) == 1 else torch.result_type(*tensors[:2])
    return _empty(shape, tensors[0], dtype)


def _reduction(tensor: Tensor, axes: Sequence[int] | None = None, keepdim: bool = False, **_: Any) -> Tensor:
    rank = tensor.dim()
    gone = {axis % rank for axis in axes} if axes else set(range(rank))
    if keepdim:
        return _empty([1 if axis in gone else size for axis, size in enumerate(tensor.shape)], tensor)
    return _empty([size for axis, size in enumerate(tensor.shape) if axis not in gone], tensor)


def _vector_norm(tensor: Tensor, order: float, axes: Sequence[int] | None, keepdim: bool = False, **_: Any) -> Tensor:
    return _reduction(tensor, axes, keepdim)


def _arange(end: int, dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    return torch.empty(end, dtype=dtype or torch.int64, device="meta")


def _resized(maps: Tensor, size: Sequence[int], *_: Any) -> Tensor:
    return _empty((*maps.shape[:2], *size), maps)


def _mv(matrix: Tensor, vector: Tensor) -> Tensor:
    return _empty(matrix.shape[:1], matrix)


def _like_first(tensor: Tensor, *_: Any, dtype: torch.dtype | None = None, **__: Any) -> Tensor:
    return _empty(tensor.shape, tensor, dtype)


def _in_place(first: Tensor, *_: Any, **__: Any) -> Tensor:
    return first


_ELEMENTWISE = (
    _aten.add.Tensor,
    _aten.sub.Tensor,
    _aten.mul.Tensor,
    _aten.div.Tensor,
    _aten.pow.Tensor_Scalar,
    _aten.clamp.default,
    _aten.clamp_min.default,
    _aten.neg.default,
    _aten.sqrt.default,
    _aten.tanh.default,
    _aten.sigmoid.default,
    _aten.relu.default,
    _aten.elu.default,
    _aten.exp.default,
    _aten.hardtanh.default,
    _aten.silu.default,
    _aten.mish.default,
    _aten.leaky_relu.default,
    _aten.hardswish.default,
    _aten.hardsigmoid.default,
)
_IN_PLACE = (
    _aten.add_.Tensor,
    _aten.mul_.Tensor,
    _aten.div_.Scalar,
    _aten.div_.Tensor,
    _aten.bernoulli_.float,
    _aten.relu_.default,
    _aten.hardtanh_.default,
    _aten.silu_.default,
    _aten.mish_.default,
    _aten.leaky_relu_.default,
    _aten.hardswish_.default,
    _aten.hardsigmoid_.default,
)

META_KERNELS: dict[Any, Callable[..., Any]] = {
    _aten.convolution.default: _convolution,
    _aten.native_batch_norm.default: _batch_norm,
    _aten.max_pool2d_with_indices.default: _max_pool,
    _aten.avg_pool2d.default: _average_pool,
    _aten.avg_pool3d.default: partial(_average_pool, axes=3),
    _aten._adaptive_avg_pool2d.default: _adaptive_pool,
    _aten.cat.default: _concatenated,
    _aten.addmm.default: _addmm,
    _aten.mm.default: _mm,
    _aten.empty_like.default: _like_first,
    _aten.index_copy.default: _like_first,
    _aten._softmax.default: _like_first,
    _aten._log_softmax.default: _like_first,
    _aten.log_sigmoid_forward.default: lambda scores: (_like_first(scores), _empty((0,), scores)),
    _aten.mv.default: _mv,
    _aten._upsample_bilinear2d_aa.default: _resized,
    _aten.upsample_bilinear2d.default: _resized,
    _aten.upsample_nearest2d.default: _resized,
    _aten.arange.default: _arange,
    _aten.mean.dim: _reduction,
    _aten.sum.dim_IntList: _reduction,
    _aten.linalg_vector_norm.default: _vector_norm,
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_IN_PLACE, _in_place),
}
