"""From torch to OpenVINO: a model whose input is uint8 pixels and whose output is what the network gives."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hubel.data.preprocessing import Preprocessing
from hubel.inference.engines.normalized_model import INPUT_NAME, NormalizedModel, capture
from hubel.inference.engines.openvino_runtime import openvino
from hubel.inference.fusion import fold

if TYPE_CHECKING:
    from openvino import Model


def to_openvino(model: nn.Module, preprocessing: Preprocessing, outputs: Sequence[str] = ("scores",)) -> Model:
    """Convert a network.

    Args:
        model: maps images (N, C, H, W) to raw outputs (N, …); it is left as it is.
        preprocessing: the model's; its normalization becomes part of the graph.
        outputs: names for the network's outputs.

    Returns:
        A model in float32 with the input ``pixels``, uint8 (N, H, W, C) of any N, and the outputs by these names.
    """
    folded = fold(model).to("cpu", torch.float32)
    converted = _traced(folded, preprocessing)
    if converted is None:
        converted = openvino().convert_model(capture(folded, preprocessing))
    shape = [-1, preprocessing.height, preprocessing.width, preprocessing.channels]
    converted.reshape(shape)
    converted.inputs[0].get_tensor().set_names({INPUT_NAME})
    for output, name in zip(converted.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    return converted


def _traced(model: nn.Module, preprocessing: Preprocessing) -> Any:
    """The conversion of a trace, or None if the network cannot be traced.

    Tracing takes a fifth of the time of torch.export and OpenVINO's reading of it (EfficientNet-Lite0 here: 1.6 s in
    place of 9 s). What a trace cannot hold is control flow that depends on the pixels: torch warns of it, and then
    torch.export has to decide.
    """
    pixels = torch.zeros(2, preprocessing.height, preprocessing.width, preprocessing.channels, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("error", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", module=r"hubel\.layers\.padding")  # whose sizes are those of the input
        try:
            trace = torch.jit.trace(NormalizedModel(model, preprocessing), pixels, check_trace=False)
            return openvino().convert_model(trace)
        except Exception:  # the tracer and the converter meet whatever a network does: they may raise anything
            return None
