"""ONNX: writing a model and running it with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hubel.exporters.metadata import as_text
from hubel.inference.engines.normalized_model import INPUT_NAME

if TYPE_CHECKING:
    from onnx import ModelProto

FILE = "model.onnx"


def write(converted: ModelProto, facts: dict[str, Any], folder: Path) -> None:
    """Write ``model.onnx``, weights included.

    Args:
        converted: the model; the metadata are added to it.
        facts: the metadata.
        folder: where.

    Raises:
        OSError: the file cannot be written.
    """
    for key, value in as_text(facts).items():
        converted.metadata_props.add(key=key, value=value)
    (folder / FILE).write_bytes(converted.SerializeToString())


def load(folder: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The written file, read by ONNX Runtime: from uint8 pixels (N, H, W, C) to outputs by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda pixels: dict(zip(names, session.run(names, {INPUT_NAME: pixels}), strict=True))
