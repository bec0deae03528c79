"""Accuracy-aware int8 quantization: evaluate on held-out images, keep sensitive layers in float, or fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.config import TOLERANCE
from hubel.errors import ModelError
from hubel.inference.engines.base import Precision
from hubel.inference.engines.openvino import OpenVinoEngine
from hubel.inference.engines.openvino_runtime import openvino
from hubel.inference.quantize import QuantizationReport, post_training_quantization

if TYPE_CHECKING:
    from openvino import Model


LayerOutputs = tuple[np.ndarray, ...]


def quantized_layers(quantized: Model) -> tuple[str, ...]:
    """Names of the operations that compute with quantized inputs, first to last."""
    return tuple(
        operation.get_friendly_name()
        for operation in quantized.get_ordered_ops()
        if operation.get_type_name() not in _PASSIVE
        and any(_quantizer(operation, port) is not None for port in range(operation.get_input_size()))
    )


def rank_by_sensitivity(
    model: Model,
    quantized: Model,
    outputs: Callable[[Model], LayerOutputs],
    deadline: float,
) -> tuple[str, ...]:
    """Names of the quantized layers, most sensitive first.

    The sensitivity of a layer is the mean squared error that it alone adds to the network's raw outputs, each output in
    units of its own mean square. Noise of single layers adds up, so this also distinguishes several sensitive layers,
    where excluding one at a time from the quantized network would show no change.

    Args:
        model: in float32.
        quantized: the same network, quantized; operations have the same names.
        outputs: runs a model on some calibration images.
        deadline: by ``time.monotonic()``; layers that it leaves unmeasured are not named.
    """
    exact = outputs(model)
    errors: dict[str, float] = {}
    for name in quantized_layers(quantized):
        if time.monotonic() >= deadline:
            break
        errors[name] = _error(outputs(_with_one_layer_quantized(model, quantized, name)), exact)
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


# Operations that move or select values without computing new ones: NNCF puts the quantizer before them.
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


def _error(outputs: LayerOutputs, exact: LayerOutputs) -> float:
    """Mean squared error over mean square, summed over the outputs."""
    pairs = zip(outputs, exact, strict=True)
    return sum(float(np.square(ours - theirs).mean() / (np.square(theirs).mean() + 1e-12)) for ours, theirs in pairs)


Run = Callable[[Iterable[np.ndarray]], Iterator[dict[str, np.ndarray]]]
"""From batches of pixels to predictions by name: an engine's ``run``."""

# Seconds that the search may take, and images that rank the layers.
BUDGET = 600.0
_RANKING_IMAGES = 32
_BATCH = 16


@dataclass(frozen=True)
class AccuracyCheck:
    """A task's score on images that are not used for calibration.

    Attributes:
        metric: name of the score.
        images: number of images.
        score: of a network, given what runs it; higher is better.
        agreement: the fraction of the images with the same prediction as the float32 network; None if the task has
            no such figure.
    """

    metric: str
    images: int
    score: Callable[[Run], float]
    agreement: Callable[[Run], float] | None = None


def quantize_with_accuracy_control(
    model: Model,
    calibration: np.ndarray,
    held_out: AccuracyCheck,
    tolerance: float = TOLERANCE,
    budget: float = BUDGET,
    log: Callable[[str], None] = lambda line: None,
) -> tuple[Model, QuantizationReport]:
    """Quantize a network within a tolerance.

    If the network in int8 loses more, the layers are ranked by the error that each alone adds to the raw outputs on
    calibration images, and the worst 1, 2, 4, … up to half of them stay in float, until the score is good enough. The
    held-out images only evaluate.

    NNCF's own ``quantize_with_accuracy_control`` reverts one layer at a time and ranks anew: in the same time it ends
    with a larger loss (``docs/results.md``).

    Args:
        model: in float32, from uint8 pixels (N, height, width, channels) to predictions; it is left as it is.
        calibration: uint8 (N, height, width, channels).
        held_out: the task's score, on other images.
        tolerance: by how much it may fall.
        budget: seconds after which no further layers are tried.
        log: prints a line.

    Returns:
        The quantized model, and its cost in accuracy.

    Raises:
        MissingExtraError: NNCF is not installed.
        ModelError: too much is lost; the message has the figures.
    """
    started = time.monotonic()
    float_score = held_out.score(runner(model, "fp32"))
    whole = post_training_quantization(model, calibration)
    layers = quantized_layers(whole)
    in_float: tuple[str, ...] = ()
    quantized, score = whole, held_out.score(runner(whole, "int8"))
    if float_score - score > tolerance:
        log(
            f"int8: {held_out.metric} {float_score:.3f} → {score:.3f} on {held_out.images} held-out images, more than "
            f"{tolerance:g} lost: looking for the sensitive layers"
        )
        deadline = started + budget
        for in_float in _attempts(model, whole, calibration, deadline):
            quantized = post_training_quantization(model, calibration, in_float)
            score = held_out.score(runner(quantized, "int8"))
            log(f"int8: {held_out.metric} {score:.3f} with {len(in_float)} of {len(layers)} layers in float")
            if float_score - score <= tolerance:
                break
    if not float_score - score <= tolerance:  # NaN does not pass either
        raise _refusal(held_out, float_score, score, tolerance, len(in_float), len(layers))
    report = QuantizationReport(
        metric=held_out.metric,
        float_score=float_score,
        int8_score=score,
        images=held_out.images,
        calibration_images=len(calibration),
        agreement=None if held_out.agreement is None else held_out.agreement(runner(quantized, "int8")),
        kept_in_float=tuple(describe_layer(model, name) for name in in_float),
        layers=len(layers),
        seconds=round(time.monotonic() - started, 1),
    )
    return quantized, report


def runner(model: Model, precision: str) -> Run:
    """Runs a model as predictions will run it."""
    return OpenVinoEngine(model, Precision(precision)).run


def in_batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """An array in batches."""
    return (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))


def _attempts(model: Model, whole: Model, calibration: np.ndarray, deadline: float) -> Iterator[tuple[str, ...]]:
    """The worst layer, the worst two, four, … up to half of the layers."""
    images = calibration[:_RANKING_IMAGES]

    def outputs(candidate: Model) -> LayerOutputs:
        parts = list(runner(without_softmax(candidate), "fp32")(in_batches(images)))
        return tuple(np.concatenate([part[name] for part in parts]) for name in parts[0])

    ranked = rank_by_sensitivity(model, whole, outputs, (time.monotonic() + deadline) / 2)
    count = 1
    while ranked and count <= max(1, len(ranked) // 2) and time.monotonic() < deadline:
        yield ranked[:count]
        count *= 2


def _refusal(
    held_out: AccuracyCheck, float_score: float, score: float, tolerance: float, in_float: int, layers: int
) -> ModelError:
    tried = f", even with the worst {in_float} of its {layers} layers kept in float" if in_float else ""
    return ModelError(
        f"int8 is refused: {held_out.metric} {float_score:.3f} → {score:.3f} on {held_out.images} held-out images is "
        f"a loss of more than {tolerance:g}{tried}.",
        f"Use --precision bf16 (or fp32), or accept it with --tolerance {_above(float_score - score):g}.",
    )


def _above(loss: float) -> float:
    """Rounded up to the next hundredth."""
    return float(np.ceil(loss * 100 + 1e-9) / 100) if np.isfinite(loss) else 1.0
