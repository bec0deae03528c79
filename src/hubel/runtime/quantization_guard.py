"""int8 that keeps its promises: quantized, measured on held-out images, mended where it hurts, or refused."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubel.errors import ModelError
from hubel.runtime.layer_harm import describe_layer, layers_by_harm, quantized_layers
from hubel.runtime.number_formats import NumberFormat
from hubel.runtime.openvino_engine import OpenVinoEngine
from hubel.runtime.quantization import post_training_quantization
from hubel.runtime.quantization_report import QuantizationReport

if TYPE_CHECKING:
    from openvino import Model

Outputs = tuple[np.ndarray, ...]
Run = Callable[[Iterable[np.ndarray]], Iterator[Outputs]]
"""From batches of pixels to the network's raw outputs: an engine's ``run``."""

# Seconds that mending may take, and images that rank the layers.
BUDGET = 600.0
_RANKING_IMAGES = 32
_BATCH = 16


@dataclass(frozen=True)
class HeldOut:
    """A task's own score on images that are not calibrated with.

    Attributes:
        metric: what the score is called.
        images: how many it is measured on.
        score: of a network, given what runs it; higher is better.
        agreement: the share of the images on which a network answers as the float32 one; None where a task has no
            such figure.
    """

    metric: str
    images: int
    score: Callable[[Run], float]
    agreement: Callable[[Run], float] | None = None


def quantize(
    model: Model,
    calibration: np.ndarray,
    held_out: HeldOut,
    tolerance: float = 0.01,
    budget: float = BUDGET,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Model, QuantizationReport]:
    """Quantize a network, and lose no more than is allowed.

    If the whole network in int8 loses more, the layers are ranked by the error that each alone brings into the raw
    outputs on calibration images, and the worst 1, 2, 4, … up to half of them stay in float, until the score is
    right. The held-out images only judge.

    Args:
        model: in float32, from uint8 pixels (N, height, width, channels) to raw outputs; it is left as it is.
        calibration: uint8 (N, height, width, channels).
        held_out: the task's score, on other images.
        tolerance: by how much it may fall.
        budget: seconds; when they are over, no further layers are tried.
        say: shows a line to the person.

    Returns:
        The quantized model, and what it costs.

    Raises:
        MissingExtraError: NNCF is not installed.
        ModelError: too much is lost, whatever is tried; the fault has the figures.
    """
    started = time.monotonic()
    float_score = held_out.score(runner(model, "fp32"))
    whole = post_training_quantization(model, calibration)
    layers = quantized_layers(whole)
    in_float: tuple[str, ...] = ()
    quantized, score = whole, held_out.score(runner(whole, "int8"))
    if float_score - score > tolerance:
        say(
            f"int8: {held_out.metric} {float_score:.3f} → {score:.3f} on {held_out.images} held-out images, more than "
            f"{tolerance:g} lost: looking for the layers that hurt"
        )
        deadline = started + budget
        for in_float in _attempts(model, whole, calibration, deadline):
            quantized = post_training_quantization(model, calibration, in_float)
            score = held_out.score(runner(quantized, "int8"))
            say(f"int8: {held_out.metric} {score:.3f} with {len(in_float)} of {len(layers)} layers in float")
            if float_score - score <= tolerance:
                break
    if not float_score - score <= tolerance:  # a score that is no number does not pass either
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
    """What runs a model as predictions will run it."""
    return OpenVinoEngine(model, NumberFormat(precision, "as asked")).run


def in_batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """The images of an array, a few at a time."""
    return (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))


def _attempts(model: Model, whole: Model, calibration: np.ndarray, deadline: float) -> Iterator[tuple[str, ...]]:
    """The worst layer, the worst two, four, … up to half of the layers."""
    some = calibration[:_RANKING_IMAGES]

    def outputs(candidate: Model) -> Outputs:
        parts = zip(*runner(candidate, "fp32")(in_batches(some)), strict=True)
        return tuple(np.concatenate(part) for part in parts)

    ranked = layers_by_harm(model, whole, outputs, (time.monotonic() + deadline) / 2)
    count = 1
    while ranked and count <= max(1, len(ranked) // 2) and time.monotonic() < deadline:
        yield ranked[:count]
        count *= 2


def _refusal(
    held_out: HeldOut, float_score: float, score: float, tolerance: float, in_float: int, layers: int
) -> ModelError:
    tried = f", even with the worst {in_float} of its {layers} layers kept in float" if in_float else ""
    return ModelError(
        f"int8 is refused: {held_out.metric} {float_score:.3f} → {score:.3f} on {held_out.images} held-out images is "
        f"a loss of more than {tolerance:g}{tried}.",
        f"Use --precision bf16 (or fp32), or accept it with --tolerance {_above(float_score - score):g}.",
    )


def _above(loss: float) -> float:
    """The next hundredth."""
    return float(np.ceil(loss * 100 + 1e-9) / 100) if np.isfinite(loss) else 1.0
