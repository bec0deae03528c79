"""Every engine gives the probabilities of plain torch layers, in order, whatever the batches; torchvision judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from hubel.data.preprocessing import Preprocessing
from hubel.errors import MissingExtraError, ModelError, UsageError
from hubel.inference import Predictor
from hubel.inference.engines.base import Engine, Precision, canonical
from hubel.inference.engines.normalized_model import NormalizedModel
from hubel.inference.engines.onnx import OnnxBackend, OnnxEngine
from hubel.inference.engines.onnx import choose_precision as choose_onnx_precision
from hubel.inference.engines.openvino import OpenVinoEngine, choose_precision, to_openvino
from hubel.inference.engines.selection import MIN_IMAGES_TO_CONVERT
from hubel.inference.engines.torch import Compiled, TorchBackend, TorchEngine
from hubel.models import ModelMetadata, create_model

_PREPROCESSING = Preprocessing(64, 96)
_FP32 = Precision("fp32")


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    return resnet18(num_classes=7).eval()


@pytest.fixture(scope="module")
def onnx_file(network: nn.Module) -> bytes:
    content: bytes = OnnxBackend().convert(NormalizedModel(network, _PREPROCESSING)).SerializeToString()
    return content


@pytest.fixture(scope="module", params=["torch", "openvino", "openvino, 4 at once", "onnx", "onnx, 4 at once"])
def engine(request: pytest.FixtureRequest, network: nn.Module) -> Engine:
    if request.param == "torch":
        return TorchEngine(network, _PREPROCESSING, torch.device("cpu"), _FP32, batch=4)
    batch = 4 if "4" in request.param else 1
    if request.param.startswith("onnx"):
        return OnnxEngine(request.getfixturevalue("onnx_file"), _FP32, threads=2, batch=batch)
    converted = to_openvino(network, _PREPROCESSING)
    return OpenVinoEngine(converted, _FP32, threads=2, batch=batch)


def _batches(sizes: list[int], seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, 256, (size, 64, 96, 3), dtype=np.uint8) for size in sizes]


def _expected(network: nn.Module, pixels: np.ndarray) -> np.ndarray:
    mean, std = (np.array(each, np.float32) for each in (_PREPROCESSING.mean, _PREPROCESSING.std))
    with torch.inference_mode():
        scores = network(torch.from_numpy((pixels - mean) / std).permute(0, 3, 1, 2))
        probabilities: np.ndarray = scores.softmax(1).numpy()
    return probabilities


def test_batches_of_any_size_are_predicted_in_order(engine: Engine, network: nn.Module) -> None:
    batches = _batches([3, 1, 0, 9, 4, 1, 1, 6])
    results = list(engine.run(iter(batches)))
    dtypes = [{name: array.dtype for name, array in result.items()} for result in results]
    assert dtypes == [{"probabilities": np.float32}] * len(batches)
    for result, pixels in zip(results, batches, strict=True):
        if len(pixels):
            np.testing.assert_allclose(result["probabilities"], _expected(network, pixels), atol=2e-5)
        else:
            assert result["probabilities"].shape == (0, 7)
    assert list(engine.run([])) == []


def test_no_more_batches_are_taken_than_are_needed(engine: Engine) -> None:
    (pixels,) = _batches([4])
    taken = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal taken
        while True:
            taken += 1
            yield pixels

    results = engine.run(endless())
    for seen in range(1, 10):
        next(results)
        assert taken <= seen + 4
    results.close()  # type: ignore[attr-defined]
    assert len(list(engine.run([pixels, pixels]))) == 2  # it can be used again


def test_an_error_in_the_source_comes_up_and_the_engine_goes_on(engine: Engine, network: nn.Module) -> None:
    first, second = _batches([2, 2], seed=1)

    def broken() -> Iterator[np.ndarray]:
        yield first
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(engine.run(broken()))
    (result,) = engine.run([second])
    np.testing.assert_allclose(result["probabilities"], _expected(network, second), atol=2e-5)


class _DependsOnPixels(nn.Module):
    """Control flow that a trace cannot hold."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(3, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        means = images.mean(dim=(2, 3))
        return self.dense(means) if means.mean() > 0 else self.dense(-means)


def test_control_flow_is_not_left_out_in_silence() -> None:
    with pytest.raises(Exception, match="data-dependent|control flow"):
        to_openvino(_DependsOnPixels().eval(), _PREPROCESSING)


class _WithGamma(nn.Module):
    """An operation that OpenVINO does not have."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.lgamma(images.mean(dim=(2, 3)))


def test_what_an_engine_cannot_convert_is_one_error_and_runs_on_torch() -> None:
    metadata = ModelMetadata("classify", "with_gamma", 3, 3, 64, list("abc"), _PREPROCESSING)
    with pytest.raises(
        ModelError, match="with_gamma cannot be converted for the engine openvino: No conv.*lgamma"
    ) as e:
        Predictor(_WithGamma(), engine="openvino", metadata=metadata)
    assert "\n" not in e.value.message and "--engine torch" in e.value.hint
    predict = Predictor(_WithGamma(), metadata=metadata, precision="fp32", device="cpu")
    (pixels,) = _batches([MIN_IMAGES_TO_CONVERT])
    assert len(list(predict(list(pixels)))) == MIN_IMAGES_TO_CONVERT
    assert predict.describe().startswith("with_gamma on torch (openvino cannot convert the model)")
    assert len(list(predict(list(pixels)))) == MIN_IMAGES_TO_CONVERT


@pytest.mark.parametrize(
    "name", ["efficientnet_lite0", "googlenet", pytest.param("densenet121", marks=pytest.mark.slow)]
)
def test_networks_of_every_make_are_converted(name: str) -> None:
    """Padding as TensorFlow's, LRN, branches, dense blocks: OpenVINO against the unprepared modules of torch."""
    torch.manual_seed(0)
    network = create_model(name, num_classes=5, image_size=128).eval()
    preprocessing = Preprocessing(128, 128)
    (pixels,) = _batches([2])
    pixels = np.tile(pixels, (1, 2, 2, 1))[:, :128, :128]
    images = preprocessing.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.inference_mode():
        expected = network(images).softmax(1).numpy()
    (result,) = OpenVinoEngine(to_openvino(network, preprocessing), _FP32, threads=1).run([pixels])
    np.testing.assert_allclose(result["probabilities"], expected, atol=1e-4 * np.abs(expected).max())


def test_precisions_have_two_spellings() -> None:
    assert [canonical(name) for name in ("auto", "float32", "bf16", "bfloat16", "float16", "int8")] == [
        "auto", "fp32", "bf16", "bf16", "fp16", "int8",
    ]  # fmt: skip
    with pytest.raises(UsageError, match="'fp8'"):
        canonical("fp8")
    with pytest.raises(UsageError, match="'int8'"):
        canonical("int8", ("fp32", "bf16"))


def test_precisions_that_the_processor_lacks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class OldProcessor:
        def get_property(self, device: str, name: str) -> list[str]:
            return ["FP32", "INT8", "EXPORT_IMPORT"]

    assert choose_precision("float32").name == "fp32"
    monkeypatch.setattr("hubel.inference.engines.openvino.core", OldProcessor)
    assert choose_precision().name == "fp32"
    with pytest.raises(UsageError, match="no instructions for fp16"):
        choose_precision("fp16")
    with pytest.raises(UsageError, match="'bfloat16' is not available"):
        choose_onnx_precision("bfloat16")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubel.inference.engines.onnx.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"hubel\[onnx\]"):
        Predictor("efficientnet_lite0", engine="onnx")


def test_gpus_are_torch_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hubel.inference.predictor.gpu", lambda device: torch.device("cuda", 0))
    with pytest.raises(UsageError, match="openvino does not run on cuda:0"):
        Predictor("efficientnet_lite0", engine="openvino", device="cuda:0")


@pytest.mark.parametrize("works", [True, False])
def test_a_compiled_network_sees_one_size_of_batch(
    network: nn.Module, monkeypatch: pytest.MonkeyPatch, works: bool
) -> None:
    """As on a GPU, with a stand-in for the compiler: batches are filled up, and what does not compile runs as it is."""
    sizes = []

    def stand_in(plain: nn.Module, dynamic: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        def compiled(images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            if not works:
                raise RuntimeError("Cannot find a working triton installation")
            output: torch.Tensor = plain(images)
            return output

        return compiled

    monkeypatch.setattr(torch, "compile", stand_in)
    compiled = Compiled(network, batch=4)
    images = torch.rand(9, 3, 64, 96)
    with torch.inference_mode():
        expected = network(images)
        got = torch.cat([compiled(part) for part in (images[:4], images[4:8], images[8:], images[:0])])
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-4)
    assert sizes == ([4, 4, 4] if works else [4])


def test_what_is_not_converted_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="torch has no conversion to load from"):
        TorchBackend().load(tmp_path)
