"""int8 with NNCF: quantizes a network, and ranks its layers by the error that each adds."""

from __future__ import annotations

import contextlib
import gc
import io
import time
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.errors import MissingExtraError
from hubel.inference.engines.base import quiet
from hubel.inference.engines.openvino import openvino, own_signal_stack, switch_off_telemetry

if TYPE_CHECKING:
    from openvino import Model

# From zero to the largest weight of a filter, by bits of the weights, as NNCF quantizes symmetrically. With 7, the
# largest weight itself lies between two levels: it becomes 63 or 64.
_STEPS = {8: 127.0, 7: 63.5}
_WITH_WEIGHTS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")
# Operations that move or select values without computing new ones: NNCF puts the quantizer before them.
_PASSIVE = {
    *("Concat", "Convert", "FakeQuantize", "MaxPool", "Reshape", "Result", "Slice", "Split", "Squeeze"),
    *("StridedSlice", "Transpose", "Unsqueeze", "VariadicSplit"),
}

LayerOutputs = tuple[np.ndarray, ...]


def post_training_quantization(
    model: Model, calibration: np.ndarray, in_float: Sequence[str] = (), weight_bits: int = 8
) -> Model:
    """Quantize the layers of a copy to 8-bit integers, but for the operations named ``in_float`` and those of decoding.

    Weights have one scale per filter, feature maps one per layer, from the calibration images, uint8 (N, height, width,
    channels); the biases are then corrected for the mean error of each filter (Nagel et al. 2019, arXiv 1906.04721,
    section 4.2).

    With 7 ``weight_bits``, no sum of products overflows on processors that add two of them in 16 bits (x86 without
    VNNI): weights have 7 bits, except in depthwise convolutions, whose products are added in 32; a layer that NNCF
    does not make safe stays in float. With 8, all weights have 8 bits. NNCF's default, 7 bits in the first layer
    alone, is exact on no more processors than 8, and less accurate.
    """
    nncf = nncf_library()
    fix = {8: nncf.OverflowFix.DISABLE, 7: nncf.OverflowFix.ENABLE}[weight_bits]
    # NNCF draws its progress bars on stdout, where only results belong, and logs its steps.
    with own_signal_stack(), quiet(), contextlib.redirect_stdout(io.StringIO()):
        quantized = nncf.quantize(
            with_kernel_sums_kept(model, weight_bits),
            nncf.Dataset([image[np.newaxis] for image in calibration]),
            subset_size=len(calibration),
            ignored_scope=nncf.IgnoredScope(names=[*in_float, *decoding(model)], validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=fix),
        )
        gc.collect()  # NNCF's own cores must be gone before the signal stack is put back
    if weight_bits == 7 and (unsafe := layers_that_may_overflow(quantized)):
        return post_training_quantization(model, calibration, (*in_float, *unsafe), weight_bits)
    return quantized


def decoding(model: Model) -> tuple[str, ...]:
    """Names of the operations behind the last layers with weights of a network that gives boxes.

    In 8 bits, a coordinate would be right to a pixel or two.
    """
    if not any("boxes" in output.get_names() for output in model.outputs):
        return ()
    names: dict[str, None] = {}
    waiting = [result.input_value(0).get_node() for result in model.get_results()]
    while waiting:
        operation = waiting.pop()
        kind = operation.get_type_name()
        if kind not in (*_WITH_WEIGHTS, "Constant", "Parameter") and operation.get_friendly_name() not in names:
            names[operation.get_friendly_name()] = None
            waiting += [value.get_node() for value in operation.input_values()]
    return tuple(names)


def nncf_library() -> Any:
    """The package ``nncf``, without its telemetry; it takes seconds to import, and may not be installed."""
    switch_off_telemetry()
    try:
        # It looks for CUDA's compiler, and torch warns of what it finds.
        with quiet():
            import nncf
    except ImportError as error:
        raise MissingExtraError("int8", "int8") from error
    return nncf


def with_kernel_sums_kept(model: Model, weight_bits: int = 8) -> Model:
    """A copy whose spatial kernels lie on the grid of their quantizers, so that quantization does not change them.

    Neighbouring pixels are alike, so the effect of a kernel's rounding errors on its output is mostly their sum.
    Rounded to nearest, 9 errors add up by chance; here weights of each kernel are rounded the other way, those that
    this changes least, until the sum is right to half a step. On EfficientNet-Lite0, whose first depthwise layer made a
    third of all errors, it nearly halves the mean squared error of the int8 network's scores, at no cost in speed.
    """
    opset = openvino().opset13
    copy = model.clone()
    for layer in copy.get_ordered_ops():
        grouped = layer.get_type_name() == "GroupConvolution"
        if not grouped and layer.get_type_name() != "Convolution":
            continue
        constant = layer.input_value(1).get_node()
        if constant.get_type_name() != "Constant":
            continue
        # (filters, input maps, taps); a group convolution's are (groups, filters of it, input maps, …).
        filters = int(np.prod(constant.shape[: 2 if grouped else 1]))
        maps = constant.shape[2 if grouped else 1]
        weights = np.array(constant.data, np.float32).reshape(filters, maps, -1)
        if weights.shape[2] > 1:
            depthwise = grouped and maps == 1  # which NNCF gives 8 bits in any case
            steps = _STEPS[8 if depthwise else weight_bits]
            rounded = opset.constant(round_keeping_sums(weights, steps).reshape(list(constant.shape)))
            layer.input(1).replace_source_output(rounded.output(0))
    return copy


def round_keeping_sums(weights: np.ndarray, steps: float = _STEPS[8]) -> np.ndarray:
    """Round weights (filters, input maps, taps) to the ``steps`` levels from 0 to ± the largest weight of each filter.

    The sum of each kernel is then right to half a level, unless that would take it out of the levels.
    """
    step = np.abs(weights).max(axis=(1, 2), keepdims=True) / steps
    step[step == 0] = 1.0
    exact = weights / step
    # The largest weight decides the step: it stays as it is.
    levels = np.where(np.abs(exact) > steps - 1e-3, np.copysign(steps, exact), np.rint(exact)).astype(np.float32)
    error = exact - levels
    owed = np.rint(error.sum(axis=2, keepdims=True))
    up = _rank(-error) < owed
    down = _rank(error) < -owed
    levels = np.clip(levels + up - down.astype(np.float32), -steps, steps)
    rounded: np.ndarray = (levels * step).astype(np.float32)
    return rounded


def _rank(values: np.ndarray) -> np.ndarray:
    """Rank of each value among those of its kernel, smallest first."""
    ranks: np.ndarray = values.argsort(axis=2, kind="stable").argsort(axis=2, kind="stable")
    return ranks


def quantized_layers(quantized: Model) -> tuple[str, ...]:
    """Names of the operations that compute with quantized inputs, first to last."""
    return tuple(
        operation.get_friendly_name()
        for operation in quantized.get_ordered_ops()
        if operation.get_type_name() not in _PASSIVE
        and any(_quantizer(operation, port) is not None for port in range(operation.get_input_size()))
    )


def layers_that_may_overflow(quantized: Model) -> tuple[str, ...]:
    """Names of the layers in which two products of an unsigned and a signed 8-bit integer may not fit 16 bits together.

    Weights up to ±64 always do. Depthwise convolutions with one filter per map add every product in 32 bits.
    """
    return tuple(
        operation.get_friendly_name()
        for operation in quantized.get_ordered_ops()
        if operation.get_type_name() in _WITH_WEIGHTS and not _is_safe(operation)
    )


def _is_safe(layer: Any) -> bool:
    if _quantizer(layer, 0) is None:
        return True  # it computes in float
    node = layer.input_value(1).get_node()
    if layer.get_type_name() == "GroupConvolution" and tuple(node.output(0).get_partial_shape())[1:3] == (1, 1):
        return True
    while node.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape", "Transpose"):
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and bool((np.abs(np.array(node.data).astype(np.int16)) <= 64).all())


def rank_by_sensitivity(
    model: Model, quantized: Model, outputs: Callable[[Model], LayerOutputs], deadline: float
) -> tuple[str, ...]:
    """Names of the quantized layers, most sensitive first.

    The sensitivity of a layer is the mean squared error that it alone adds to the network's raw outputs, each output in
    units of its own mean square. Noise of single layers adds up, so this also distinguishes several sensitive layers,
    where excluding one at a time from the quantized network would show no change.

    ``outputs`` gives the raw outputs of a model for some calibration images. Layers that the ``deadline``, by
    ``time.monotonic()``, leaves unmeasured are not named.
    """
    exact = outputs(model)
    errors: dict[str, float] = {}
    for name in quantized_layers(quantized):
        if time.monotonic() >= deadline:
            break
        found = outputs(_with_one_layer_quantized(model, quantized, name))
        errors[name] = sum(
            float(np.square(ours - theirs).mean() / (np.square(theirs).mean() + 1e-12))
            for ours, theirs in zip(found, exact, strict=True)
        )
    return tuple(sorted(errors, key=lambda name: -errors[name]))


def without_softmax(model: Model) -> Model:
    """A copy that ends before its last softmax, whose saturation would hide errors."""
    copy = model.clone()
    for result in copy.get_results():
        last = result.input_value(0).get_node()
        if last.get_type_name() == "Softmax":
            names = last.output(0).get_tensor().get_names()
            scores = last.input_value(0)
            result.input(0).replace_source_output(scores)
            scores.get_tensor().set_names(names)
    copy.validate_nodes_and_infer_types()
    return copy


def describe_layer(model: Model, name: str) -> str:
    """A description for people: ``"GroupConvolution 3×3 of 32 maps, operation 12 of 214"``."""
    operations = list(model.get_ordered_ops())
    index = next(i for i, each in enumerate(operations) if each.get_friendly_name() == name)
    operation = operations[index]
    shape = operation.get_output_partial_shape(0)
    maps = f" of {shape[1].get_length()} maps" if shape.rank.get_length() == 4 and shape[1].is_static else ""
    kernel = ""
    if operation.get_type_name() in ("Convolution", "GroupConvolution"):
        height, width = list(operation.input_value(1).get_partial_shape())[-2:]
        kernel = f" {height.get_length()}×{width.get_length()}"
    return f"{operation.get_type_name()}{kernel}{maps}, operation {index + 1} of {len(operations)}"


def _quantizer(operation: Any, port: int) -> Any:
    """The FakeQuantize that an input's values come out of, or None."""
    node = operation.input_value(port).get_node()
    while node.get_type_name() in _PASSIVE - {"FakeQuantize"} and node.get_input_size():
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "FakeQuantize" else None


def _with_one_layer_quantized(model: Model, quantized: Model, name: str) -> Model:
    """A copy of the float model in which one operation has the quantizers, weights and bias of the quantized one."""
    opset = openvino().opset13
    copy = model.clone()
    theirs, ours = (
        next(each for each in part.get_ops() if each.get_friendly_name() == name) for part in (quantized, copy)
    )
    for port in range(theirs.get_input_size()):
        value = ours.input_value(port)
        if (quantizer := _quantizer(theirs, port)) is not None:
            limits = [opset.constant(_constant(quantizer.input_value(limit).get_node())) for limit in range(1, 5)]
            value = opset.fake_quantize(value, *limits, quantizer.get_attributes()["levels"]).output(0)
        elif (weights := _constant(theirs.input_value(port).get_node())) is not None:
            value = opset.constant(weights).output(0)
        ours.input(port).replace_source_output(value)
    _copy_bias(theirs, ours)
    return copy


def _constant(node: Any) -> np.ndarray | None:
    """The values of a constant, with the scale that NNCF stores for integers; None for other nodes."""
    kind = node.get_type_name()
    if kind == "Constant":
        return np.array(node.data)
    if kind not in ("Convert", "Multiply", "Subtract"):
        return None
    parts = [_constant(value.get_node()) for value in node.input_values()]
    if any(part is None for part in parts):
        return None
    combine = np.multiply if kind == "Multiply" else np.subtract
    return reduce(combine, (part.astype(np.float32) for part in parts if part is not None))


def _copy_bias(theirs: Any, ours: Any) -> None:
    """NNCF has shifted the bias, a constant that is added next, by the mean error of the layer."""

    def additions(operation: Any) -> Iterator[Any]:
        takers = (taker.get_node() for taker in operation.output(0).get_target_inputs())
        return (taker for taker in takers if taker.get_type_name() == "Add")

    opset = openvino().opset13
    for source, target in zip(additions(theirs), additions(ours), strict=False):
        for port in range(2):
            bias = source.input_value(port).get_node()
            if bias.get_type_name() == "Constant" and target.input_value(port).get_node().get_type_name() == "Constant":
                target.input(port).replace_source_output(opset.constant(np.array(bias.data)).output(0))
