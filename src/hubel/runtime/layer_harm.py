"""Which layers of a quantized network do the harm: each is tried alone in the float network."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.runtime.openvino_library import openvino

if TYPE_CHECKING:
    from openvino import Model

Outputs = tuple[np.ndarray, ...]


def quantized_layers(quantized: Model) -> tuple[str, ...]:
    """Names of the operations that compute with quantized inputs, first to last."""
    return tuple(
        operation.get_friendly_name()
        for operation in quantized.get_ordered_ops()
        if operation.get_type_name() not in _PASSIVE
        and any(_quantizer(operation, port) is not None for port in range(operation.get_input_size()))
    )


def layers_by_harm(
    model: Model,
    quantized: Model,
    outputs: Callable[[Model], Outputs],
    deadline: float,
) -> tuple[str, ...]:
    """Names of the quantized layers, most harmful first.

    The harm of a layer is the mean squared error that it alone brings into the network's raw outputs, each output in
    units of its own mean square: the same for every task. Noise of single layers adds up, so this also tells several
    bad layers apart, where taking one at a time out of the quantized network would show no change.

    Args:
        model: in float32.
        quantized: what was made of it; operations have the same names.
        outputs: runs a model on some calibration images.
        deadline: by ``time.monotonic()``; layers that it leaves unmeasured are not named.
    """
    exact = outputs(model)
    harm: dict[str, float] = {}
    for name in quantized_layers(quantized):
        if time.monotonic() >= deadline:
            break
        harm[name] = _error(outputs(_with_one_layer_quantized(model, quantized, name)), exact)
    return tuple(sorted(harm, key=lambda name: -harm[name]))


def describe_layer(model: Model, name: str) -> str:
    """What a person can recognize: ``"GroupConvolution 3×3 of 32 maps, operation 12 of 214"``."""
    operations = list(model.get_ordered_ops())
    place = next(index for index, each in enumerate(operations) if each.get_friendly_name() == name)
    operation = operations[place]
    shape = operation.get_output_partial_shape(0)
    maps = f" of {shape[1].get_length()} maps" if shape.rank.get_length() == 4 and shape[1].is_static else ""
    kernel = ""
    if operation.get_type_name() in ("Convolution", "GroupConvolution"):
        height, width = list(operation.input_value(1).get_partial_shape())[-2:]
        kernel = f" {height.get_length()}×{width.get_length()}"
    return f"{operation.get_type_name()}{kernel}{maps}, operation {place + 1} of {len(operations)}"


# What moves or picks values without computing new ones: NNCF puts the quantizer before it.
_PASSIVE = {
    "Concat",
    "Convert",
    "FakeQuantize",
    "MaxPool",
    "Reshape",
    "Result",
    "Slice",
    "Split",
    "Squeeze",
    "StridedSlice",
    "Transpose",
    "Unsqueeze",
    "VariadicSplit",
}


def _quantizer(operation: Any, port: int) -> Any:
    """The FakeQuantize that an input's values come out of, or None."""
    node = operation.input_value(port).get_node()
    while node.get_type_name() in _PASSIVE - {"FakeQuantize"} and node.get_input_size():
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "FakeQuantize" else None


def _operation(model: Model, name: str) -> Any:
    return next(each for each in model.get_ops() if each.get_friendly_name() == name)


def _with_one_layer_quantized(model: Model, quantized: Model, name: str) -> Model:
    """A copy of the float model in which one operation has the quantizers, weights and bias of the quantized one."""
    opset = openvino().opset13
    copy = model.clone()
    theirs, ours = _operation(quantized, name), _operation(copy, name)
    for port in range(theirs.get_input_size()):
        value = ours.input_value(port)
        if (quantizer := _quantizer(theirs, port)) is not None:
            limits = [opset.constant(_constant(quantizer.input_value(place).get_node())) for place in range(1, 5)]
            value = opset.fake_quantize(value, *limits, quantizer.get_attributes()["levels"]).output(0)
        elif (weights := _constant(theirs.input_value(port).get_node())) is not None:
            value = opset.constant(weights).output(0)
        ours.input(port).replace_source_output(value)
    _copy_bias(theirs, ours)
    return copy


def _constant(node: Any) -> np.ndarray | None:
    """The values of a constant, with the scale that NNCF stores beside integers; None if it is none."""
    kind = node.get_type_name()
    if kind == "Constant":
        return np.array(node.data)
    if kind not in ("Convert", "Multiply", "Subtract"):
        return None
    parts = [_constant(value.get_node()) for value in node.input_values()]
    if any(part is None for part in parts):
        return None
    first, *rest = (part.astype(np.float32) for part in parts if part is not None)
    for part in rest:
        first = first * part if kind == "Multiply" else first - part
    values: np.ndarray = first
    return values


def _copy_bias(theirs: Any, ours: Any) -> None:
    """NNCF has shifted the bias, a constant that is added next, by the mean error of the layer."""
    opset = openvino().opset13
    for source, target in zip(_additions(theirs), _additions(ours), strict=False):
        for port in range(2):
            bias = source.input_value(port).get_node()
            if bias.get_type_name() == "Constant" and target.input_value(port).get_node().get_type_name() == "Constant":
                target.input(port).replace_source_output(opset.constant(np.array(bias.data)).output(0))


def _additions(operation: Any) -> list[Any]:
    takers = (taker.get_node() for taker in operation.output(0).get_target_inputs())
    return [taker for taker in takers if taker.get_type_name() == "Add"]


def _error(outputs: Outputs, exact: Outputs) -> float:
    """Mean squared error over mean square, summed over the outputs."""
    pairs = zip(outputs, exact, strict=True)
    return sum(float(np.square(ours - theirs).mean() / (np.square(theirs).mean() + 1e-12)) for ours, theirs in pairs)
