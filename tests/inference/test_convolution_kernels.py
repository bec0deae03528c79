"""Both kinds of convolution kernels of OpenVINO compute the same as torch, and slow ones are never taken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hubel.data.preprocessing import Preprocessing
from hubel.inference.engines import convolution_kernels
from hubel.inference.engines.base import Precision
from hubel.inference.engines.convolution_kernels import compile_fastest, kernels, prefer_blocked
from hubel.inference.engines.openvino import OpenVinoEngine, core, openvino, to_openvino
from hubel.models import create_model

_PREPROCESSING = Preprocessing(32, 32)


class _EveryKind(nn.Sequential):
    """1 × 1, 3 × 3, depthwise and grouped convolutions, each with a batch normalization and ReLU."""

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for before, after, kernel, groups in ((3, 16, 3, 1), (16, 32, 1, 1), (32, 32, 3, 32), (32, 32, 3, 4)):
            layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2, groups=groups, bias=False)]
            layers += [nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers)


def _openvino_model(network: nn.Module) -> Any:
    model = openvino().convert_model(network, example_input=torch.zeros(1, 3, 32, 32))
    model.reshape([1, 3, 32, 32])
    return model


def test_preferred_kernels_compute_the_same_and_grouped_convolutions_keep_theirs() -> None:
    torch.manual_seed(0)
    network = _EveryKind().eval()
    images = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        expected = network(images).numpy()
    model = _openvino_model(network)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    usual = kernels(core().compile_model(model, "CPU", options))
    prefer_blocked(core(), model)
    compiled = core().compile_model(model, "CPU", options)
    assert not any("ref" in name for name in kernels(compiled) - usual)
    (found,) = compiled([images.numpy()]).values()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_kernels_that_stand_in_for_missing_ones_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution_kernels, "blocked_pays", lambda core: True)
    options = {"INFERENCE_PRECISION_HINT": "f32"}
    opset = openvino().opset13
    pixels = opset.parameter([1, 48, 8, 8], np.float32)  # no first layer that changes the layout
    weights = opset.constant(np.ones((48, 48, 1, 1), np.float32))
    network = openvino().Model([opset.convolution(pixels, weights, [1, 1], [0, 0], [0, 0], [1, 1])], [pixels], "one")
    usual = kernels(core().compile_model(network, "CPU", options))
    compiled, note = compile_fastest(core(), network, options)
    taken = kernels(compiled)
    assert taken == usual or (note and not any("gemm" in name or "ref" in name for name in taken))


@pytest.mark.parametrize("pays", [False, True])
def test_scores_do_not_depend_on_the_choice(pays: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution_kernels, "blocked_pays", lambda core: pays)
    torch.manual_seed(0)
    network = create_model("mobilenet_v2", num_classes=7, image_size=32).eval()
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        images = _PREPROCESSING.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
        expected = network(images).softmax(1).numpy()
    engine = OpenVinoEngine(to_openvino(network, _PREPROCESSING), Precision("fp32"))
    (found,) = engine.run([pixels])
    np.testing.assert_allclose(found["probabilities"], expected, atol=1e-5)


def test_a_clock_that_shows_no_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.process_time", lambda: 1.0)
    monkeypatch.setattr(convolution_kernels, "_has_avx512", lambda: False)
    assert convolution_kernels.blocked_pays.__wrapped__(core()) is False
