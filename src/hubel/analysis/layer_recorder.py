"""Collects the rows of a layer table while a network runs.

A layer is a module without children. Normalizations and activations join the row of the layer they follow, as in the
papers' tables. Operations between modules (a shortcut's addition, a concatenation, pooling by ``torch.mean``) have rows
of their own, named after the surrounding module. Operations that change no number, such as flattening, or dropout in
evaluation, have none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from hubel.analysis.layer_types import (
    KINDS_OF_LAYERS,
    NORMALIZATIONS,
    Description,
    activation_name,
    describe,
)
from hubel.analysis.macs import MultiplicationCounter
from hubel.analysis.receptive_field import ReceptiveFields, pair
from hubel.analysis.tracing import Operation, storage_key

Pair = tuple[int, int]


@dataclass
class Layer:
    """A row in the making; see :class:`hubel.analysis.summary.LayerRow` for the meaning of the columns."""

    paths: list[str]
    kind: str
    output: tuple[int, ...]
    kernel: Pair | None
    stride: Pair | None
    padding: Pair | Literal["same"] | None
    parameters: int
    multiplications: int
    activation_bytes: int
    receptive_field: int | None
    activation: str | None = None
    normalized: bool = False

    @property
    def takes_normalization(self) -> bool:
        """True if a normalization that follows joins the row."""
        fits = self.kind.endswith("convolution") or self.kind == "fully connected"
        return fits and not self.normalized and self.activation is None


@dataclass
class _Call:
    """State of a module that is running."""

    path: str
    module: nn.Module
    is_layer: bool
    description: Description | None = None
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

    Attributes:
        layers: rows so far, in the order of execution.
    """

    def __init__(self, module: nn.Module, fields: ReceptiveFields, counter: MultiplicationCounter) -> None:
        self.layers: list[Layer] = []
        self._fields = fields
        self._counter = counter
        self._calls: list[_Call] = []
        self._made_by = WeakTensorKeyDictionary()  # tensor → Layer whose output it is
        self._uncounted = {storage_key(tensor): tensor.numel() for tensor in module.parameters()}
        for path, part in module.named_modules():
            part.register_forward_pre_hook(self._enter(path))
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

    def _enter(self, path: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            self._calls.append(_Call(path, module, is_layer=not any(True for _ in module.children())))

        return hook

    def _leave(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        call = self._calls.pop()
        made = next((leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)), None)
        if call.is_layer and call.computes and made is not None:
            given = [leaf for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)]
            self._finish(call, self._layer_before(given), made)

    def _layer_before(self, inputs: Any) -> Layer | None:
        return next((layer for tensor in inputs if (layer := self._made_by.get(tensor)) is not None), None)

    def _book(self, call: _Call, operation: Operation) -> None:
        call.multiplications += self._counter.last
        call.parameters |= {storage_key(tensor) for tensor in operation.inputs}
        call.activation = call.activation or activation_name(operation)
        if operation.name == "constant_pad_nd":
            call.padded_from = pair(operation.inputs[0].shape[-2:])
        call.description = call.description or describe(operation)
        given = {storage_key(tensor) for tensor in operation.inputs}
        works_in_place = any(output is tensor for output in operation.outputs for tensor in operation.inputs)
        call.computes = (
            call.computes or works_in_place or any(storage_key(tensor) not in given for tensor in operation.outputs)
        )

    def _finish(self, call: _Call, before: Layer | None, output: Tensor) -> None:
        """Make a row of the call, or join it to the row of the layer whose output it has worked on."""
        parameters = sum(self._uncounted.pop(key, 0) for key in call.parameters)
        kind = KINDS_OF_LAYERS.get(type(call.module)) if call.is_layer else None
        is_activation = kind is None and call.description is None and call.activation is not None
        is_normalization = (
            kind is None and call.description is not None and (call.description.kind in NORMALIZATIONS.values())
        )
        shape = tuple(output.shape[1:])
        joins = before is not None and before.output == shape
        if before is not None and joins and is_activation and before.activation is None:
            before.activation = call.activation
        elif before is not None and joins and is_normalization and before.takes_normalization:
            before.normalized = True
        else:
            before = self._new_layer(call, kind, is_activation, output)
            self.layers.append(before)
            self._made_by[output] = before
            before.parameters = parameters
            return
        before.parameters += parameters
        if call.is_layer:
            before.paths.append(call.path)
        self._made_by[output] = before

    def _new_layer(self, call: _Call, kind: str | None, is_activation: bool, output: Tensor) -> Layer:
        what = call.description or Description("activation" if is_activation else type(call.module).__name__)
        if kind is not None:
            what = Description(kind, what.kernel, what.stride, what.padding)
        seen = self._fields.of(output)
        return Layer(
            paths=[call.path or type(call.module).__name__],
            kind=what.kind,
            output=tuple(output.shape[1:]),
            kernel=what.kernel,
            stride=what.stride,
            padding="same" if _is_same(call.padded_from, what.stride, output) else what.padding,
            parameters=0,
            multiplications=call.multiplications,
            activation_bytes=output.numel() * output.element_size(),
            receptive_field=seen.pixels if seen else None,
            activation=call.activation if is_activation or what.kernel or kind else None,
        )


def _is_same(size: Pair | None, stride: Pair | None, output: Tensor) -> bool:
    """True if maps of ``size`` were padded so that the output has ``ceil(size / stride)`` pixels."""
    if size is None or stride is None:
        return False
    return all(pixels == -(-n // s) for pixels, n, s in zip(output.shape[-2:], size, stride, strict=True))


def named(layers: list[Layer]) -> Iterator[tuple[str, Layer]]:
    """Each layer with its name: its module's path, or that of the module whose parts make up just this row.

    A convolution ``stem.conv`` with ``stem.norm`` and ``stem.activation`` is ``stem``.
    """
    for layer in layers:
        parent = layer.paths[0].rpartition(".")[0]
        inside = f"{parent}."
        is_all = all(path.startswith(inside) for path in layer.paths) and not any(
            path == parent or path.startswith(inside) for other in layers if other is not layer for path in other.paths
        )
        yield (parent if parent and len(layer.paths) > 1 and is_all else layer.paths[0]), layer
