"""From torch to ONNX: a model whose input is uint8 pixels and whose outputs are what the network gives."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from hubel.errors import MissingExtraError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto
    from torch import nn

    from hubel.data.preprocessing import Preprocessing

OPSET = 18
"""Of the operators: what torch's exporter writes without converting, and runtimes have known since 2023."""


def require_onnx(feature: str) -> None:
    """Make sure that the packages are there.

    Raises:
        MissingExtraError: they are not installed; says what needs them.
    """
    if not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
        raise MissingExtraError(feature, "onnx")


def to_onnx(model: nn.Module, preprocessing: Preprocessing, outputs: Sequence[str], alone: bool = False) -> ModelProto:
    """Convert a network.

    Args:
        model: maps normalized images (N, C, H, W) to its outputs, on the CPU; taken as it is, in evaluation mode.
        preprocessing: the model's; its normalization becomes part of the graph.
        outputs: names for the network's outputs.
        alone: the model takes one image at a time.

    Returns:
        A model with the input ``pixels``, uint8 (N, H, W, C) of any N unless ``alone``, and the outputs by these names.
    """
    import torch

    from hubel.inference.engines.normalized_model import INPUT_NAME, capture

    program = capture(model, preprocessing, alone)
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
    proto: ModelProto = exported.model_proto
    _tidy(proto.graph, alone)
    return proto


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells what it does and what will change in torch; neither helps those who want an answer."""
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


def _tidy(graph: GraphProto, alone: bool) -> None:
    """Take out where in whose file each operator comes from; call the batch by its name."""
    values = [*graph.input, *graph.output, *graph.value_info]
    for part in (*graph.node, *graph.initializer, *values):
        del part.metadata_props[:]
    if alone:
        return
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for value in values:
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param == batch:
                dimension.dim_param = "batch"
