"""ONNX: writing a model and running it with ONNX Runtime."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from hubel.data.preprocessing import Preprocessing
from hubel.errors import MissingExtraError
from hubel.runtime.deployable import INPUT_NAME, capture
from hubel.runtime.exporting.metadata import as_text

if TYPE_CHECKING:
    import onnx

FILE = "model.onnx"
OPSET = 18
"""Of the operators: what torch's exporter writes without converting, and runtimes have known since 2023."""


def require_onnx() -> None:
    """Make sure that the packages are there.

    Raises:
        MissingExtraError: they are not installed.
    """
    if not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
        raise MissingExtraError("Exporting to ONNX", "onnx")


def write(
    network: nn.Module, preprocessing: Preprocessing, outputs: tuple[str, ...], facts: dict[str, Any], folder: Path
) -> None:
    """Write ``model.onnx``, weights included.

    Args:
        network: maps normalized images (N, C, H, W) to its outputs.
        preprocessing: the model's; its normalization becomes part of the graph.
        outputs: names for the network's outputs.
        facts: the metadata.
        folder: where.

    Raises:
        OSError: the file cannot be written.
    """
    program = capture(network, preprocessing)
    with _quiet():
        exported = torch.onnx.export(
            program,
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=list(outputs),
        )
    assert exported is not None  # it is, unless a file is asked for
    proto = exported.model_proto
    _tidy(proto.graph)
    for key, value in as_text(facts).items():
        proto.metadata_props.add(key=key, value=value)
    (folder / FILE).write_bytes(proto.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells what it does and what will change in torch; neither is of use to those who export."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _tidy(graph: onnx.GraphProto) -> None:
    """Take out where in whose file each operator comes from; call the batch by its name."""
    values = [*graph.input, *graph.output, *graph.value_info]
    for part in (*graph.node, *graph.initializer, *values):
        del part.metadata_props[:]
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in values:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == batch:
                dimension.dim_param = "batch"


def load(folder: Path) -> Callable[[np.ndarray], dict[str, np.ndarray]]:
    """The written file, read by ONNX Runtime: from uint8 pixels (N, H, W, C) to outputs by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / FILE, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda pixels: dict(zip(names, session.run(names, {INPUT_NAME: pixels}), strict=True))
