"""An exported folder is a model again: the same results as of the model, by the same road, from untrusted files."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import hubel
from hubel.benchmark.session import Runner, Session
from hubel.benchmark.worker import measure, prepare, start
from hubel.data.preprocessing import Preprocessing
from hubel.data.sources import sample_photographs
from hubel.errors import ModelError, UsageError
from hubel.inference.engines import exported as exported_models
from hubel.inference.engines.base import Precision, RunOptions
from hubel.inference.engines.exported import find_exported
from hubel.inference.engines.exported_checks import CheckedEngine
from hubel.models import ModelMetadata, create_model
from hubel.models.checkpoint import describe, save_model
from hubel.tracking import create_tracker
from hubel.training.evaluate import evaluate

CLASSES = ["rose", "naïve & <b>", "花"]


class _Detector(nn.Module):
    """16 boxes on a grid, whose size and scores depend on the image."""

    prediction_names = ("boxes", "scores")

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Conv2d(3, 3, 8, 8)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.scores(images).flatten(2).transpose(1, 2)
        return scores

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        scores = torch.sigmoid(4 * outputs)
        grid = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)) * 8
        corners = grid.expand(scores.shape[0], 16, 2)
        return {"boxes": torch.cat([corners, corners + 4 + 20 * scores[..., :1]], 2), "scores": scores}


class _Segmenter(nn.Module):
    prediction_names = ("class_map",)

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.scores(images)
        return scores

    def predictions(self, outputs: Tensor, size: tuple[int, int]) -> dict[str, Tensor]:
        return {"class_map": outputs.argmax(1).to(torch.int32)}


def _classifier() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 3)
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {"classify": _classifier, "detect": _Detector, "segment": _Segmenter}


def _model(task: str) -> tuple[nn.Module, ModelMetadata]:
    torch.manual_seed(0)
    preprocessing = Preprocessing(32, 32, crop_fraction=0.9)
    return NETWORKS[task]().eval(), ModelMetadata(task, "tiny", 3, 3, 32, CLASSES, preprocessing)


def _export(task: str, format: str, out: Path, precision: str = "fp32", nms: bool = False) -> Path:
    network, metadata = _model(task)
    return hubel.export(network, format, precision, out=out, metadata=metadata, nms=nms, conf=0.3).path.parent


def _rows(predict: hubel.Predictor) -> list[dict[str, Any]]:
    return [result.to_json() for result in predict(sample_photographs() * 3)]


def _assert_alike(actual: Any, expected: Any, tolerance: float) -> None:
    """The same JSON, but for numbers within a tolerance; boxes in pixels of 640 × 427 within 100 times that."""
    if isinstance(expected, dict):
        assert set(actual) == set(expected)
        for key, value in expected.items():
            _assert_alike(actual[key], value, 100 * tolerance if key == "box" else tolerance)
    elif isinstance(expected, list):
        assert len(actual) == len(expected)
        for one, other in zip(actual, expected, strict=True):
            _assert_alike(one, other, tolerance)
    else:
        assert actual == (pytest.approx(expected, abs=tolerance) if isinstance(expected, float) else expected)


@pytest.mark.parametrize(
    ("task", "format", "precision", "nms"),
    [
        *(("classify", format, "fp32", False) for format in ("onnx", "openvino", "torch")),
        ("classify", "openvino", "fp16", False),
        ("classify", "openvino", "bf16", False),
        *(("detect", format, "fp32", False) for format in ("onnx", "openvino")),
        ("detect", "onnx", "fp32", True),
        ("segment", "onnx", "fp32", False),
        pytest.param("classify", "torch", "bf16", False, marks=pytest.mark.slow),
        pytest.param("detect", "torch", "fp32", False, marks=pytest.mark.slow),
        pytest.param("detect", "openvino", "fp32", True, marks=pytest.mark.slow),
        pytest.param("segment", "torch", "fp32", False, marks=pytest.mark.slow),
    ],
)
def test_results_are_the_models(task: str, format: str, precision: str, nms: bool, tmp_path: Path) -> None:
    folder = _export(task, format, tmp_path / "out", precision, nms)
    network, metadata = _model(task)
    thresholds: dict[str, Any] = {"conf": 0.3}
    expected = _rows(hubel.Predictor(network, "torch", "fp32", metadata=metadata, **thresholds))
    predict = hubel.Predictor(folder, **thresholds)
    _assert_alike(_rows(predict), expected, 2e-3 if precision == "fp32" else 0.02)
    assert f"on {format} (an exported file)" in predict.describe()
    # A single image, and the file by its own name.
    exported = find_exported(folder)
    assert exported is not None
    (row,) = (result.to_json() for result in hubel.Predictor(exported.file, **thresholds)(sample_photographs()[:1]))
    _assert_alike(row, expected[0], 2e-3 if precision == "fp32" else 0.02)


@pytest.fixture(scope="module")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = create_model("simple_cnn", num_classes=3).eval()
    metadata = describe(model)
    metadata.classes[:] = ["cross", "disc", "frame"]
    folder = tmp_path_factory.mktemp("runs") / "shapes"
    save_model(folder, model, metadata)
    return folder


def test_scores_are_the_models(run: Path, shapes: Path, tmp_path: Path) -> None:
    expected = evaluate(run, shapes, split="all", device="cpu")
    for format in ("onnx", "openvino"):
        folder = hubel.export(run, format, out=tmp_path / format).path.parent
        found = evaluate(folder, shapes, split="all", report=tmp_path / f"{format}-report")
        assert found.metrics == pytest.approx(expected.metrics, abs=1e-4)
        assert (tmp_path / f"{format}-report" / "report.html").is_file()


def test_bench_measures_the_engine_and_precision_of_the_file(tmp_path: Path) -> None:
    folder = _export("classify", "onnx", tmp_path / "out")
    row = prepare(str(folder), str(tmp_path / "random"))
    assert row == {
        "reference": str(folder),
        "random_weights": False,
        "input": [3, 32, 32],
        "cost": None,
        "runner": ["onnx", "fp32"],
    }
    requests: tuple[tuple[tuple[str, ...], tuple[str, ...], int], ...] = (
        ((), (), 1), (("onnx",), ("float32",), 1), (("torch",), (), 0), ((), ("bf16",), 0),
    )  # fmt: skip
    for engines, precisions, measured in requests:
        session = Session([], engines, precisions, (), [], 0, 1, None, tmp_path, print, lambda *step: None)
        runners, left_out = session._of_exported(Runner("onnx", "fp32"))
        assert (len(runners), len(left_out)) == (measured, 1 - measured)


def test_another_engine_or_precision_is_refused(tmp_path: Path) -> None:
    folder = _export("classify", "onnx", tmp_path / "out")
    for arguments, message in (
        ({"engine": "torch"}, "runs on the engine onnx, not on torch"),
        ({"engine": "tensorrt"}, "unknown engine"),
        ({"precision": "bf16"}, "was exported in fp32"),
        ({"calibrate": tmp_path}, "omit --device and --calibrate"),
    ):
        with pytest.raises(UsageError) as refused:
            hubel.Predictor(folder, **arguments)
        assert message in f"{refused.value.message}; {refused.value.hint}"
    assert hubel.Predictor(folder, engine="onnx", precision="float32").metadata.classes == CLASSES


def test_int8_with_weights_that_overflow_here_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = _export("classify", "onnx", tmp_path / "out")
    model = onnx.load(folder / "model.onnx")
    for entry in model.metadata_props:
        entry.value = "int8" if entry.key == "precision" else entry.value
    monkeypatch.setattr(exported_models, "exact_weight_bits", lambda: 7)
    for bits, told in ((8, True), (7, False)):
        model.metadata_props.add(key="quantization", value=json.dumps({"weight_bits": bits}))
        onnx.save(model, folder / "model.onnx")
        del model.metadata_props[-1]
        hubel.Predictor(folder)
        assert ("sums overflow" in capfd.readouterr().err) == told


def test_files_that_are_damaged_or_of_others_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = _export("classify", "onnx", tmp_path / "out")
    whole = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(whole.replace(b"Conv", b"Cone"))
    with pytest.raises(ModelError, match=r"model\.onnx cannot be read"):
        list(hubel.Predictor(folder)(sample_photographs()))
    assert capfd.readouterr().out == ""  # where ONNX Runtime prints lines of its own
    (folder / "model.onnx").write_bytes(whole[:100])
    with pytest.raises(ModelError, match=r"model\.onnx"):
        hubel.Predictor(folder)
    model = onnx.load_from_string(whole)
    del model.metadata_props[:]
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(ModelError, match="not from hubel export"):
        hubel.Predictor(folder)
    for name in ("model.xml", "model.pt2"):
        (tmp_path / name).write_bytes(b"neither XML nor ZIP")
        with pytest.raises(ModelError, match=f"{name} cannot be read"):
            hubel.Predictor(tmp_path / name)
    (folder / "model.pt2").write_bytes(b"")
    with pytest.raises(ModelError, match=r"holds model.pt2 and model.onnx|holds model.onnx and model.pt2"):
        hubel.Predictor(folder)


def test_bits_that_no_weights_have_are_refused(tmp_path: Path) -> None:
    folder = _export("classify", "onnx", tmp_path / "out")
    model = onnx.load(folder / "model.onnx")
    for bits in ("8", 9, [], None, True, 1e300):
        model.metadata_props.add(key="quantization", value=json.dumps({"weight_bits": bits}))
        onnx.save(model, folder / "model.onnx")
        del model.metadata_props[-1]
        with pytest.raises(ModelError, match=r"model\.onnx: weight_bits cannot be"):
            find_exported(folder)


class _Computed:
    """An engine that gives what a test says for each batch."""

    name, device, threads, batch, precision = "onnx", "cpu", 1, 1, Precision("fp32")

    def __init__(self, predictions: dict[str, np.ndarray]) -> None:
        self.predictions, self.outputs = predictions, tuple(predictions)

    def run(self, batches: Iterable[np.ndarray]) -> Generator[dict[str, np.ndarray], None, None]:
        return (self.predictions for _ in batches)


_OBJECTS = {"boxes": np.ones((2, 5, 4)), "scores": np.ones((2, 5, 3))}


@pytest.mark.parametrize(
    ("task", "predictions", "fits"),
    [
        ("classify", {"probabilities": np.ones((2, 3), np.float32)}, True),
        ("classify", {"probabilities": np.ones((2, 4), np.float32)}, False),
        ("classify", {"probabilities": np.ones((1, 3), np.float32)}, False),
        ("classify", {"probabilities": np.ones((2, 3), np.int64)}, False),
        ("classify", {"probabilities": np.full((2, 3), np.inf, np.float32)}, False),
        ("classify", {"scores": np.ones((2, 3), np.float32)}, False),
        ("detect", {"boxes": np.ones((2, 5, 4)), "scores": np.ones((2, 5, 3))}, True),
        ("detect", {"boxes": np.ones((2, 0, 4)), "scores": np.ones((2, 0, 3))}, True),
        ("localize", {"boxes": np.ones((2, 0, 4)), "scores": np.ones((2, 0, 3))}, False),
        ("detect", {"boxes": np.ones((2, 5, 4)), "scores": np.ones((2, 6, 3))}, False),
        ("detect", {"boxes": np.ones((2, 4)), "scores": np.ones((2, 3))}, False),
        ("instances", {**_OBJECTS, "masks": np.ones((2, 5, 28, 28))}, True),
        ("instances", {**_OBJECTS, "masks": np.ones((2, 5, 28, 1))}, False),
        ("instances", {**_OBJECTS, "masks": np.ones((2, 5, 0, 0))}, False),
        ("instances", {**_OBJECTS, "masks": np.ones((2, 6, 28, 28))}, False),
        ("instances", {**_OBJECTS, "masks": np.ones(())}, False),
        ("segment", {"class_map": np.full((2, 8, 8), 2, np.int32)}, True),
        ("segment", {"class_map": np.full((2, 8, 8), 3, np.int32)}, False),
        ("segment", {"class_map": np.full((2, 8, 8), -1, np.int32)}, False),
        ("segment", {"class_map": np.zeros((2, 0, 8), np.int32)}, False),
    ],
)
def test_what_a_file_computes_fits_its_task_or_is_an_error(
    task: str, predictions: dict[str, np.ndarray], fits: bool
) -> None:
    engine = CheckedEngine(_Computed(predictions), Path("model.onnx"), task, classes=3)
    batches = iter([np.zeros((2, 32, 32, 3), np.uint8)])
    if fits:
        assert list(engine.run(batches)) == [predictions]
        return
    with pytest.raises(ModelError, match=r"model\.onnx"):
        list(engine.run(batches))


def test_errors_of_a_library_name_the_file_and_those_of_the_caller_stay_theirs() -> None:
    def failing(error: Exception) -> Iterator[np.ndarray]:
        yield np.zeros((1, 2, 2, 3), np.uint8)
        raise error

    engine = CheckedEngine(_Computed({"probabilities": np.ones((1, 3), np.float32)}), Path("a.onnx"), "classify", 3)
    with pytest.raises(IndexError, match="mine"):
        list(engine.run(failing(IndexError("mine"))))
    engine._engine.run = lambda batches: iter([np.ones(3)[5]])  # type: ignore[method-assign, assignment]
    with pytest.raises(ModelError, match=r"a\.onnx cannot be read: index 5 is out of bounds"):
        list(engine.run(iter([])))


def _forged(source: Path, target: Path, part: str, change: Callable[[str], str]) -> None:
    with zipfile.ZipFile(source) as whole, zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as forged:
        names = whole.namelist()
        for name in names:
            content = whole.read(name)
            forged.writestr(name, change(content.decode()) if name.endswith(part) else content)
        if not any(name.endswith(part) for name in names):
            forged.writestr(names[0].partition("/")[0] + "/" + part, change(""))


def test_a_damaged_program_is_told_in_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = _export("classify", "torch", tmp_path / "out")
    # Python reads a ZIP archive behind other bytes, and torch does not.
    (tmp_path / "model.pt2").write_bytes(b"before" + (folder / "model.pt2").read_bytes())
    with pytest.raises(ModelError, match=r"model\.pt2 cannot be read"):
        list(hubel.Predictor(tmp_path / "model.pt2")(sample_photographs()))
    assert capfd.readouterr() == ("", "")  # torch would log a traceback


def test_a_program_that_describes_itself_again_and_again_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    for count, size, message in (
        (2, 100, "or twice"),
        (1, 65 << 20, "in 68 MB"),
        (1, 10 << 20, "about 5,242,881 values"),
    ):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for number in range(count):
                archive.writestr(f"m{number}/models/model.json", "[" + "0," * (size // 2) + "0]")
            archive.writestr("m/extra/metadata.json", "{}")
        with pytest.raises(ModelError, match=message):
            find_exported(path)


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        (
            "model_weights_config.json",
            lambda text: text.replace('"use_pickle": false', '"use_pickle": true', 1),
            "pickled",
        ),
        (
            "model.json",
            lambda text: text.replace("torch.ops.aten.conv2d.default", "torch.hub.load"),
            "calls 'torch.hub",
        ),
        ("model.json", lambda text: text.replace("positive=True", "positive=__import__('os')", 1), "has a size"),
        ("data/aotinductor/model/code.so", lambda text: "ELF", "contains"),
        ("data/constants/custom_obj_0", lambda text: "pickle", "contains"),
        ("data/sample_inputs/model.pt", lambda text: "pickle", "contains"),
    ],
)
def test_a_program_that_could_run_code_is_not_loaded(
    part: str, change: Callable[[str], str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _export("classify", "torch", tmp_path / "out")
    _forged(folder / "model.pt2", tmp_path / "model.pt2", part, change)
    monkeypatch.setattr(torch.export, "load", lambda *arguments, **options: pytest.fail("it was loaded"))
    with pytest.raises(ModelError, match=message):
        hubel.Predictor(tmp_path / "model.pt2")


def test_a_name_of_the_catalog_wins_over_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _export("classify", "onnx", Path("efficientnet_lite0"))
    assert find_exported("efficientnet_lite0") is None
    assert find_exported("./efficientnet_lite0") is not None
    assert find_exported(Path("efficientnet_lite0")) is not None


def test_predictions_of_no_images_are_empty(tmp_path: Path) -> None:
    model = find_exported(_export("classify", "torch", tmp_path / "out"))
    assert model is not None
    engine = model.engine(RunOptions())
    batches = [np.zeros((count, 32, 32, 3), np.uint8) for count in (0, 2, 20)]
    assert [predictions["probabilities"].shape for predictions in engine.run(batches)] == [(0, 3), (2, 3), (20, 3)]


def test_an_exported_detector_is_tracked_with(tmp_path: Path) -> None:
    folder = _export("detect", "onnx", tmp_path / "out")
    frames = tmp_path / "frames"
    frames.mkdir()
    for number, shade in enumerate((0, 8, 16, 24), 1):
        pixels = np.random.default_rng(0).integers(0, 200, (64, 96, 3)).astype(np.uint8)
        Image.fromarray(pixels + np.uint8(shade)).save(frames / f"{number}.png")
    network, metadata = _model("detect")
    detector = hubel.Predictor(network, "torch", "fp32", metadata=metadata, conf=0.3)
    tracker = create_tracker("sort", min_hits=1)
    found = list(hubel.track(frames, model=folder, tracker="sort", conf=0.3, min_hits=1))
    for number, tracks in enumerate(found, 1):
        (objects,) = detector([frames / f"{number}.png"])
        expected = tracker.update(objects.boxes, objects.scores, objects.labels)
        assert tracks.ids.tolist() == expected.ids.tolist() and len(tracks.ids) > 1
        np.testing.assert_allclose(tracks.boxes, expected.boxes, atol=0.01)
    assert len(found) == 4
    assert set(found[0].ids) & set(found[3].ids)


def test_bench_starts_and_times_an_exported_model(tmp_path: Path) -> None:
    folder = _export("detect", "onnx", tmp_path / "out", nms=True)
    Image.new("RGB", (64, 48), "teal").save(tmp_path / "a.png")
    options = {"model": str(folder), "engine": "onnx", "precision": "fp32", "device": "auto", "threads": 1}
    (expected,) = hubel.Predictor(folder)([tmp_path / "a.png"])
    assert start(image=str(tmp_path / "a.png"), batch=1, **options) == {"predicted": expected.to_json()}
    row = measure(images=[str(tmp_path / "a.png")], seconds=0.01, batch=2, **options)
    assert (row["device"], row["threads"], row["latencies"]) == ("cpu", 1, [])
    assert 0 < row["seconds_per_batch"] < 10 and 0 < row["seconds_per_image"] < 10
