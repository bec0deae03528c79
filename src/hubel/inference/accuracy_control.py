"""Accuracy-aware int8 quantization: evaluate on held-out images, keep sensitive layers in float, or fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from hubel.config import TOLERANCE
from hubel.data.samples import Sample, Target
from hubel.errors import ModelError
from hubel.inference.engines.base import Precision
from hubel.inference.engines.openvino import OpenVinoEngine
from hubel.inference.engines.processor import EXACT_ON
from hubel.inference.quantize import (
    LayerOutputs,
    describe_layer,
    post_training_quantization,
    quantized_layers,
    rank_by_sensitivity,
    without_softmax,
)
from hubel.models.metadata import ModelMetadata
from hubel.tasks.decoding import Thresholds

if TYPE_CHECKING:
    from openvino import Model

EngineRun = Callable[[Iterable[np.ndarray]], Iterator[dict[str, np.ndarray]]]
"""From batches of pixels to predictions by name: an engine's ``run``."""

# Seconds that the search may take, and images that rank the layers.
BUDGET = 600.0
_RANKING_IMAGES = 32
_BATCH = 16


@dataclass(frozen=True)
class AccuracyCheck:
    """A task's score, called ``metric``, on images that are not used for calibration.

    Attributes:
        score: of a network, given what runs it; higher is better.
        agreement: of a classifier, the fraction of the images with the same top class as the float32 network.
    """

    metric: str
    images: int
    score: Callable[[EngineRun], float]
    agreement: Callable[[EngineRun], float] | None = None


@dataclass(frozen=True)
class QuantizationReport:
    """Cost of int8 in accuracy: the scores of both networks on the held-out images, as in the :class:`AccuracyCheck`.

    Of the ``layers`` that can be quantized the sensitive ones were kept in float. The seconds are those of quantization
    and evaluation. On processors other than those of :attr:`exact_on`, sums overflow, and the score is worse.
    """

    metric: str
    float_score: float
    int8_score: float
    images: int
    calibration_images: int
    agreement: float | None
    kept_in_float: tuple[str, ...]
    layers: int
    seconds: float
    weight_bits: int = 8

    @property
    def exact_on(self) -> str:
        """The processors that compute the network without overflows, in words."""
        return EXACT_ON[self.weight_bits]

    @property
    def loss(self) -> float:
        """By how much the score fell; negative if it rose."""
        return self.float_score - self.int8_score

    def line(self) -> str:
        """For the log: ``int8: top-1 0.952 → 0.948 on 250 held-out images; none of the layers kept in float; …``."""
        count = None if self.agreement is None else round(self.agreement * self.images)
        same = "" if count is None else f", the same top class on {count} of them"
        kept = f"{len(self.kept_in_float)} of {self.layers}" if self.kept_in_float else "none"
        return (
            f"int8: {self.metric} {self.float_score:.3f} → {self.int8_score:.3f} on {self.images} held-out images"
            f"{same}; {kept} of the layers kept in float; {self.weight_bits}-bit weights, exact on {self.exact_on}; "
            f"{self.seconds:.0f} s"
        )


def quantize_with_accuracy_control(
    model: Model,
    calibration: np.ndarray,
    held_out: AccuracyCheck,
    tolerance: float = TOLERANCE,
    budget: float = BUDGET,
    weight_bits: int = 8,
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
        held_out: the task's score, on other images; it may fall by the ``tolerance``.
        budget: seconds after which no further layers are tried.
        weight_bits: 8, or 7 for processors without VNNI, as for
            :func:`~hubel.inference.quantize.post_training_quantization`.

    Raises:
        MissingExtraError: NNCF is not installed.
        ModelError: too much is lost; the message has the figures.
    """
    started = time.monotonic()
    float_score = held_out.score(runner(model, "fp32"))
    whole = post_training_quantization(model, calibration, weight_bits=weight_bits)
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
            quantized = post_training_quantization(model, calibration, in_float, weight_bits)
            score = held_out.score(runner(quantized, "int8"))
            log(f"int8: {held_out.metric} {score:.3f} with {len(in_float)} of {len(layers)} layers in float")
            if float_score - score <= tolerance:
                break
    loss = float_score - score
    if not loss <= tolerance:  # NaN does not pass either
        accepted = np.ceil(loss * 100 + 1e-9) / 100 if np.isfinite(loss) else 1.0  # rounded up
        tried = f", even with the worst {len(in_float)} of its {len(layers)} layers kept in float" if in_float else ""
        raise ModelError(
            f"int8 is refused: {held_out.metric} {float_score:.3f} → {score:.3f} on {held_out.images} held-out images "
            f"is a loss of more than {tolerance:g}{tried}",
            f"use --precision bf16 (or fp32), or accept it with --tolerance {accepted:g}",
        )
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
        weight_bits=weight_bits,
    )
    return quantized, report


def _attempts(model: Model, whole: Model, calibration: np.ndarray, deadline: float) -> Iterator[tuple[str, ...]]:
    """The worst layer, the worst two, four, … up to half of the layers."""
    images = calibration[:_RANKING_IMAGES]

    def outputs(candidate: Model) -> LayerOutputs:
        parts = list(runner(without_softmax(candidate), "fp32")(_in_batches(images)))
        return tuple(np.concatenate([part[name] for part in parts]) for name in parts[0])

    ranked = rank_by_sensitivity(model, whole, outputs, (time.monotonic() + deadline) / 2)
    count = 1
    while ranked and count <= max(1, len(ranked) // 2) and time.monotonic() < deadline:
        yield ranked[:count]
        count *= 2


def classifier_held_out(pixels: np.ndarray, labels: np.ndarray | None, exact: EngineRun) -> AccuracyCheck:
    """The score of a classifier on held-out images.

    With labels it is top-1 accuracy. Without, the float32 network's own probabilities estimate how accurate its
    predictions are, and how accurate the quantized network's: the score is the second over the first. Exchanging two
    classes that the float32 network cannot tell apart costs little, and predicting what it considers improbable costs
    much, however confident it is in general.

    ``pixels`` are uint8 (N, height, width, channels), ``labels`` (N,); ``exact`` runs the float32 network.
    """
    reference = probabilities(exact, pixels)

    def score(run: EngineRun) -> float:
        best = probabilities(run, pixels).argmax(1)
        if labels is not None:
            return float((best == labels).mean())
        return float(reference[np.arange(len(reference)), best].sum() / reference.max(1).sum())

    def agreement(run: EngineRun) -> float:
        return float((probabilities(run, pixels).argmax(1) == reference.argmax(1)).mean())

    metric = "expected accuracy (no labels; float32 = 1)" if labels is None else "top-1"
    return AccuracyCheck(metric, len(pixels), score, agreement)


def detector_held_out(
    pixels: np.ndarray, samples: Sequence[Sample] | None, metadata: ModelMetadata, exact: EngineRun
) -> AccuracyCheck:
    """The score of a detector on held-out images.

    With labelled samples it is COCO's average precision. Without, the objects that the float32 network finds from a
    confidence of 0.25 are the truth, and the score is the average precision at an IoU of 0.5.

    ``pixels`` are uint8 (N, height, width, channels), of the ``samples`` (N); ``exact`` runs the float32 network.
    """
    from hubel.tasks.detection.decode import select_objects
    from hubel.tasks.registry import get_task

    task = get_task(metadata.task)
    size = (metadata.preprocessing.height, metadata.preprocessing.width)
    truths: Sequence[Sample | Target] = samples or [
        Target(boxes=found.boxes, labels=found.labels)
        for predictions in exact(_in_batches(pixels))
        for boxes, scores in zip(predictions["boxes"], predictions["scores"], strict=True)
        for found in [select_objects(boxes, scores, size, Thresholds())]
    ]
    metric = "AP50" if samples is None else "AP"

    def score(run: EngineRun) -> float:
        evaluator, first = task.evaluator(metadata), 0
        for predictions in run(_in_batches(pixels)):
            count = len(predictions["scores"])
            evaluator.update(predictions, truths[first : first + count])
            first += count
        return float(evaluator.compute().to_json()["metrics"][metric])

    named = "AP50 (no labels; the objects of float32 are the truth)" if samples is None else metric
    return AccuracyCheck(named, len(pixels), score)


def probabilities(run: EngineRun, pixels: np.ndarray) -> np.ndarray:
    """A classifier's probabilities (N, classes) for uint8 pixels (N, height, width, channels)."""
    return np.concatenate([predictions["probabilities"] for predictions in run(_in_batches(pixels))])


def runner(model: Model, precision: str) -> EngineRun:
    """Runs a model as predictions will run it."""
    return OpenVinoEngine(model, Precision(precision)).run


def _in_batches(pixels: np.ndarray) -> Iterator[np.ndarray]:
    return (pixels[start : start + _BATCH] for start in range(0, len(pixels), _BATCH))
