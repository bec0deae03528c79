"""Collects the rows of a layer table while a network runs.

A layer is a module without children. Normalizations and activations join the row of the layer they follow, as in the
papers' tables. Operations between modules (a shortcut's addition, a concatenation, pooling by ``torch.mean``) have rows
of their own, named after the surrounding module. Operations that change no number, such as flattening, or dropout in
evaluation, have none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from hubel.analysis.costs import MultiplicationCounter
from hubel.analysis.receptive_field import ReceptiveFields, is_global_mean, pair
from hubel.analysis.tracing import Operation, storage_key
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
_KINDS_OF_LAYERS: dict[type[nn.Module], str] = {
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
class _Description:
    """An operation in the table, without its sizes; ``None`` where a column does not apply."""

    kind: str
    kernel: Pair | None = None
    stride: Pair | None = None
    padding: Pair | Literal["same"] | None = None


def _activation_name(operation: Operation) -> str | None:
    """Name of the activation function, or ``None`` for other operations."""
    if operation.name == "hardtanh":
        limits = tuple(operation.arguments[1:3])
        return "ReLU6" if limits == (0, 6) else "hard tanh"
    return _ACTIVATIONS.get(operation.name)


def _describe(operation: Operation) -> _Description | None:
    """The table's description of an operation; ``None`` for operations that are not a layer."""
    name = operation.name
    if name == "convolution":
        return _convolution(operation)
    if name in _POOLINGS:
        return _pooling(_POOLINGS[name], operation)
    if name == "add":
        return _Description("addition") if _joins_two_maps(operation) else None
    if name == "mul":
        return _Description("channel-wise multiplication") if _scales_maps(operation) else None
    if is_global_mean(operation):
        return _Description("global average pooling")
    if name.startswith(("_adaptive", "adaptive")) and pair(operation.arguments[1]) == (1, 1):
        return _Description("global average pooling" if "avg" in name else "global max pooling")
    return _Description(_PLAIN[name]) if name in _PLAIN else None


def _convolution(operation: Operation) -> _Description:
    maps, weight, _, stride, padding, _, transposed, _, groups = operation.arguments
    if transposed:
        kind = "transposed convolution"
    elif groups == 1:
        kind = "convolution"
    else:
        kind = "depthwise convolution" if groups == maps.shape[1] else "grouped convolution"
    return _Description(kind, pair(weight.shape[2:]), pair(stride), pair(padding))


def _pooling(kind: str, operation: Operation) -> _Description:
    arguments = operation.arguments
    kernel = pair(arguments[1])
    stride = pair(arguments[2]) if len(arguments) > 2 and arguments[2] else kernel
    padding = pair(arguments[3]) if len(arguments) > 3 else (0, 0)
    is_same = _goes_over_the_edge(operation, kernel, stride, padding)
    return _Description(kind, kernel, stride, "same" if is_same else padding)


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
    return len(shapes) == 2 and len(shapes[1]) == 4 and shapes[0][-3:] == (shapes[1][1], 1, 1)


def _joins_two_maps(operation: Operation) -> bool:
    """True for a shortcut's sum, not for a bias or constant."""
    shapes = [tensor.shape for tensor in operation.inputs]
    return len(shapes) == 2 and shapes[0] == shapes[1] and len(shapes[0]) == 4


@dataclass(frozen=True)
class LayerRow:
    """One layer, with the normalization and activation that follow it; ``None`` where a column does not apply.

    Attributes:
        name: path of the module, as in ``model.get_submodule(name)``.
        kind: in the field's words: ``"convolution"``, ``"max pooling"``, ``"fully connected"``, …
        output: channels, height, width of the output; one number for vectors.
        kernel: height and width in taps.
        stride: down and to the right.
        padding: pixels on each side, above and left, or ``"same"`` where the sides differ, as TensorFlow pads.
        activation: ``"ReLU"``, …
        parameters: of the row, those of its normalization included; shared ones count where they are met first.
        multiplications: multiply-accumulates for one image (:mod:`hubel.analysis.costs`).
        activation_bytes: of the row's output, for the whole batch, in the summary's dtype.
        receptive_field: side of the window of input pixels that a unit depends on, the longer one if it is not a
            square; ``None``: the whole image (:mod:`hubel.analysis.receptive_field`).
    """

    name: str
    kind: str
    output: tuple[int, ...]
    kernel: Pair | None
    stride: Pair | None
    padding: Pair | Literal["same"] | None
    activation: str | None
    parameters: int
    multiplications: int
    activation_bytes: int
    receptive_field: int | None


@dataclass
class _Layer:
    """A row in the making, with the modules that it stands for."""

    row: LayerRow
    paths: list[str]
    normalized: bool = False

    @property
    def takes_normalization(self) -> bool:
        fits = self.row.kind.endswith("convolution") or self.row.kind == "fully connected"
        return fits and not self.normalized and self.row.activation is None


@dataclass
class _Call:
    """State of a module that is running."""

    path: str
    module: nn.Module
    is_layer: bool
    description: _Description | None = None
    activation: str | None = None
    padded_from: Pair | None = None
    computes: bool = False
    multiplications: int = 0
    parameters: set[int] = field(default_factory=set)


class LayerRecorder:
    """An observer of operations that also watches which module runs.

    Args:
        module: on the meta device, to be run once; hooks stay on it.
        fields: observer of the same run, called before this one.
        counter: observer of the same run, called before this one.
    """

    def __init__(self, module: nn.Module, fields: ReceptiveFields, counter: MultiplicationCounter) -> None:
        self._layers: list[_Layer] = []
        self._fields = fields
        self._counter = counter
        self._calls: list[_Call] = []
        self._made_by = WeakTensorKeyDictionary()  # tensor → _Layer whose output it is
        self._uncounted = {storage_key(tensor): tensor.numel() for tensor in module.parameters()}
        for path, part in module.named_modules():
            part.register_forward_pre_hook(partial(self._enter, path))
            part.register_forward_hook(self._leave)

    def __call__(self, operation: Operation) -> None:
        """Book an operation on the layer that runs, or as a row of its own."""
        call = self._calls[-1]
        if call.is_layer:
            self._book(call, operation)
            return
        output = operation.outputs[0] if operation.outputs else None
        if output is None or self._fields.of(output) is None:
            return
        own = _Call(call.path, call.module, is_layer=False)
        self._book(own, operation)
        before = self._made_by.pop(output, None)  # an in-place operation changes it
        if own.description is not None or own.activation is not None:
            self._finish(own, before or self._layer_before(operation.inputs), output)

    def _enter(self, path: str, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._calls.append(_Call(path, module, is_layer=not any(True for _ in module.children())))

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        call = self._calls.pop()
        made = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
        if call.is_layer and call.computes and made is not None:
            given = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
            self._finish(call, self._layer_before(given), made)

    def _layer_before(self, inputs: Any) -> _Layer | None:
        return next((layer for tensor in inputs if (layer := self._made_by.get(tensor)) is not None), None)

    def _book(self, call: _Call, operation: Operation) -> None:
        call.multiplications += self._counter.last
        given = {storage_key(tensor) for tensor in operation.inputs}
        call.parameters |= given
        call.activation = call.activation or _activation_name(operation)
        if operation.name == "constant_pad_nd":
            call.padded_from = pair(operation.inputs[0].shape[-2:])
        call.description = call.description or _describe(operation)
        works_in_place = any(output is tensor for output in operation.outputs for tensor in operation.inputs)
        call.computes = (
            call.computes or works_in_place or any(storage_key(tensor) not in given for tensor in operation.outputs)
        )

    def _finish(self, call: _Call, before: _Layer | None, output: Tensor) -> None:
        """Make a row of the call, or join it to the row of the layer whose output it has worked on."""
        parameters = sum(self._uncounted.pop(key, 0) for key in call.parameters)
        kind = _KINDS_OF_LAYERS.get(type(call.module)) if call.is_layer else None
        described = call.description.kind if call.description is not None else None
        is_activation = kind is None and described is None and call.activation is not None
        is_normalization = kind is None and described in NORMALIZATIONS.values()
        if (
            before is not None
            and before.row.output == tuple(output.shape[1:])
            and ((is_activation and before.row.activation is None) or (is_normalization and before.takes_normalization))
        ):
            activation = call.activation if is_activation else None
            before.row = replace(before.row, activation=activation, parameters=before.row.parameters + parameters)
            before.normalized = before.normalized or is_normalization
            if call.is_layer:
                before.paths.append(call.path)
        else:
            row = self._new_row(call, kind, is_activation, parameters, output)
            before = _Layer(row, [row.name])
            self._layers.append(before)
        self._made_by[output] = before

    def _new_row(self, call: _Call, kind: str | None, is_activation: bool, parameters: int, output: Tensor) -> LayerRow:
        what = call.description or _Description("activation" if is_activation else type(call.module).__name__)
        seen = self._fields.of(output)
        return LayerRow(
            name=call.path or type(call.module).__name__,
            kind=kind or what.kind,
            output=tuple(output.shape[1:]),
            kernel=what.kernel,
            stride=what.stride,
            padding="same" if _is_same(call.padded_from, what.stride, output) else what.padding,
            activation=call.activation if is_activation or what.kernel or kind else None,
            parameters=parameters,
            multiplications=call.multiplications,
            activation_bytes=output.numel() * output.element_size(),
            receptive_field=seen.pixels if seen else None,
        )

    def rows(self, batch: int) -> tuple[LayerRow, ...]:
        """Rows in the order of execution, for a run with this many images.

        A layer is named after its module, or after the one whose parts make up just this row: a convolution
        ``stem.conv`` with ``stem.norm`` and ``stem.activation`` is ``stem``.
        """
        rows = []
        for layer in self._layers:
            parent = layer.paths[0].rpartition(".")[0]
            inside = f"{parent}."
            is_all = all(path.startswith(inside) for path in layer.paths) and not any(
                path == parent or path.startswith(inside)
                for other in self._layers
                if other is not layer
                for path in other.paths
            )
            name = parent if parent and len(layer.paths) > 1 and is_all else layer.paths[0]
            rows.append(replace(layer.row, name=name, multiplications=layer.row.multiplications // batch))
        return tuple(rows)


def _is_same(size: Pair | None, stride: Pair | None, output: Tensor) -> bool:
    """True if maps of ``size`` were padded so that the output has ``ceil(size / stride)`` pixels."""
    if size is None or stride is None:
        return False
    return all(pixels == -(-n // s) for pixels, n, s in zip(output.shape[-2:], size, stride, strict=True))
