"""Models in int8, from their names: what ``hubel predict`` and ``hubel export`` take."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from hubel.errors import ModelError
from hubel.models.saved import ModelCard, resolve_model
from hubel.runtime.calibration import calibration_images
from hubel.runtime.classification_guard import classifier_held_out
from hubel.runtime.openvino_conversion import to_openvino
from hubel.runtime.quantization import nncf_library
from hubel.runtime.quantization_guard import QuantizationReport, quantize, runner

if TYPE_CHECKING:
    from openvino import Model


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def quantized_for(
    reference: str | Path,
    calibrate: str | Path | None = None,
    tolerance: float = 0.01,
    network: tuple[nn.Module, ModelCard] | None = None,
    say: Callable[[str], None] = _to_stderr,
) -> tuple[Model, QuantizationReport]:
    """A model in int8 for OpenVINO, no worse than allowed on images that it was not calibrated with.

    Args:
        reference: a registered name, a name with weights, a run folder, a saved model's folder.
        calibrate: a folder of images or of class folders; a run folder knows its own data.
        tolerance: by how much the task's score may fall, a fraction.
        network: the model and its card, if they have been loaded already.
        say: shows a line to the person: what was lost, on how many images.

    Returns:
        A model with the input ``pixels``, uint8 (N, height, width, channels), and the outputs of the float one; and
        what it costs.

    Raises:
        MissingExtraError: NNCF is not installed.
        UsageError: there are no images to calibrate with, or the tolerance is no fraction.
        DataError: they cannot be read, or are too few.
        ModelError: more than the tolerance is lost; or the model's task cannot be judged yet.
    """
    nncf_library()  # before any work is done: it may be missing
    model, card = network or resolve_model(reference)
    if card.task != "classify":
        raise ModelError(f"{reference}: int8 is not available for the task {card.task!r}.", "Use --precision bf16.")
    images = calibration_images(reference, card.classes, card.preprocessing, calibrate, tolerance, say=say)
    say(f"int8: {len(images.calibration)} calibration and {len(images.held_out)} held-out images of {images.origin}")
    converted = to_openvino(model, card.preprocessing)
    held_out = classifier_held_out(images.held_out, images.labels, runner(converted, "fp32"))
    quantized, report = quantize(converted, images.calibration, held_out, tolerance, say=say)
    say(report.line())
    return quantized, report
