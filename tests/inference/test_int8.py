"""int8 from a model's name: images for calibration and evaluation, the cache, the commands' output."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import hubel
from drawn_shapes import write_shapes
from hubel.cli.main import app
from hubel.config import SplitFractions
from hubel.data.image_folder import read_class_folders
from hubel.data.image_io import read_image
from hubel.data.splits import training_splits, write_splits
from hubel.errors import DataError, ModelError, UsageError
from hubel.inference import int8
from hubel.inference.accuracy_control import probabilities, runner
from hubel.inference.engines.convert import ModelSource
from hubel.inference.int8 import CalibrationFiles, find_calibration_files, quantized_for, read_calibration_images
from hubel.models import create_model, resolve_model
from hubel.models.checkpoint import describe, save_model


@pytest.fixture(scope="session")
def run(shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder as training leaves it, but for the training: 135 images of 180 train, 27 validate."""
    folder = tmp_path_factory.mktemp("runs") / "shapes"
    torch.manual_seed(0)
    model = create_model("simple_cnn", num_classes=3).eval()
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith("bias"):  # as after training: without any, OpenVINO's int8 predicts nothing but zeros
                values.normal_(std=0.1)
    metadata = describe(model)
    metadata.classes[:] = ["cross", "disc", "frame"]
    save_model(folder / "best", model, metadata)
    folders = read_class_folders(shapes)
    write_splits(folder / "splits.json", training_splits(folders, SplitFractions(), 0), shapes)
    (folder / "config.yaml").write_text(f"data: {shapes}\n", "utf-8")
    return folder


CLASSES = ("cross", "disc", "frame")


def _names(paths: Sequence[Path], root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in paths}


def test_a_run_calibrates_on_its_training_split_and_evaluates_on_its_validation_split(run: Path, shapes: Path) -> None:
    import json

    recorded = json.loads((run / "splits.json").read_text("utf-8"))
    for data in (None, shapes):
        files = find_calibration_files(str(run), CLASSES, data, 0.05)
        assert _names(files.calibration, shapes) == set(recorded["train"])
        assert _names(files.held_out, shapes) == set(recorded["val"])
        assert files.labels is not None
        folders = [path.parent.name for path in files.held_out]
        assert [CLASSES[label] for label in files.labels] == folders


def test_the_pixels_are_those_of_the_files_and_never_the_same_on_both_sides(run: Path) -> None:
    files = find_calibration_files(str(run), CLASSES, None, 0.05)
    _, metadata = resolve_model(run)
    images = read_calibration_images(files, metadata.preprocessing, 0.05, log=print)
    for path, pixels in zip(files.held_out, images.held_out, strict=True):
        np.testing.assert_array_equal(pixels, metadata.preprocessing.pixels(read_image(path)))
    calibrated = {image.tobytes() for image in images.calibration}
    assert not calibrated & {image.tobytes() for image in images.held_out}


@pytest.mark.parametrize("layout", ["loose", "classes", "foreign classes", "train and val"])
def test_any_folder_of_images_is_divided(layout: str, tmp_path: Path) -> None:
    counts = {"loose": {"x": 60}, "foreign classes": {"cross": 30, "ring": 30}}.get(layout, {"cross": 30, "disc": 30})
    root = write_shapes(tmp_path / "data" / ("train" if layout == "train and val" else ""), counts)
    root = tmp_path / "data"
    if layout == "loose":
        root /= "x"
    if layout == "train and val":
        write_shapes(root / "val", {"cross": 12, "disc": 12}, seed=1)
    files = find_calibration_files("efficientnet_lite0", CLASSES, root, 0.05)
    again = find_calibration_files("efficientnet_lite0", CLASSES, root, 0.05)
    assert files == again
    both = _names(files.calibration, root) | _names(files.held_out, root)
    total = 84 if layout == "train and val" else 60
    assert len(both) == len(files.calibration) + len(files.held_out) == total
    assert len(files.held_out) == (24 if layout == "train and val" else 20)
    assert (files.labels is None) == (layout in ("loose", "foreign classes"))
    if layout == "train and val":
        assert {name.split("/")[0] for name in _names(files.held_out, root)} == {"val"}


def test_too_few_images_name_the_number_needed(tmp_path: Path) -> None:
    root = write_shapes(tmp_path / "data", {"cross": 50, "disc": 50})
    with pytest.raises(DataError, match="68 held-out images; measuring a loss of 0.01 takes 100"):
        find_calibration_files("efficientnet_lite0", CLASSES, root, 0.01)
    with pytest.raises(DataError, match="0 held-out images"):
        find_calibration_files("efficientnet_lite0", CLASSES, write_shapes(tmp_path / "few", {"disc": 9}), 0.5)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="held-out"):
        find_calibration_files("efficientnet_lite0", CLASSES, empty, 0.01)
    with pytest.raises(DataError, match="does not exist"):
        find_calibration_files("efficientnet_lite0", CLASSES, tmp_path / "none", 0.01)


def test_unreadable_images_are_named_and_count_as_missing(tmp_path: Path) -> None:
    root = write_shapes(tmp_path / "data", {"cross": 52})
    files = find_calibration_files("x", CLASSES, root, 0.05)
    assert (len(files.held_out), len(files.calibration)) == (20, 32)
    files.held_out[3].write_bytes(b"no image")
    messages: list[str] = []
    preprocessing = resolve_model("efficientnet_lite0")[1].preprocessing.resized(32)
    with pytest.raises(DataError, match="19 held-out images; measuring a loss of 0.05 takes 20"):
        read_calibration_images(files, preprocessing, 0.05, messages.append)
    assert str(files.held_out[3]) in messages[0]
    images = read_calibration_images(files, preprocessing, 0.06, messages.append)
    assert images.labels is not None and len(images.labels) == len(images.held_out) == 19


def test_a_model_without_images_says_how_to_name_some(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--calibrate DATA"):
        find_calibration_files("efficientnet_lite0", CLASSES, None, 0.01)
    (tmp_path / "splits.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match="config.yaml"):
        find_calibration_files(str(tmp_path), CLASSES, None, 0.01)
    with pytest.raises(UsageError, match="tolerance is 1"):
        quantized_for("efficientnet_lite0", None, 1.0)


def test_quantized_once_and_kept_with_its_report(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    model, report = quantized_for(run, None, 0.1, messages.append)
    assert (report.metric, report.images) == ("top-1", 27)
    assert messages[-1] == report.line()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 1), dtype=np.uint8)
    scores = probabilities(runner(model, "int8"), pixels)

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("quantized again")

    monkeypatch.setattr(int8, "quantize_with_accuracy_control", refuse)
    kept, same = quantized_for(run, None, 0.1, messages.append)
    assert same == report and messages[-1] == report.line()
    np.testing.assert_array_equal(probabilities(runner(kept, "int8"), pixels), scores)
    quantized_for(run, read_data(run), 0.1, messages.append)
    monkeypatch.setattr(type(report), "loss", property(lambda self: 0.09))
    with pytest.raises(AssertionError, match="quantized again"):
        quantized_for(run, None, 0.05, messages.append)


def test_auto_takes_int8_where_its_accuracy_was_accepted(
    run: Path, shapes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path))
    float_precision = hubel.Predictor(run, tolerance=0.1).engine_for(100).precision.name
    assert float_precision in ("fp32", "bf16")
    _, report = quantized_for(run, None, 0.1, print)
    predict = hubel.Predictor(run, tolerance=0.1)
    images = sorted((shapes / "disc").iterdir())[:3]
    exact = list(hubel.Predictor(run, precision="int8", tolerance=0.1)(images))
    assert [result.best for result in predict(images)] == [result.best for result in exact]
    assert "int8" in predict.describe() and f"→ {report.int8_score:.3f} on 27 held-out images" in predict.describe()
    for arguments in ({"precision": "fp32"}, {"engine": "torch"}, {"engine": "onnx"}):
        assert hubel.Predictor(run, tolerance=0.1, **arguments).engine_for(100).precision.name != "int8"
    monkeypatch.setattr(type(report), "loss", property(lambda self: 0.11))
    assert hubel.Predictor(run, tolerance=0.1).engine_for(100).precision.name == float_precision


def test_machines_that_share_a_cache_get_networks_for_their_own_processors(
    run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path))
    made: list[int] = []

    def quantize(*arguments: object, weight_bits: int, **options: object) -> object:
        made.append(weight_bits)
        return unrecorded(*arguments, weight_bits=weight_bits, **options)

    unrecorded = int8.quantize_with_accuracy_control
    monkeypatch.setattr(int8, "quantize_with_accuracy_control", quantize)
    for tries in ((8, 7, 8, 7), (7, 8)):
        for bits in tries:
            monkeypatch.setattr(int8, "exact_weight_bits", lambda bits=bits: bits)
            _, report = quantized_for(run, None, 0.3, print)
            assert report.weight_bits == bits
            assert f"{bits}-bit weights, exact on {'every' if bits == 7 else 'x86 with VNNI'}" in report.line()
            found = int8.find_quantized(ModelSource(run))
            assert found is not None and found.network[1] == report
        assert sorted(made) == [7, 8], "each once, whoever asks again"
    assert quantized_for(run, None, 0.3, print, portable=True)[1].weight_bits == 7


def read_data(run: Path) -> Path:
    return Path((run / "config.yaml").read_text("utf-8").removeprefix("data: ").strip())


def test_other_images_are_another_quantization(run: Path, shapes: Path) -> None:
    files = find_calibration_files(str(run), CLASSES, None, 0.05)
    fewer = CalibrationFiles(files.calibration[1:], files.held_out, files.labels, files.origin)
    moved = CalibrationFiles(files.calibration[1:], [*files.held_out, files.calibration[0]], None, files.origin)
    assert len({files.digest(), fewer.digest(), moved.digest()}) == 3
    assert files.digest() == find_calibration_files(str(run), CLASSES, shapes, 0.05).digest()


def test_predictor_and_command_predict_in_int8_and_say_what_it_costs(
    run: Path, shapes: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    predict = hubel.Predictor(run, precision="int8", tolerance=0.1)
    assert "int8: top-1" in capfd.readouterr().err
    images = sorted((shapes / "disc").iterdir())[:6]
    exact = [result.best for result in hubel.Predictor(run, engine="torch", precision="fp32")(images)]
    for result, expected in zip(predict(images), exact, strict=True):
        assert result.best.score == pytest.approx(expected.score, abs=0.06)
    assert "int8" in predict.describe()
    shown = CliRunner().invoke(
        app, ["predict", str(images[0]), "--model", str(run), "--precision", "int8", "--tolerance", "0.1", "--json"]
    )
    assert shown.exit_code == 0, shown.output
    assert '"classes"' in shown.stdout and "int8:" not in shown.stdout
    assert "held-out images" in shown.stderr


def test_int8_is_openvinos(run: Path) -> None:
    for engine in ("torch", "onnx"):
        with pytest.raises(UsageError, match="int8"):
            hubel.Predictor(run, engine=engine, precision="int8").select_engine([])


@pytest.mark.data
def test_answers_of_efficientnet_lite0_on_photographs_it_was_not_calibrated_with(data_folder: Path) -> None:
    """Against torch in float32. The bar of 97 with more images is benchmarks/int8.py's."""
    from hubel.inference.engines.openvino import to_openvino
    from hubel.inference.engines.processor import exact_weight_bits
    from hubel.inference.quantize import post_training_quantization, without_softmax

    network, metadata = resolve_model("efficientnet_lite0")

    def pixels(paths: Sequence[Path]) -> np.ndarray:
        return np.stack([metadata.preprocessing.pixels(read_image(path)) for path in paths])

    folder = data_folder / "imagenet_samples"
    with (folder / "labels.csv").open() as table:
        photographs = pixels([folder / row["file"] for row in csv.DictReader(table)][::2])
    calibration = pixels(sorted((data_folder / "coco128").rglob("*.jpg"))[:96])
    model = to_openvino(network, metadata.preprocessing)
    quantized = post_training_quantization(model, calibration, weight_bits=exact_weight_bits())
    scores = probabilities(runner(without_softmax(quantized), "int8"), photographs)
    with torch.inference_mode():
        images = metadata.preprocessing.normalize(torch.from_numpy(photographs).permute(0, 3, 1, 2))
        exact = network(images).numpy()
    assert (scores.argmax(1) == exact.argmax(1)).sum() >= 46
    assert 10 * np.log10(np.square(exact).mean() / np.square(scores - exact).mean()) > 17  # 16 without kept sums


def test_an_image_shows_the_same_in_any_mode_of_the_folder(tmp_path: Path) -> None:
    """Images that are not photographs (palettes, transparency) calibrate too."""
    root = tmp_path / "mixed"
    root.mkdir()
    rng = np.random.default_rng(0)
    for number in range(52):
        image = Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        image.convert(("P", "L", "RGBA", "RGB")[number % 4]).save(root / f"{number}.png")
    files = find_calibration_files("x", CLASSES, root, 0.05)
    preprocessing = resolve_model("efficientnet_lite0")[1].preprocessing.resized(32)
    assert read_calibration_images(files, preprocessing, 0.05, print).calibration.shape == (32, 32, 32, 3)
