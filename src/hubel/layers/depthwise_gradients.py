"""Fast gradients of depthwise convolutions in bfloat16 on CPUs.

oneDNN 3.12 has no good kernels for three of them: for weights of more than 3 × 3, for the input of a convolution with a
stride, and for any that is dilated. They took more than half of the time of a training step of EfficientNet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_PART = 3  # rows and columns of the largest weights that oneDNN has a fast kernel for


class DepthwiseConvolution(torch.autograd.Function):
    """A depthwise convolution without bias and dilation: maps (N, C, H, W), weights (C, 1, K, L)."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        """Convolve as PyTorch does."""
        ctx.save_for_backward(maps, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(maps, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Gradients of the maps and the weights."""
        (gradient,) = gradients
        maps, weight = ctx.saved_tensors
        of_maps = _of_maps(gradient, maps, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[0] else None
        of_weight = _of_weight(gradient, maps, weight, ctx.stride, ctx.padding) if ctx.needs_input_grad[1] else None
        return of_maps, of_weight, None, None


def _backward(
    gradient: Tensor, maps: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], of_maps: bool
) -> Tensor:
    found = torch.ops.aten.convolution_backward(
        gradient, maps, weight, None, stride, padding, [1, 1], False, [0, 0], len(weight), [of_maps, not of_maps, False]
    )
    chosen: Tensor = found[0] if of_maps else found[1]
    return chosen


def _of_maps(
    gradient: Tensor, maps: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    if max(stride) == 1:
        return _backward(gradient, maps, weight, stride, padding, of_maps=True)
    # Only their shape matters; float32 has a fast kernel.
    shape = torch.empty_like(maps, dtype=torch.float32)
    return _backward(gradient.float(), shape, weight.float(), stride, padding, of_maps=True).to(maps.dtype)


def _of_weight(
    gradient: Tensor, maps: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    kernel = weight.shape[2:]
    if max(kernel) <= _PART:
        return _backward(gradient, maps, weight, stride, padding, of_maps=False)
    # The gradient of a part of the weights is that of a small convolution of the maps moved to that part; the parts
    # cover the kernel, and may reach beyond it.
    covered = [-(-side // _PART) * _PART for side in kernel]
    steps = [(side - 1) * step for side, step in zip(gradient.shape[2:], stride, strict=True)]
    beyond = [
        max(0, last + side - length - pad)
        for last, side, length, pad in zip(steps, covered, maps.shape[2:], padding, strict=True)
    ]
    padded = functional.pad(maps, (padding[1], beyond[1], padding[0], beyond[0]))
    part = weight.new_empty(len(weight), 1, _PART, _PART)
    found = weight.new_empty(len(weight), 1, *covered)
    for top in range(0, covered[0], _PART):
        for left in range(0, covered[1], _PART):
            moved = padded[:, :, top : top + steps[0] + _PART, left : left + steps[1] + _PART]
            moved = moved.contiguous(memory_format=torch.channels_last)
            of_part = _backward(gradient, moved, part, stride, (0, 0), of_maps=False)
            found[:, :, top : top + _PART, left : left + _PART] = of_part
    return found[:, :, : kernel[0], : kernel[1]]


def _dilated(
    maps: Tensor, weight: Tensor, padding: tuple[int, int], dilation: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """A dilated convolution with stride 1 and outputs of ``size``.

    Every D-th row and column of the padded maps, from each of D × D beginnings, are maps of their own, to which the
    dilated convolution does what one without dilation does (Yu and Koltun 2016, arXiv 1511.07122; Chen et al. 2017,
    arXiv 1606.00915, section 3.1). Channels are last in all steps, as other copies are slow.
    """
    lengths = [
        -(-(length + 2 * pad) // step) for length, pad, step in zip(maps.shape[2:], padding, dilation, strict=True)
    ]
    beyond = [
        length * step - pad - side
        for length, step, pad, side in zip(lengths, dilation, padding, maps.shape[2:], strict=True)
    ]
    padded = functional.pad(maps, (padding[1], beyond[1], padding[0], beyond[0])).permute(0, 2, 3, 1)
    count, channels = maps.shape[:2]
    split = padded.reshape(count, lengths[0], dilation[0], lengths[1], dilation[1], channels).permute(0, 2, 4, 1, 3, 5)
    phases = split.reshape(-1, *lengths, channels).permute(0, 3, 1, 2)
    made = DepthwiseConvolution.apply(phases, weight, (1, 1), (0, 0)).permute(0, 2, 3, 1)
    height, width = made.shape[1:3]
    joined = made.reshape(count, *dilation, height, width, channels).permute(0, 3, 1, 4, 2, 5)
    whole: Tensor = joined.reshape(count, height * dilation[0], width * dilation[1], channels).permute(0, 3, 1, 2)
    return whole[:, :, : size[0], : size[1]]


def fast_depthwise_gradients(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Fast gradients for a training step, forward and backward, where they help: in ``"bfloat16"`` on a CPU.

    Elsewhere nothing is entered: every call of PyTorch would go through Python once more.
    """
    return FastDepthwiseGradients() if device.type == "cpu" and precision == "bfloat16" else nullcontext()


class FastDepthwiseGradients(TorchFunctionMode):
    """While it is entered and autocast computes in bfloat16 on a CPU, depthwise ``nn.Conv2d`` have fast gradients."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace a call of ``conv2d``, with the arguments that ``nn.Conv2d`` gives it, if it is depthwise."""
        if func is torch.conv2d and len(args) == 7 and _is_replaced(*args):
            maps, weight, _, stride, padding, dilation, _ = args
            maps, weight = maps.bfloat16(), weight.bfloat16()
            if max(dilation) == 1:
                return DepthwiseConvolution.apply(maps, weight, stride, padding)
            height, width = (
                length + 2 * pad - step * (side - 1)
                for length, pad, step, side in zip(maps.shape[2:], padding, dilation, weight.shape[2:], strict=True)
            )
            return _dilated(maps, weight, padding, dilation, (height, width))
        return func(*args, **(kwargs or {}))


def _is_replaced(
    maps: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> bool:
    return (
        groups == len(weight) == maps.shape[1] > 1
        and maps.device.type == "cpu"
        and torch.is_grad_enabled()
        and (weight.requires_grad or maps.requires_grad)
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and bias is None
        and not isinstance(padding, str)
        and (
            (max(dilation) == 1 and (max(stride) > 1 or max(weight.shape[2:]) > _PART))
            or (max(dilation) > 1 and max(stride) == 1)
        )
    )
