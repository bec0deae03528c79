"""Names of operations in a layer table, and which of them have a row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from torch import nn

from hubel.analysis.receptive_field import is_global_mean, pair
from hubel.analysis.tracing import Operation
from hubel.layers.lenet import RadialBasisOutput, TrainableSubsampling
from hubel.layers.output_size import same_padding, same_size
from hubel.layers.pooling import DepthwiseMaxPool2d

Pair = tuple[int, int]

NORMALIZATIONS = {
    "native_batch_norm": "batch normalization",
    "_native_batch_norm_legit": "batch normalization",
    "_native_batch_norm_legit_no_training": "batch normalization",
    "cudnn_batch_norm": "batch normalization",
    "native_group_norm": "group normalization",
    "native_layer_norm": "layer normalization",
}

_POOLINGS = {
    "max_pool2d_with_indices": "max pooling",
    "max_pool2d": "max pooling",
    "avg_pool2d": "average pooling",
}

_PLAIN = {
    **NORMALIZATIONS,
    "mm": "fully connected",
    "addmm": "fully connected",
    "_adaptive_avg_pool2d": "adaptive average pooling",
    "adaptive_max_pool2d": "adaptive max pooling",
    "upsample_bilinear2d": "bilinear upsampling",
    "upsample_bicubic2d": "bicubic upsampling",
    "upsample_nearest2d": "nearest upsampling",
    "pixel_shuffle": "pixel shuffle",
    "cat": "concatenation",
}

# Layers that their operations do not identify.
KINDS_OF_LAYERS: dict[type[nn.Module], str] = {
    nn.LocalResponseNorm: "local response normalization",
    nn.ZeroPad2d: "zero padding",
    DepthwiseMaxPool2d: "depthwise max pooling",
    RadialBasisOutput: "radial basis",
    TrainableSubsampling: "subsampling",
}

_ACTIVATIONS = {
    "relu": "ReLU",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "silu": "SiLU",
    "gelu": "GELU",
    "mish": "Mish",
    "elu": "ELU",
    "softplus": "softplus",
    "hardswish": "hard swish",
    "hardsigmoid": "hard sigmoid",
    "leaky_relu": "leaky ReLU",
    "prelu": "PReLU",
    "_prelu_kernel": "PReLU",
    "_softmax": "softmax",
    "_log_softmax": "log-softmax",
}


@dataclass(frozen=True)
class Description:
    """An operation in the table, without its sizes; ``None`` where a column does not apply."""

    kind: str
    kernel: Pair | None = None
    stride: Pair | None = None
    padding: Pair | Literal["same"] | None = None


def activation_name(operation: Operation) -> str | None:
    """Name of the activation function, or ``None`` for other operations."""
    if operation.name == "hardtanh":
        limits = tuple(operation.arguments[1:3])
        return "ReLU6" if limits == (0, 6) else "hard tanh"
    return _ACTIVATIONS.get(operation.name)


def describe(operation: Operation) -> Description | None:
    """The table's description of an operation; ``None`` for operations that are not a layer."""
    name = operation.name
    if name == "convolution":
        return _convolution(operation)
    if name in _POOLINGS:
        return _pooling(_POOLINGS[name], operation)
    if name == "add":
        return Description("addition") if _joins_two_maps(operation) else None
    if name == "mul":
        return Description("channel-wise multiplication") if _scales_maps(operation) else None
    if is_global_mean(operation):
        return Description("global average pooling")
    if name.startswith(("_adaptive", "adaptive")) and pair(operation.arguments[1]) == (1, 1):
        return Description("global average pooling" if "avg" in name else "global max pooling")
    return Description(_PLAIN[name]) if name in _PLAIN else None


def _convolution(operation: Operation) -> Description:
    maps, weight, _, stride, padding, _, transposed, _, groups = operation.arguments
    if transposed:
        kind = "transposed convolution"
    elif groups == 1:
        kind = "convolution"
    else:
        kind = "depthwise convolution" if groups == maps.shape[1] else "grouped convolution"
    return Description(kind, pair(weight.shape[2:]), pair(stride), pair(padding))


def _pooling(kind: str, operation: Operation) -> Description:
    arguments = operation.arguments
    kernel = pair(arguments[1])
    stride = pair(arguments[2]) if len(arguments) > 2 and arguments[2] else kernel
    padding = pair(arguments[3]) if len(arguments) > 3 else (0, 0)
    if _goes_over_the_edge(operation, kernel, stride, padding):
        return Description(kind, kernel, stride, "same")
    return Description(kind, kernel, stride, padding)


def _goes_over_the_edge(operation: Operation, kernel: Pair, stride: Pair, padding: Pair) -> bool:
    """True if the windows are those of TensorFlow's "same" padding, with less before the maps than after.

    PyTorch gets them by rounding their number up (``ceil_mode``), if the last one begins on the maps.
    """
    sizes, windows = operation.inputs[0].shape[-2:], operation.outputs[0].shape[-2:]
    paddings = [same_padding(size, *others) for size, *others in zip(sizes, kernel, stride, strict=True)]
    return (
        [same_size(size, step) for size, step in zip(sizes, stride, strict=True)] == list(windows)
        and [each.before for each in paddings] == list(padding)
        and any(each.after > each.before for each in paddings)
    )


def _scales_maps(operation: Operation) -> bool:
    """Maps (N, C, H, W) times a factor per map: (N, C, 1, 1), as in squeeze-and-excitation, or learned: (C, 1, 1)."""
    shapes = sorted((tensor.shape for tensor in operation.inputs), key=math.prod)
    if len(shapes) != 2 or len(shapes[1]) != 4:
        return False
    return shapes[0][-3:] == (shapes[1][1], 1, 1)


def _joins_two_maps(operation: Operation) -> bool:
    """True for a shortcut's sum, not for a bias or constant."""
    shapes = [tensor.shape for tensor in operation.inputs]
    return len(shapes) == 2 and shapes[0] == shapes[1] and len(shapes[0]) == 4
