"""OpenVINO IR: writing a model and running it with OpenVINO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.exporters.metadata import as_text
from hubel.inference.engines.normalized_model import INPUT_NAME
from hubel.inference.engines.openvino_runtime import core, openvino

if TYPE_CHECKING:
    from openvino import Model

FILE = "model.xml"
SECTION = "hubel"
"""Of ``rt_info``, where the metadata are."""


def name_outputs(converted: Model, outputs: Sequence[str]) -> None:
    """Call a model's outputs by these names instead of those that they have."""
    for output, name in zip(converted.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})


def ending_in_probabilities(scoring: Model) -> Model:
    """A model whose one output is the softmax of another's raw scores (N, classes)."""
    library = openvino()
    scores = scoring.outputs[0].get_node().input_value(0)
    probabilities = library.opset13.softmax(scores, axis=1)
    return library.Model([library.opset13.result(probabilities)], scoring.get_parameters(), scoring.get_friendly_name())


def write(converted: Model, half: bool, facts: dict[str, Any], folder: Path) -> None:
    """Write ``model.xml`` and ``model.bin``.

    Args:
        converted: the model; the metadata are added to it.
        half: store float weights in 16 bits.
        facts: the metadata.
        folder: where.

    Raises:
        OSError: the files cannot be written.
    """
    for key, value in as_text(facts).items():
        converted.set_rt_info(value, [SECTION, key])
    try:
        openvino().save_model(converted, folder / FILE, compress_to_fp16=half)
    except RuntimeError as error:  # "iostream error" is all that it tells
        raise OSError(str(error).strip().splitlines()[-1]) from error


def load(folder: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The written files, read by OpenVINO: from uint8 pixels (N, H, W, C) to outputs by name."""
    model = core().read_model(folder / FILE)
    hint = model.get_rt_info([SECTION, "inference_precision"]).value
    compiled = core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    names = [output.any_name for output in compiled.outputs]

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        answers = compiled({INPUT_NAME: pixels})
        return {name: answers[name] for name in names}

    return run
