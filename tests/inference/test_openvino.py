"""OpenVINO: it computes what torch computes, in a process that gets signals."""

from __future__ import annotations

import ctypes
import sys

import numpy as np
import openvino
import pytest
import torch
from openvino import opset13
from torchvision.models import resnet18

from hubel.data.preprocessing import Preprocessing
from hubel.inference.engines import normalized_model
from hubel.inference.engines.openvino import core, own_signal_stack, to_openvino
from hubel.models import create_model


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


@pytest.mark.parametrize(
    "name",
    ["ssd", "yolo_v3_tiny", *(pytest.param(name, marks=pytest.mark.slow) for name in ("efficientdet_d0", "one_stage"))],
)
def test_detectors_are_traced_and_find_torch_s_boxes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their anchors, worked out on the meta device, are constants; ``torch.export`` would take ten times as long."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=2).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    preprocessing = Preprocessing(64, 96, mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
    monkeypatch.setattr(normalized_model, "capture", None)
    compiled = core().compile_model(to_openvino(network, preprocessing), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled({"pixels": pixels})
    with torch.no_grad():
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
        expected = network.predictions(network(images), (64, 96))
    for output, limit in {"boxes": 1e-2, "scores": 1e-4}.items():
        np.testing.assert_allclose(found[output], expected[output].numpy(), atol=limit)


def signal_stack() -> bytes:
    """sigaltstack(2)'s record of this thread's: address, flags, size."""
    record = ctypes.create_string_buffer(24)
    assert ctypes.CDLL(None).sigaltstack(None, record) == 0
    return record.raw


def plus_one() -> openvino.Model:
    parameter = opset13.parameter([2], np.float32)
    return openvino.Model([opset13.add(parameter, np.float32(1))], [parameter])


def test_there_is_one_core_for_all():
    assert core() is core()
    np.testing.assert_array_equal(core().compile_model(plus_one(), "CPU")([np.zeros(2, np.float32)])[0], [1, 1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sigaltstack(2) of Linux")
def test_the_stack_for_signals_is_left_as_it_was():
    before = signal_stack()
    core()
    assert signal_stack() == before
    # A core that ends before one that began later leaves its stack behind.
    with own_signal_stack():
        first = openvino.Core()
        first.get_property("CPU", "FULL_DEVICE_NAME")
        second = openvino.Core()
        second.get_property("CPU", "FULL_DEVICE_NAME")
        del first, second
    assert signal_stack() == before
