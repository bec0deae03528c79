"""From torch to OpenVINO: a model whose input is uint8 pixels and whose output is what the network gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from hubel.data.preprocessing import Preprocessing
from hubel.runtime.deployable import INPUT_NAME, OUTPUT_NAME, capture

if TYPE_CHECKING:
    import openvino


def to_openvino(model: nn.Module, preprocessing: Preprocessing) -> openvino.Model:
    """Convert a network.

    Args:
        model: maps images (N, C, H, W) to raw scores (N, classes); it is left as it is.
        preprocessing: the model's; its normalization becomes part of the graph.

    Returns:
        A model in float32 with the input ``pixels``, uint8 (N, H, W, C) of any N, and the output ``scores``,
        float32 (N, classes).
    """
    import openvino

    converted = openvino.convert_model(capture(model, preprocessing))
    shape = [-1, preprocessing.height, preprocessing.width, preprocessing.channels]
    converted.reshape(shape)
    converted.inputs[0].get_tensor().set_names({INPUT_NAME})
    converted.outputs[0].get_tensor().set_names({OUTPUT_NAME})
    return converted
