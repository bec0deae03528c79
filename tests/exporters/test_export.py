"""Exported models: what the files compute, what they carry, how they are used without hubel, what is refused."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from torch import nn

import hubel
from full_disk import disk_full_at
from hubel.cli.main import main
from hubel.data.preprocessing import Preprocessing
from hubel.errors import DataError, MissingExtraError, ModelError, UsageError
from hubel.exporters import export as exporting
from hubel.exporters.export import Exported, metadata_of
from hubel.exporters.parity import check_parity
from hubel.inference.engines import onnx as onnx_engine
from hubel.inference.engines.normalized_model import NormalizedModel
from hubel.inference.engines.openvino import core, switch_off_telemetry
from hubel.inference.engines.torch import TorchBackend
from hubel.models import ModelMetadata, create_model, load_model, save_model
from hubel.models.checkpoint import describe
from published_figures import PUBLISHED, representatives

switch_off_telemetry()
import openvino  # noqa: E402

FORMATS = ("onnx", "openvino", "torch")
CLASSES = ['a "rose"', "naïve & <b>", "two\nlines", "花", "e"]


def _network() -> nn.Module:
    """A network of another library's make, whose probabilities differ from image to image."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d((2, 3)), nn.Flatten()
    )
    network.append(nn.Linear(48, 5))
    with torch.no_grad():
        network[-1].weight *= 8
    return network.eval()


def _card() -> ModelMetadata:
    preprocessing = Preprocessing(24, 40, crop_fraction=0.8, interpolation="bicubic")
    return ModelMetadata("classify", "tiny", 5, 3, 24, CLASSES, preprocessing)


class _Exports(dict[str, Exported]):
    """The network by format and precision, ``"onnx fp16"``; exported when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, which: str) -> Exported:
        format, precision = which.split()
        self[which] = hubel.export(_network(), format, precision, out=self._folder / which, metadata=_card())
        return self[which]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> _Exports:
    return _Exports(tmp_path_factory.mktemp("exports"))


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved greyscale model whose images are stretched."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("runs") / "digits" / "best"
    preprocessing = Preprocessing(32, 32, 1, mean=(120.0,), std=(60.0,), resize="stretch")
    model = create_model("lenet5")
    with torch.no_grad():
        model.head.f6.linear.weight *= 10  # so that predictions differ from image to image
    save_model(folder, model, ModelMetadata("classify", "lenet5", 10, 1, 32, list("0123456789"), preprocessing))
    return folder.parent


def _pixels(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 24, 40, 3), dtype=np.uint8)


def _expected(pixels: np.ndarray) -> np.ndarray:
    preprocessing = _card().preprocessing
    images = (pixels - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    with torch.no_grad():
        return _network()(torch.tensor(images).permute(0, 3, 1, 2).float()).softmax(1).numpy()


def _run(path: Path, pixels: np.ndarray) -> np.ndarray:
    """The file's predictions, by its runtime and nothing of ours."""
    if path.suffix == ".onnx":
        return onnxruntime.InferenceSession(path).run(["probabilities"], {"pixels": pixels})[0]
    if path.suffix == ".xml":
        hint = {"INFERENCE_PRECISION_HINT": "f32"}
        return core().compile_model(core().read_model(path), "CPU", hint)({"pixels": pixels})["probabilities"]
    return torch.export.load(path).module()(torch.from_numpy(pixels)).numpy()


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix == ".onnx":
        return {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    if path.suffix == ".xml":
        model = core().read_model(path)
        return {key: model.get_rt_info(["hubel", key]).value for key in model.get_rt_info()["hubel"]}
    extra = {"metadata.json": ""}
    torch.export.load(path, extra_files=extra)
    return {k: v if isinstance(v, str) else json.dumps(v) for k, v in json.loads(extra["metadata.json"]).items()}


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("format", FORMATS)
def test_file_gives_the_network_s_probabilities(exports: _Exports, format: str, images: int) -> None:
    pixels = _pixels(images)
    got = _run(exports[f"{format} fp32"].path, pixels)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, _expected(pixels), atol=1e-5)
    assert len(set(_expected(_pixels(4)).argmax(1))) > 1


@pytest.mark.parametrize("which", ["onnx fp16", "openvino fp16", "torch fp16", "openvino bf16", "torch bf16"])
def test_shorter_numbers_change_results_a_little(exports: _Exports, which: str) -> None:
    pixels = _pixels(4)
    np.testing.assert_allclose(_run(exports[which].path, pixels), _expected(pixels), atol=0.02)
    assert exports[which].max_difference < 0.02
    if which != "openvino bf16":  # only a wish, which processors without bfloat16 do not fulfil
        assert exports[which].max_difference > exports[f"{which.split()[0]} fp32"].max_difference


def test_shorter_numbers_are_in_the_files(exports: _Exports) -> None:
    half = onnx.load(exports["onnx fp16"].path)
    kernel = next(tensor for tensor in half.graph.initializer if list(tensor.dims) == [8, 3, 3, 3])
    assert kernel.data_type == onnx.TensorProto.FLOAT16
    assert half.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    for precision, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16)):
        state = torch.export.load(exports[f"torch {precision}"].path).state_dict
        assert {tensor.dtype for name, tensor in state.items() if name.endswith("0.weight")} == {dtype}
    sizes = [exports[f"openvino {p}"].path.with_name("model.bin").stat().st_size for p in ("fp16", "fp32", "bf16")]
    assert sizes[0] < 0.6 * sizes[1] and sizes[1] == sizes[2]
    hints = [_metadata(exports[f"openvino {p}"].path)["inference_precision"] for p in ("fp32", "fp16", "bf16")]
    assert hints == ["f32", "f32", "bf16"]


@pytest.mark.parametrize("format", FORMATS)
def test_facts_travel_in_the_file(exports: _Exports, format: str) -> None:
    facts = _metadata(exports[f"{format} fp32"].path)
    assert json.loads(facts["classes"]) == CLASSES
    assert Preprocessing.from_json(json.loads(facts["preprocessing"])) == _card().preprocessing
    assert (facts["task"], facts["model"], facts["precision"]) == ("classify", "tiny", "fp32")
    assert facts["hubel"] == hubel.__version__
    assert json.loads(facts["outputs"]) == ["probabilities"]
    beside = exports[f"{format} fp32"].path.with_name("preprocessing.json")
    assert Preprocessing.from_json(json.loads(beside.read_text())) == _card().preprocessing


def test_weights_of_the_catalog_carry_their_licence() -> None:
    metadata = describe(create_model("efficientnet_lite0", weights="default"))
    facts = metadata_of(metadata, "efficientnet_lite0", "fp32", ("probabilities",))
    assert (facts["weights"], facts["license"]) == ("efficientnet_lite0:google/IMAGENET1K", "Apache-2.0")
    assert "license" not in metadata_of(_card(), "tiny", "fp32", ("probabilities",))


def test_onnx_is_valid_and_states_opset_and_batch(exports: _Exports) -> None:
    model = onnx.load(exports["onnx fp32"].path)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    shapes = [value.type.tensor_type.shape.dim for value in (model.graph.input[0], model.graph.output[0])]
    assert [dimension.dim_param or dimension.dim_value for dimension in shapes[0]] == ["batch", 24, 40, 3]
    assert [dimension.dim_param or dimension.dim_value for dimension in shapes[1]] == ["batch", 5]


@pytest.mark.parametrize("format", FORMATS)
def test_files_do_not_tell_where_they_were_made(exports: _Exports, format: str) -> None:
    secret = str(Path(hubel.__file__).parent).encode()
    for path in exports[f"{format} fp32"].path.parent.iterdir():
        contents = [path.read_bytes()]
        if path.suffix == ".pt2":
            with zipfile.ZipFile(path) as archive:
                contents = [archive.read(name) for name in archive.namelist()]
        assert not any(secret in content for content in contents), path


def _images(folder: Path) -> list[Path]:
    """Images as people have them, little larger than the network's input."""
    rng = np.random.default_rng(0)
    wide, tall = (Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in ((40, 75, 3), (60, 45, 3)))
    exif = Image.Exif()
    exif[0x0112] = 6
    tall.save(folder / "rotated.jpg", exif=exif)
    wide.save(folder / "wide.png")
    wide.convert("CMYK").save(folder / "cmyk.jpg")
    wide.convert("L").save(folder / "grey.jpg")
    wide.quantize(32).save(folder / "palette.png", transparency=bytes(range(0, 256, 8)))
    see_through = tall.convert("RGBA")
    see_through.putalpha(tall.convert("L"))
    see_through.save(folder / "alpha.png")
    Image.fromarray(rng.integers(0, 65536, (40, 40), dtype=np.uint16)).save(folder / "sixteen.png")
    return sorted(folder.iterdir())


_WITHOUT_HUBEL = """
import runpy, sys
sys.modules["hubel"] = None
def refuse(event, arguments):
    assert event not in ("socket.connect", "socket.getaddrinfo"), (event, arguments)
sys.addaudithook(refuse)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_without_hubel(use: Path, images: list[Path]) -> str:
    """What the example prints for images, where there is neither hubel nor a network."""
    command = [sys.executable, "-c", _WITHOUT_HUBEL, str(use), *map(str, images)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def _predictions_without_hubel(use: Path, images: list[Path]) -> list[tuple[str, float]]:
    assert len(use.read_text().splitlines()) < 90
    output = run_without_hubel(use, images)
    found = re.findall(r"^([^\n]+\.(?:jpg|png))  (.+?)  (\d\.\d+)$", output, flags=re.M | re.S)
    assert [path for path, _, _ in found] == [str(path) for path in images]
    return [(name, float(score)) for _, name, score in found]


@pytest.mark.parametrize("format", FORMATS)
def test_example_predicts_as_hubel_does(exports: _Exports, format: str, tmp_path: Path) -> None:
    images = _images(tmp_path)
    results = list(hubel.Predictor(_network(), precision="float32", metadata=_card())(images))
    expected = [(result.best.name, pytest.approx(result.best.score, abs=1e-3)) for result in results]
    assert _predictions_without_hubel(exports[f"{format} fp32"].path.with_name("use.py"), images) == expected
    assert len({name for name, _ in expected}) > 1


def test_example_names_what_it_cannot_read_and_goes_on(exports: _Exports, tmp_path: Path) -> None:
    images = _images(tmp_path)
    use = exports["onnx fp32"].path.with_name("use.py")
    none = subprocess.run([sys.executable, str(use)], capture_output=True, text=True, check=False)
    assert (none.returncode, none.stderr) == (1, "usage: python use.py IMAGE...\n")
    names = [str(tmp_path / "missing.jpg"), str(use), str(images[0])]
    done = subprocess.run([sys.executable, str(use), *names], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert re.findall(r"^(\S+\.png)  ", done.stdout, flags=re.M) == names[2:]  # names of classes may have two lines
    missing, damaged = done.stderr.splitlines()
    assert missing == f"{names[0]} cannot be read: No such file or directory"
    assert damaged.startswith(f"{names[1]} cannot be read: ")


def _main(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    out, err = capfd.readouterr()
    return int(exit_.value.code or 0), out, err


def test_command_exports_a_run_and_says_where(
    lenet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = _main(capfd, "export", lenet, "--format", "torch", "--json")
    row = json.loads(out)
    path = tmp_path / "exports" / "digits-torch" / "model.pt2"
    assert (code, row["path"], row["model"]) == (0, "exports/digits-torch/model.pt2", str(lenet))
    assert (row["format"], row["precision"], row["bytes"]) == ("torch", "fp32", path.stat().st_size)
    assert 0 <= row["max_difference"] < 1e-5
    kept = path.read_bytes()
    code, out, err = _main(capfd, "export", lenet, "--format", "torch")
    assert (code, err.splitlines()[-1]) == (0, "try it: python exports/digits-torch-2/use.py photo.jpg")
    assert re.fullmatch(r"exports/digits-torch-2/model.pt2  torch fp32, 0\.\d MB; .*\n", out)
    assert path.read_bytes() == kept
    assert sorted(entry.name for entry in path.parent.parent.iterdir()) == ["digits-torch", "digits-torch-2"]
    (tmp_path / "images").mkdir()
    images = _images(tmp_path / "images")
    results = list(hubel.Predictor(lenet, precision="float32")(images))
    expected = [(result.best.name, pytest.approx(result.best.score, abs=1e-3)) for result in results]
    assert _predictions_without_hubel(path.with_name("use.py"), images) == expected


def test_int8_is_quantized_on_the_images_named(lenet: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "grey").mkdir()
    rng = np.random.default_rng(0)
    for number in range(140):  # of three kinds that no small error mixes up: dark, middling, bright
        noise = rng.integers(0, 10, (32, 32), dtype=np.uint8)
        Image.fromarray(noise + np.uint8(20 + 100 * (number % 3))).save(tmp_path / "grey" / f"{number}.png")
    arguments = ("--precision", "int8", "--calibrate", tmp_path / "grey", "--out", tmp_path / "out", "--json")
    code, _, err = _main(capfd, "export", lenet, "--format", "openvino", *arguments, "--tolerance", "0.001")
    assert code == 1 and "measuring a loss of 0.001 takes 1000" in err and not (tmp_path / "out").exists()
    code, out, _ = _main(capfd, "export", lenet, "--format", "openvino", *arguments)
    row = json.loads(out)
    assert (code, row["precision"], row["quantization"]["images"] >= 100) == (0, "int8", True)
    path = tmp_path / "out" / "model.xml"
    facts = _metadata(path)
    assert (facts["precision"], json.loads(facts["quantization"])) == ("int8", row["quantization"])
    constants = [each for each in core().read_model(path).get_ops() if each.get_type_name() == "Constant"]
    in_int8 = sum(each.get_element_type() == openvino.Type.i8 for each in constants)
    in_float = len(row["quantization"]["kept_in_float"])
    assert in_int8 + in_float >= 5 and in_int8 >= 3, "each layer with weights is in int8 or named"
    greys = np.stack([np.full((32, 32, 1), grey, np.uint8) for grey in (25, 125, 225)])
    model, _ = load_model(lenet / "best")
    with torch.no_grad():
        expected = model(torch.from_numpy((greys - 120.0) / 60.0).permute(0, 3, 1, 2).float()).softmax(1).numpy()
    np.testing.assert_allclose(_run(path, greys), expected, atol=0.1)


def test_int8_of_a_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="int8 requires a model with a name or a folder"):
        hubel.export(_network(), "openvino", "int8", calibrate=tmp_path, out=tmp_path / "out", metadata=_card())
    assert list(tmp_path.iterdir()) == []


def _without_activity(err: str) -> list[str]:
    """The lines on stderr, without the one that a slow export says what it does in."""
    return [line for line in err.splitlines() if not re.fullmatch("exporting .+ to (onnx|openvino|torch) …", line)]


def test_exporting_is_quiet_and_tells_nobody(lenet: Path, tmp_path: Path) -> None:
    program = """
import os, sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        os.write(2, f"{event} {arguments}".encode()); os._exit(99)
sys.addaudithook(refuse)
from hubel.cli.main import main
for format in ("onnx", "openvino"):
    try: main(["export", sys.argv[1], "--format", format, "--json", "--out", sys.argv[2] + "/" + format])
    except SystemExit as end: assert not end.code
"""
    command = [sys.executable, "-c", program, str(lenet), str(tmp_path)]
    home = {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    done = subprocess.run(command, capture_output=True, text=True, env={**_environment(), **home}, check=False)
    assert (done.returncode, _without_activity(done.stderr)) == (0, [])
    assert [json.loads(line)["format"] for line in done.stdout.splitlines()] == ["onnx", "openvino"]
    assert not (tmp_path / "home" / "intel").exists()


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "CI"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--format", "onnx", "--precision", "bf16"], "onnx cannot be exported in bf16"),
        (["--format", "onnx", "--precision", "int8", "--calibrate", "."], "onnx cannot be exported in int8"),
        (["--format", "torch", "--precision", "int8", "--calibrate", "."], "torch cannot be exported in int8"),
        (["--format", "torch", "--calibrate", "."], "calibration images are for int8 only"),
        (["--format", "caffe"], "caffe"),
        ([], "--format"),
    ],
)
def test_what_cannot_be_asked_for(
    lenet: Path, arguments: list[str], message: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    code, out, err = _main(capfd, "export", lenet, "--out", tmp_path / "out", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert list(tmp_path.iterdir()) == []


def test_a_name_without_weights_is_refused_as_by_predict(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = _main(capfd, "export", "lenet5", "--format", "onnx")
    assert (code, out) == (1, "")
    assert "lenet5 has no pretrained weights" in err


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(onnx_engine, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'hubel\[onnx\]'"):
        hubel.export(_network(), "onnx", metadata=_card(), out=tmp_path / "out")


def test_a_file_that_says_something_else_never_appears(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    open_file = TorchBackend.open_file

    def upside_down(*arguments: Any) -> Any:
        classes, run = open_file(*arguments)
        return classes, lambda pixels: {name: output[:, ::-1] for name, output in run(pixels).items()}

    monkeypatch.setattr(TorchBackend, "open_file", upside_down)
    with pytest.raises(ModelError, match=r"differs from the model by up to 0\.\d+ in probability \(allowed: 0\.0001\)"):
        hubel.export(_network(), "torch", metadata=_card(), out=tmp_path / "deploy" / "out")
    assert list(tmp_path.iterdir()) == []


def test_agreement_is_judged_by_precision_and_best_class() -> None:
    pixels, expected = _pixels(3), {"probabilities": np.array([[0.6, 0.4, 0.0], [0.505, 0.495, 0.0], [0.2, 0.2, 0.6]])}

    def with_outputs(change: list[list[float]]) -> Any:
        return lambda given: {"probabilities": expected["probabilities"][: len(given)] + np.array(change)[: len(given)]}

    small = [[0.0, 0.0, 0.0], [0.005, -0.005, 0.0], [0.0, 0.0, 0.0]]
    with pytest.raises(ModelError, match="another best class for 0 of 3"):
        check_parity(with_outputs(small), pixels, expected, "fp32", "f")
    assert check_parity(with_outputs(small), pixels, expected, "fp16", "f") == pytest.approx(0.005)
    # A tie within the precision may go either way, a lead may not be turned.
    turned_tie = [[0.0, 0.0, 0.0], [-0.012, 0.012, 0.0], [0.0, 0.0, 0.0]]
    assert check_parity(with_outputs(turned_tie), pixels, expected, "fp16", "f") == pytest.approx(0.012)
    turned_lead = [[-0.11, 0.11, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    with pytest.raises(ModelError, match="another best class for 1 of 1"):
        check_parity(with_outputs(turned_lead), pixels, expected, "bf16", "f")
    with pytest.raises(ModelError, match="Inf or NaN"):
        check_parity(with_outputs([[np.nan] * 3] * 3), pixels, expected, "fp16", "f")
    with pytest.raises(ModelError, match="has an output of shape None"):
        check_parity(lambda given: {}, pixels, expected, "fp16", "f")


@pytest.mark.parametrize("format", FORMATS)
def test_a_full_disk_is_one_line_and_leaves_nothing(
    lenet: Path, format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with disk_full_at(20_000):
        code, out, err = _main(capfd, "export", lenet, "--format", format, "--out", tmp_path / "deploy" / "digits")
    assert len(_without_activity(err)) == 2, err
    message, hint = _without_activity(err)
    assert (code, out) == (1, "")
    assert re.match(rf"error: {re.escape(str(tmp_path))}/deploy/digits cannot be written: .+", message)
    assert "--out" in hint
    assert list(tmp_path.iterdir()) == []


def test_the_folder_one_stands_in_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    done = hubel.export(_network(), "torch", metadata=_card(), out=".")
    assert done.path == tmp_path / "here-2" / "model.pt2"
    assert list((tmp_path / "here").iterdir()) == []
    with pytest.raises(UsageError, match="root of a disk"):
        hubel.export(_network(), "torch", metadata=_card(), out="/")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/out cannot be written: .*[Nn]ot a directory|File exists"):
        hubel.export(_network(), "torch", metadata=_card(), out=tmp_path / "file" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interruption_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "check_parity", interrupted)
    (tmp_path / "exports").mkdir()
    with pytest.raises(KeyboardInterrupt):
        hubel.export(_network(), "torch", metadata=_card(), out=tmp_path / "exports" / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["exports"]


def test_a_network_that_cannot_be_captured_is_named(tmp_path: Path) -> None:
    class Choosy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) if images.sum() > 0 else images.amax((2, 3))

    with pytest.raises(ModelError, match="tiny cannot be exported to torch in fp32"):
        hubel.export(Choosy(), "torch", metadata=_card(), out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_model_itself_stays_as_it_is(tmp_path: Path) -> None:
    network = _network().train()
    before = copy.deepcopy(network.state_dict())
    hubel.export(network, "torch", "fp16", metadata=_card(), out=tmp_path / "out")
    assert network.training
    assert all(
        torch.equal(value, before[key]) and value.dtype == before[key].dtype
        for key, value in network.state_dict().items()
    )


def test_what_only_training_needs_is_left_out() -> None:
    network = create_model("googlenet", num_classes=3, image_size=64)
    assert any("auxiliary" in name for name in network.state_dict())
    assert not any("auxiliary" in name for name in NormalizedModel(network, Preprocessing(64, 64)).state_dict())
    assert any("auxiliary" in name for name in network.state_dict())


def test_short_numbers_survive_squares(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 3), nn.LocalResponseNorm(5, k=2.0), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        network[0].weight *= 1000  # maps around 1000, whose squares half floats do not reach
        network[0].bias.copy_(torch.arange(5.0) * 1000)
    for format, precision in (("onnx", "fp16"), ("torch", "fp16"), ("torch", "bf16")):
        done = hubel.export(network, format, precision, metadata=_card(), out=tmp_path / f"{format} {precision}")
        np.testing.assert_allclose(_run(done.path, _pixels(2)).sum(1), 1, atol=1e-3)


@pytest.mark.parametrize(
    "name, folder",
    [
        ("resnet50:torchvision/IMAGENET1K_V2", "resnet50-torchvision-IMAGENET1K_V2-onnx"),
        ("runs/flowers/", "flowers-onnx"),
        ("runs/my flowers/best", "my-flowers-onnx"),
        ("efficientnet_lite0", "efficientnet_lite0-onnx"),
    ],
)
def test_folders_are_named_for_the_model(name: str, folder: str) -> None:
    assert exporting._folder(None, name, "onnx", "fp32") == Path("exports", folder)
    assert exporting._folder(None, name, "onnx", "fp16") == Path("exports", f"{folder}-fp16")


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", sorted(representatives()))
def test_every_family_is_exported(name: str, format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    # OpenVINO pools no map that is smaller than the window, where torch takes what is there.
    size = max(PUBLISHED[name].smallest, {"xception": 71, "zfnet": 96}.get(name, 0))
    model = create_model(name, num_classes=7, image_size=size)
    done = hubel.export(model, format, out=tmp_path / "out")
    assert done.max_difference < 1e-4
