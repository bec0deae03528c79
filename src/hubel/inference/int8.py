"""Models in int8, by name: from the cache, or quantized now. Called by predict and export."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.config import TOLERANCE
from hubel.errors import ModelError, UsageError
from hubel.inference.accuracy_control import AccuracyCheck, Run, in_batches
from hubel.inference.calibration import CalibrationFiles, find_calibration_files, read_calibration_images
from hubel.inference.engines.convert import (
    Converted,
    ModelSource,
    conversion_key,
    convert,
    find_newest,
    read_converted,
    store,
)
from hubel.inference.engines.openvino import OpenVinoBackend
from hubel.inference.quantize import QuantizationReport, nncf_library
from hubel.tasks.decoding import decoder_of

if TYPE_CHECKING:
    from openvino import Model


_REPORT = "int8.json"


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class QuantizedOpenVino(OpenVinoBackend):
    """Stores a quantized network in the cache, with the report of what it costs beside it."""

    packages: tuple[str, ...] = ("openvino", "nncf")

    def save(self, converted: Any, folder: Path, facts: Mapping[str, Any] | None = None, half: bool = False) -> None:
        """Write both of ``(model, report)``."""
        model, report = converted
        super().save(model, folder, facts, half)
        (folder / _REPORT).write_text(json.dumps(report.to_json()) + "\n", encoding="utf-8")

    def load(self, folder: Path) -> tuple[Model, QuantizationReport]:
        """The inverse of :meth:`save`."""
        report = QuantizationReport.from_json(json.loads((folder / _REPORT).read_text(encoding="utf-8")))
        return super().load(folder), report


def quantized_for(
    reference: str | Path,
    calibrate: str | Path | None = None,
    tolerance: float = TOLERANCE,
    log: Callable[[str], None] = _to_stderr,
) -> tuple[Model, QuantizationReport]:
    """A model in int8 for OpenVINO, no worse than allowed on images that it was not calibrated with.

    A network quantized before on the same images, whose loss is within the tolerance, is taken from the cache.

    Args:
        reference: a registered name, a name with weights, a run folder, a saved model's folder.
        calibrate: a folder of images or of class folders; a run folder knows its own data, and other models take
            what they were quantized with last.
        tolerance: by how much the task's score may fall, a fraction.
        log: prints a line: what was lost, on how many images.

    Returns:
        A model with the input ``pixels``, uint8 (N, height, width, channels), and the outputs of the float one; and
        the cost in accuracy.

    Raises:
        MissingExtraError: NNCF is not installed.
        UsageError: there are no images to calibrate with, or the tolerance is not a fraction.
        DataError: they cannot be read, or are too few.
        ModelError: more than the tolerance is lost; or the loss cannot be measured for the model's task.
    """
    network, report = find_or_quantize(ModelSource(reference), calibrate, tolerance, log).network
    return network, report


def find_or_quantize(
    source: ModelSource, calibrate: str | Path | None, tolerance: float, log: Callable[[str], None] = _to_stderr
) -> Converted:
    """As :func:`quantized_for`; the network of the conversion is the pair of both results."""
    if not 0 < tolerance < 1:
        raise UsageError(f"tolerance is {tolerance:g}", "use a fraction such as 0.01: one point of accuracy")
    backend = QuantizedOpenVino()
    if calibrate is None and (cached := _within(find_newest(source, backend, "int8"), tolerance)) is not None:
        return _announced(cached, log)
    metadata = source.load()[1]
    if "probabilities" not in decoder_of(metadata.task, source.name).OUTPUTS:
        raise ModelError(
            f"{source.name} is not quantized: the cost of int8 is only measured for classifiers.",
            "Take --precision bf16, fp16 or fp32.",
        )
    files = find_calibration_files(source.name, metadata.classes, calibrate, tolerance)
    nncf_library()  # before the work begins: it may be missing
    found = source.found
    key = "" if found is None else conversion_key(found, backend, "int8", files.digest())
    if found is not None and (cached := _within(read_converted(key, backend), tolerance)) is not None:
        return _announced(cached, log)
    start = time.perf_counter()
    pair = _quantized(source, files, tolerance, log)
    note = f"quantized in {time.perf_counter() - start:.0f} s"
    if found is None:
        return _announced(Converted(pair, metadata, f"{note}, not cached: only models with a name are"), log)
    made = Converted(pair, metadata, note)
    failure = store(found, backend, made, key, "int8")
    stored = f"not cached: {failure}" if failure else "cached for next time"
    return _announced(replace(made, note=f"{note}, {stored}"), log)


def _within(converted: Converted | None, tolerance: float) -> Converted | None:
    """A cached network, unless it lost more than is allowed now."""
    return converted if converted is not None and converted.network[1].loss <= tolerance else None


def _announced(converted: Converted, log: Callable[[str], None]) -> Converted:
    log(converted.network[1].line())
    return converted


def _quantized(
    source: ModelSource, files: CalibrationFiles, tolerance: float, log: Callable[[str], None]
) -> tuple[Model, QuantizationReport]:
    from hubel.inference.accuracy_control import quantize_with_accuracy_control, runner

    metadata = source.load()[1]
    images = read_calibration_images(files, metadata.preprocessing, tolerance, log)
    log(f"int8: {len(images.calibration)} calibration and {len(images.held_out)} held-out images of {files.origin}")
    model = convert(source, OpenVinoBackend()).network
    held_out = classifier_held_out(images.held_out, images.labels, runner(model, "fp32"))
    return quantize_with_accuracy_control(model, images.calibration, held_out, tolerance, log=log)


def classifier_held_out(pixels: np.ndarray, labels: np.ndarray | None, exact: Run) -> AccuracyCheck:
    """The score of a classifier on held-out images.

    With labels it is top-1 accuracy. Without, the float32 network's own probabilities estimate how accurate its
    predictions are, and how accurate the quantized network's: the score is the second over the first. Exchanging two
    classes that the float32 network cannot tell apart costs little, and predicting what it considers improbable costs
    much, however confident it is in general.

    Args:
        pixels: uint8 (N, height, width, channels).
        labels: class indices (N,), or None.
        exact: runs the float32 network.
    """
    beliefs = probabilities(exact, pixels)
    exact_best = beliefs.argmax(1)

    def best(run: Run) -> np.ndarray:
        classes: np.ndarray = probabilities(run, pixels).argmax(1)
        return classes

    def top1(run: Run) -> float:
        return float((best(run) == labels).mean())

    def expected_top1(run: Run) -> float:
        return float(beliefs[np.arange(len(beliefs)), best(run)].sum() / beliefs.max(1).sum())

    def agreement(run: Run) -> float:
        return float((best(run) == exact_best).mean())

    if labels is None:
        return AccuracyCheck("expected accuracy (no labels; float32 = 1)", len(pixels), expected_top1, agreement)
    return AccuracyCheck("top-1", len(pixels), top1, agreement)


def probabilities(run: Run, pixels: np.ndarray) -> np.ndarray:
    """Of a classifier, (N, classes)."""
    return np.concatenate([predictions["probabilities"] for predictions in run(in_batches(pixels))])
