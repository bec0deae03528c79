"""OpenVINO IR: writing a model and running it with OpenVINO."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from hubel.data.preprocessing import Preprocessing
from hubel.runtime.deployable import INPUT_NAME
from hubel.runtime.exporting.metadata import as_text
from hubel.runtime.openvino_conversion import to_openvino
from hubel.runtime.telemetry import switch_off_telemetry

if TYPE_CHECKING:
    import openvino

FILE, WEIGHTS_FILE = "model.xml", "model.bin"
SECTION = "hubel"
"""Of ``rt_info``, where the metadata are."""


def convert(network: nn.Module, preprocessing: Preprocessing, outputs: tuple[str, ...]) -> openvino.Model:
    """A network, which maps normalized images to its outputs, from uint8 pixels on, with its outputs named."""
    converted = to_openvino(network, preprocessing)
    for output, name in zip(converted.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    return converted


def write(converted: openvino.Model, half: bool, facts: dict[str, Any], folder: Path) -> None:
    """Write ``model.xml`` and ``model.bin``.

    Args:
        converted: the model; the metadata are added to it.
        half: store float weights in 16 bits.
        facts: the metadata.
        folder: where.

    Raises:
        OSError: the files cannot be written.
    """
    import openvino

    for key, value in as_text(facts).items():
        converted.set_rt_info(value, [SECTION, key])
    try:
        openvino.save_model(converted, folder / FILE, compress_to_fp16=half)
    except RuntimeError as error:  # "iostream error" is all that it tells
        raise OSError(str(error).strip().splitlines()[-1]) from error


def load(folder: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The written files, read by OpenVINO: from uint8 pixels (N, H, W, C) to outputs by name."""
    switch_off_telemetry()
    import openvino

    core = openvino.Core()
    model = core.read_model(folder / FILE)
    hint = model.get_rt_info([SECTION, "inference_precision"]).value
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": hint})
    names = [output.any_name for output in compiled.outputs]

    def run(pixels: np.ndarray) -> dict[str, np.ndarray]:
        answers = compiled({INPUT_NAME: pixels})
        return {name: answers[name] for name in names}

    return run
