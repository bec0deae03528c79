"""OpenVINO computes what torch computes."""

from __future__ import annotations

import numpy as np
import openvino
import pytest
import torch
from torchvision.models import resnet18

from hubel.data.preprocessing import Preprocessing
from hubel.inference.engines.openvino import to_openvino
from hubel.inference.engines.openvino_runtime import core


@pytest.mark.parametrize("images", [1, 3])
def test_converted_network_gives_torch_s_probabilities_for_uint8_pixels(images: int) -> None:
    torch.manual_seed(0)
    network = resnet18(num_classes=7).eval()
    preprocessing = Preprocessing(64, 96)
    pixels = np.random.default_rng(0).integers(0, 256, (images, 64, 96, 3), dtype=np.uint8)
    mean, std = (np.array(each, np.float32) for each in (preprocessing.mean, preprocessing.std))
    with torch.no_grad():
        expected = network(torch.from_numpy((pixels - mean) / std).permute(0, 3, 1, 2)).softmax(1).numpy()
    converted = to_openvino(network, preprocessing)
    compiled = core().compile_model(converted, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert compiled.input("pixels").element_type == openvino.Type.u8
    np.testing.assert_allclose(compiled({"pixels": pixels})["probabilities"], expected, atol=1e-4)
