"""Kept conversions: never a wrong prediction, whatever happens to the files; bounded; without torch."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino
import pytest
import torch
from PIL import Image

from hubel.cli.main import main
from hubel.data.preprocessing import Preprocessing
from hubel.errors import ModelError, UsageError
from hubel.inference import Predictor
from hubel.inference.engines.cache import ConvertedCache, key_of
from hubel.inference.engines.convert import ModelSource, convert, find_converted
from hubel.inference.engines.openvino import OpenVinoBackend
from hubel.models import ModelMetadata, load_model, resolve_model, save_model
from hubel.models.metadata import find_model

_PREPROCESSING = Preprocessing(32, 32, crop_fraction=1.0)
_FACTS = {"version": "1", "model": "m", "engine": "openvino", "precision": "fp32", "origin": "", "metadata": {}}


def _save(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    metadata = ModelMetadata("classify", "lenet5", 4, 3, 32, ["a", "b", "c", "d"], _PREPROCESSING)
    save_model(folder, metadata.build().eval(), metadata)
    return folder


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A saved model of four classes, and a cache of its own."""
    monkeypatch.setenv("HUBEL_CACHE", str(tmp_path / "cache"))
    return _save(tmp_path / "models" / "first", seed=0)


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(17)]


def _expected(model: Path, images: list[Image.Image]) -> np.ndarray:
    """Probabilities by the saved network as it is, without anything of the runtime."""
    network, metadata = load_model(model)
    mean, std = (np.array(each, np.float32) for each in (metadata.preprocessing.mean, metadata.preprocessing.std))
    normalized = (np.stack([np.asarray(image, np.float32) for image in images]) - mean) / std
    with torch.inference_mode():
        return network(torch.from_numpy(normalized).permute(0, 3, 1, 2)).softmax(1).numpy()


def _probabilities(predict: Predictor, images: list[Image.Image]) -> np.ndarray:
    rows = [{score.index: score.score for score in result.classes} for result in predict(images)]
    return np.array([[row[index] for index in range(len(row))] for row in rows])


def _predictor(model: Path | str, **options: str) -> Predictor:
    return Predictor(model, precision="fp32", device="cpu", threads=1, **options)  # type: ignore[arg-type]


def test_many_images_are_worth_a_conversion_and_few_use_it_then(model: Path, images: list[Image.Image]) -> None:
    expected = _expected(model, images)
    predict = _predictor(model)
    np.testing.assert_allclose(_probabilities(predict, images[:3]), expected[:3], atol=1e-4)
    assert "torch (not worth converting for fewer than 16 images" in predict.describe()
    assert ConvertedCache().entries() == []
    np.testing.assert_allclose(_probabilities(predict, images), expected, atol=1e-4)
    assert "openvino (converted in" in predict.describe() and "cached for next time" in predict.describe()
    again = _predictor(model)
    np.testing.assert_allclose(_probabilities(again, images[:1]), expected[:1], atol=1e-4)
    assert "openvino (converted before)" in again.describe()
    by_torch = _predictor(model, engine="torch")
    np.testing.assert_allclose(_probabilities(by_torch, images), expected, atol=1e-4)
    assert "torch (as requested)" in by_torch.describe()


def test_images_one_by_one_add_up(model: Path, images: list[Image.Image]) -> None:
    predict = _predictor(model)
    engines = []
    for image in images:
        list(predict(image))
        engines.append(predict.describe().split(" on ")[1].split()[0])
    assert engines == ["torch"] * 15 + ["openvino"] * 2


def test_other_weights_are_another_conversion(model: Path, images: list[Image.Image]) -> None:
    _predictor(model, engine="openvino")
    _save(model, seed=1)  # trained again, into the same folder
    np.testing.assert_allclose(
        _probabilities(_predictor(model, engine="openvino"), images), _expected(model, images), atol=1e-4
    )
    metadata = json.loads((model / "model.json").read_text())
    metadata["preprocessing"]["mean"] = [0.0, 0.0, 0.0]
    (model / "model.json").write_text(json.dumps(metadata))
    np.testing.assert_allclose(
        _probabilities(_predictor(model, engine="openvino"), images), _expected(model, images), atol=1e-4
    )
    assert len(ConvertedCache().entries()) == 3


class _Text(OpenVinoBackend):
    """A conversion that takes no time."""

    packages: tuple[str, ...] = ()

    def convert(self, model: object) -> str:
        return "text" * 100

    def save(self, converted: str, folder: Path, facts: object = None, half: bool = False) -> None:
        (folder / "a").write_text(converted)
        (folder / "b").write_text(converted)

    def load(self, folder: Path) -> str:
        return (folder / "a").read_text() + (folder / "b").read_text()


def _change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("harm", [_change_a_byte, _truncate, Path.unlink, _empty])
@pytest.mark.parametrize("file", ["a", "b", "entry.json"])
def test_a_damaged_entry_is_thrown_away(model: Path, harm: Callable[[Path], None], file: str) -> None:
    convert(ModelSource(model), _Text())
    (entry,) = ConvertedCache().entries()
    harm(entry.folder / file)
    found = find_converted(ModelSource(model), _Text())
    if file == "entry.json" and found is not None:  # the byte was in a name, on which nothing depends
        assert harm is _change_a_byte
    else:
        assert found is None
        assert convert(ModelSource(model), _Text()).note.startswith("converted in")
    assert len(ConvertedCache().entries()) == 1
    found = find_converted(ModelSource(model), _Text())
    assert found is not None and found.network == "text" * 200


def test_a_damaged_entry_changes_no_prediction(model: Path, images: list[Image.Image]) -> None:
    _predictor(model, engine="openvino")
    (entry,) = ConvertedCache().entries()
    weights = entry.folder / "model.bin"
    weights.write_bytes(bytes(weights.stat().st_size))  # of the right size: OpenVINO would take it
    predict = _predictor(model)
    np.testing.assert_allclose(_probabilities(predict, images), _expected(model, images), atol=1e-4)
    assert "converted in" in predict.describe()


def test_a_full_disk_is_reported_and_changes_no_prediction(
    model: Path, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(network: object, path: Path, compress_to_fp16: bool) -> None:
        path.write_bytes(b"half of it")
        raise RuntimeError("basic_ios::clear: iostream error")  # what OpenVINO says on a full disk

    monkeypatch.setattr(openvino, "save_model", full)
    predict = _predictor(model, engine="openvino")
    np.testing.assert_allclose(_probabilities(predict, images), _expected(model, images), atol=1e-4)
    assert "not cached" in predict.describe() and "disk full" in predict.describe()
    assert [path.name for path in ConvertedCache().folder.iterdir()] == [".lock"]

    def no_folder(self: Path, *arguments: object, **options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", no_folder)
    predict = _predictor(model, engine="openvino")
    np.testing.assert_allclose(_probabilities(predict, images), _expected(model, images), atol=1e-4)
    assert "not cached: Read-only file system" in predict.describe()


def test_two_processes_convert_once(model: Path, tmp_path: Path, images: list[Image.Image]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number, image in enumerate(images):
        image.save(folder / f"{number}.png")
    command = [sys.executable, "-m", "hubel", "predict", str(folder), "--json", "--precision", "fp32"]
    command += ["--model", str(model), "--threads", "1", "--top", "4"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted("converted in" in errors for _, errors in outputs) == [False, True], outputs
    assert outputs[0][0] == outputs[1][0]
    for line, row in zip(outputs[0][0].splitlines(), _expected(model, images), strict=True):
        for score in json.loads(line)["classes"]:
            assert score["score"] == pytest.approx(row[score["index"]], abs=1e-4)
    assert len(ConvertedCache().entries()) == 1


def test_what_a_killed_process_left_is_swept_up(tmp_path: Path) -> None:
    cache = ConvertedCache(tmp_path, limit=1000)
    old, young = tmp_path / ".12345678.abc", tmp_path / ".87654321.abc"
    for folder in (old, young):
        folder.mkdir()
    os.utime(old, (time.time() - 7200,) * 2)
    cache.put(key_of("a"), lambda folder: (folder / "f").write_bytes(b"1"), _FACTS)  # type: ignore[arg-type, func-returns-value]
    assert not old.exists() and young.exists()  # which another process may be filling
    assert len(cache.entries()) == 1


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path) -> None:
    cache = ConvertedCache(tmp_path, limit=1000)
    keys = [key_of(name) for name in "abcd"]

    def put(key: str, size: int) -> None:
        cache.put(key, lambda folder: (folder / "f").write_bytes(bytes(size)), _FACTS)  # type: ignore[arg-type, func-returns-value]

    for age, key in enumerate(keys[:3]):
        put(key, 300)
        os.utime(tmp_path / key / "entry.json", (time.time() - 100 + age,) * 2)
    assert cache.get(keys[0]) is not None  # used: now the last to go
    put(keys[3], 300)
    assert {entry.folder.name for entry in cache.entries()} == {keys[0], keys[2], keys[3]}
    put(keys[1], 900)
    assert [entry.folder.name for entry in cache.entries()] == [keys[1]]
    with pytest.raises(OSError, match="more than the cache may hold"):
        put(keys[0], 1001)
    assert [entry.folder.name for entry in cache.entries()] == [keys[1]]


def test_the_bound_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert ConvertedCache().limit == 2_000_000_000
    monkeypatch.setenv("HUBEL_CACHE_GB", "0.5")
    assert ConvertedCache().limit == 500_000_000
    monkeypatch.setenv("HUBEL_CACHE_GB", "lots")
    with pytest.raises(UsageError, match="HUBEL_CACHE_GB is 'lots'"):
        ConvertedCache()


@pytest.mark.parametrize("content", ["[" * 100_000, '{"files": []}', "[]", "{}", '"a"'])
def test_an_entry_that_is_not_one_is_listed_as_damaged_and_not_read(content: str, tmp_path: Path) -> None:
    cache = ConvertedCache(tmp_path / "converted")
    facts = {"version": "3", "model": "m", "engine": "onnx", "precision": "fp32", "origin": "", "metadata": {}}
    cache.put("key", lambda to: to.joinpath("x").touch(), facts)
    row = json.loads((cache.folder / "key" / "entry.json").read_text())
    assert cache.get("key") is not None
    for text in (content, json.dumps(row | {"model": ["m"]}), json.dumps(row | {"version": 3})):
        cache.folder.joinpath("key").mkdir(exist_ok=True)
        (cache.folder / "key" / "entry.json").write_text(text)
        (cache.folder / "key" / "entry.json").chmod(0o600)
        assert [entry.model for entry in cache.entries()] == ["damaged"]
        assert cache.get("key") is None


def test_file_names_in_an_entry_do_not_lead_out_of_it(tmp_path: Path) -> None:
    cache = ConvertedCache(tmp_path / "cache")
    key = key_of("a")
    cache.put(key, lambda folder: (folder / "f").write_bytes(b"1"), _FACTS)  # type: ignore[arg-type, func-returns-value]
    (tmp_path / "secret").write_bytes(b"1")
    facts = cache.folder / key / "entry.json"
    row = json.loads(facts.read_text())
    row["files"] = {"../../secret": row["files"]["f"]}
    facts.write_text(json.dumps(row))
    assert cache.get(key) is None


@pytest.mark.parametrize("moment", ["before loading", "between reading and identifying"])
def test_weights_replaced_after_they_were_identified_make_no_wrong_conversion(
    moment: str, model: Path, images: list[Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = _save(model.parent / "other", seed=1)
    first, replaced = _expected(model, images), _expected(other, images)
    weights, kept = model / "model.safetensors", (model / "model.safetensors").read_bytes()
    source = ModelSource(model)

    def replace(*_: object) -> tuple[torch.nn.Module, ModelMetadata]:
        (other / "model.safetensors").replace(weights)
        monkeypatch.undo()
        monkeypatch.setenv("HUBEL_CACHE", str(model.parents[1] / "cache"))
        return resolve_model(model)

    if moment == "before loading":
        monkeypatch.setattr("hubel.models.checkpoint.resolve_model", replace)
    else:
        (other / "model.safetensors").replace(weights)
    convert(source, OpenVinoBackend())
    np.testing.assert_allclose(_probabilities(_predictor(model, engine="openvino"), images), replaced, atol=1e-4)
    weights.write_bytes(kept)
    np.testing.assert_allclose(_probabilities(_predictor(model, engine="openvino"), images), first, atol=1e-4)


def _owned_by_another(path: Path) -> None:
    os.chown(path, 12345, 12345)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("part", ["converted", "entry", "entry.json", "model.bin"])
def test_what_another_user_owns_is_not_believed(part: str, model: Path) -> None:
    convert(ModelSource(model), OpenVinoBackend())
    (entry,) = ConvertedCache().entries()
    _owned_by_another({"converted": ConvertedCache().folder, "entry": entry.folder}.get(part, entry.folder / part))
    assert find_converted(ModelSource(model), OpenVinoBackend()) is None
    note = convert(ModelSource(model), OpenVinoBackend()).note
    assert "converted in" in note
    assert ("not cached" in note) == (part == "converted")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_what_others_can_write_is_not_believed(model: Path, tmp_path: Path) -> None:
    before = os.umask(0o002)  # Ubuntu's, where every user has a group
    try:
        convert(ModelSource(model), OpenVinoBackend())
    finally:
        os.umask(before)
    (entry,) = ConvertedCache().entries()
    assert find_converted(ModelSource(model), OpenVinoBackend()) is not None
    modes = [path.stat().st_mode & 0o777 for path in (ConvertedCache().folder, entry.folder, *entry.folder.iterdir())]
    assert modes[:2] == [0o700, 0o700] and set(modes[2:]) == {0o600}
    for path, mode in ((entry.folder, 0o770), (entry.folder / "entry.json", 0o606)):
        kept = path.stat().st_mode
        path.chmod(mode)
        assert find_converted(ModelSource(model), OpenVinoBackend()) is None
        path.chmod(kept)
    (entry.folder / "model.bin").rename(tmp_path / "elsewhere")
    (entry.folder / "model.bin").symlink_to(tmp_path / "elsewhere")
    assert find_converted(ModelSource(model), OpenVinoBackend()) is None


def test_files_beside_downloads_are_not_counted_as_weights(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = ConvertedCache().folder.with_name("weights")
    folder.mkdir(parents=True)
    for name in (".resnet18.pth.lock", "resnet18.pth.sha256", "resnet50.pth.part.version", "measurements.json"):
        (folder / name).write_text("text")
    assert "0 files of downloaded weights, 0.0 MB" in _run(capfd, "cache")[1]
    _run(capfd, "cache", "clear", "--weights")
    assert not list(folder.iterdir())


def _run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    return int(exit_.value.code or 0), capfd.readouterr().out


def test_the_command_shows_and_clears(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = time.time()
    convert(ModelSource(model), OpenVinoBackend())
    weights = ConvertedCache().folder.with_name("weights") / "downloaded.pth"
    weights.parent.mkdir()
    weights.write_bytes(bytes(1000))
    status, out = _run(capfd, "cache", "--json")
    shown = json.loads(out)
    (entry,) = shown["converted"]
    size = sum(path.stat().st_size for path in ConvertedCache().folder.glob("*/model.*"))
    assert (status, entry["model"], entry["engine"], entry["precision"]) == (0, str(model), "openvino", "fp32")
    assert entry["size_bytes"] == shown["size_bytes"] == size > 200_000  # LeNet-5's 60,000 weights in float32, at least
    assert before - 1 < entry["last_used"] < time.time() + 1
    assert shown["weights"]["size_bytes"] == 1000
    status, out = _run(capfd, "cache")
    assert str(model) in out and "at most 2000.0 MB" in out
    status, out = _run(capfd, "cache", "clear")
    assert (status, out) == (0, f"{size / 1e6:.1f} MB freed\n")
    assert ConvertedCache().entries() == [] and weights.exists()
    status, out = _run(capfd, "cache", "clear", "--weights", "--json")
    assert json.loads(out) == {"freed_bytes": 1000} and not weights.exists()
    assert _run(capfd, "cache", "celar")[0] == 2
    assert _run(capfd, "cache", "--weights")[0] == 2


def test_models_are_found_as_resolve_model_finds_them(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = model.parent / "run"
    _save(run / "best", seed=2)
    best, itself = find_model(run), find_model(str(run / "best"))
    assert best is not None and itself is not None and best.digest == itself.digest
    other = find_model(model)
    assert other is not None and other.digest != best.digest
    lite0, default = find_model("efficientnet_lite0"), find_model("efficientnet_lite0:google/IMAGENET1K")
    assert lite0 is not None and default is not None and lite0.digest == default.digest
    monkeypatch.chdir(model.parent)
    _save(Path("efficientnet_lite0"), seed=3)  # the registered name wins; with ./ it is the folder
    assert find_model("efficientnet_lite0") == lite0
    folder = find_model("./efficientnet_lite0")
    assert folder is not None and folder.digest != lite0.digest
    assert resolve_model("./efficientnet_lite0")[1].architecture == "lenet5"
    assert find_model("first") is None  # only resolve_model tells a folder by a bare name
    for wrong in ("lenet5", "no-such-model", "models/none"):
        with pytest.raises(ModelError) as early:
            find_model(wrong)
        with pytest.raises(ModelError) as late:
            resolve_model(wrong)
        assert (early.value.message, early.value.hint) == (late.value.message, late.value.hint)


def test_a_kept_conversion_predicts_without_torch(model: Path, tmp_path: Path, images: list[Image.Image]) -> None:
    convert(ModelSource(model), OpenVinoBackend())
    images[0].save(tmp_path / "one.png")
    program = (
        "import sys, hubel.cli.main\n"
        "try:\n"
        "    hubel.cli.main.main(['predict', sys.argv[1], '--model', sys.argv[2], '--json', '--precision', 'fp32'])\n"
        "finally:\n"
        "    print(sorted({'torch', 'torchvision', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "one.png"), str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    line, imported = done.stdout.splitlines()
    assert imported == "[]", done.stderr
    scores = {score["index"]: score["score"] for score in json.loads(line)["classes"]}
    np.testing.assert_allclose([scores[index] for index in range(4)], _expected(model, images[:1])[0], atol=1e-4)
