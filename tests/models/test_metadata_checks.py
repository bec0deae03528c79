"""A forged or damaged model folder is refused in two lines before anything is built of it."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hubel import create_model
from hubel.benchmark.worker import _peak_resident_bytes
from hubel.config import make_config
from hubel.config_file import read_config, write_config
from hubel.errors import DataError, HubelError, ModelError, WeightsError
from hubel.inference import Predictor
from hubel.models import ModelMetadata, describe, load_model, save_model
from hubel.models.metadata import read_metadata
from hubel.weights.state_dict import read_state_dict

NAN, INF = float("nan"), float("inf")
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 3, 10**6, 10**18, 10**400, 0.0, 0.5, 1e-300, 1e300, NAN, INF, "", "a", "crop", "fit",
    "detect", "vgg16", "\x1b[31mred", "\ud800", "x" * 5000, [], {}, [[]], [1], ["a", "b", "c"], [NAN],
    {"a": {"b": [1]}}, {"depths": [10**9] * 4}, {"width": 1e9}, {"architecture": 3}, [0] * 1000,
]  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    model = create_model("lenet5", num_classes=3).eval()
    save_model(folder, model, describe(model))
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def _rewrite(folder: Path, path: str, value: Any) -> None:
    record = json.loads((folder / "model.json").read_text())
    inner = record
    *parents, last = path.split(".")
    for name in parents:
        inner = inner[name]
    inner[last] = value
    (folder / "model.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("preprocessing.std", [0.0], "std cannot be"),
        ("preprocessing.std", [1.0, 1.0, 1.0], "std has 3 values for 1 channels"),
        ("preprocessing.mean", [NAN], "mean cannot be"),
        ("preprocessing.mean", [INF], "mean cannot be"),
        ("preprocessing.resize", "squash", "resize cannot be 'squash'"),
        ("preprocessing.interpolation", "area", "interpolation cannot be 'area'"),
        ("preprocessing.crop_fraction", 0, "crop_fraction cannot be 0"),
        ("preprocessing.height", 10**6, "height cannot be 1000000"),
        ("preprocessing.height", True, "height cannot be True"),
        ("preprocessing.width", 32.5, "width cannot be 32.5"),
        ("preprocessing.channels", 3, "makes 3 channels, and the network takes 1"),
        ("image_size", 10**6, "image_size cannot be 1000000"),
        ("num_classes", True, "num_classes cannot be True"),
        ("in_channels", 10**9, "in_channels cannot be"),
        ("task", "detect", "its task is 'detect', and lenet5 is for 'classify'"),
        ("task", ["classify"], "task cannot be a list"),
        ("classes", [1, 2, 3], "classes cannot be"),
        ("classes", "abc", "classes cannot be 'abc'"),
        ("options", {"width": NAN}, "options cannot be"),
        ("options", {"a": {"b": {"c": {"d": {"e": {"f": {"g": 1}}}}}}}, "options cannot be"),
        ("backbone", {"architecture": "resnet18", "url": "x"}, "backbone cannot be read: url is unknown"),
        ("weights", 3, "weights cannot be 3"),
    ],
)
def test_impossible_values_are_named(folder: Path, path: str, value: Any, message: str) -> None:
    _rewrite(folder, path, value)
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert message in caught.value.message and str(folder / "model.json") in caught.value.message


def test_a_size_that_the_network_cannot_take_is_named_when_it_is_loaded(folder: Path) -> None:
    for width in (3, 300):
        _rewrite(folder, "preprocessing.width", width)
        with pytest.raises(ModelError, match=rf"model\.json: lenet5 cannot take images of 32 × {width} pixels"):
            load_model(folder)
    for side, message in ((4096, "cannot take images of 4096 × 4096"), (4097, "16,785,409 pixels, more than")):
        _rewrite(folder, "preprocessing.width", side)
        _rewrite(folder, "preprocessing.height", side)
        before, start = _peak_resident_bytes(), time.process_time()
        with pytest.raises(ModelError, match=message):
            load_model(folder)
        assert time.process_time() - start < 3  # a prediction takes longer, and 6 GB
        assert _peak_resident_bytes() - before < 100e6


@pytest.mark.parametrize("length", [5 << 20, 90 << 20, (1 << 64) - 1])
def test_a_header_far_larger_than_a_networks_is_not_read(length: int, folder: Path) -> None:
    for read in (load_model, lambda folder: read_state_dict(folder / "model.safetensors")):
        with (folder / "model.safetensors").open("wb") as file:
            file.write(length.to_bytes(8, "little") + b'{"a":{')
            file.truncate(6 << 20)
        with pytest.raises(WeightsError, match=rf"model\.safetensors .*its header would have {length:,} bytes"):
            read(folder)


def test_tables_of_indices_are_the_networks_own(folder: Path) -> None:
    state = load_file(folder / "model.safetensors")
    (table,) = (name for name in state if name.endswith("places"))
    state[table][0] = 1 << 40
    save_file(state, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=rf"has other constants: {table}"):
        load_model(folder)


@pytest.mark.parametrize("content", ["[" * 200_000, "9" * 10_000, '{"task": ' * 5_000, "\ud800", "nul", '"' + "a" * 99])
def test_what_is_not_json_is_damaged(folder: Path, content: str) -> None:
    (folder / "model.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ModelError) as caught:
        load_model(folder)
    assert len(caught.value.message) < 500 and "\n" not in caught.value.message


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from _paths(value[key], (*path, key))


def _mutated(record: Any, generator: random.Random) -> Any:
    record = copy.deepcopy(record)
    *parents, last = generator.choice([path for path in _paths(record) if path])
    inner = record
    for key in parents:
        inner = inner[key]
    if generator.random() < 0.85:
        inner[last] = copy.deepcopy(generator.choice(VALUES))
    else:
        del inner[last]
    return record


def test_mutated_records_raise_nothing_else(folder: Path) -> None:
    record = json.loads((folder / "model.json").read_text())
    generator, refused = random.Random(0), 0
    for number in range(600):
        mutated = _mutated(record, generator)
        (folder / "model.json").write_text(json.dumps(mutated), "utf-8", "surrogatepass")
        try:
            read_metadata(folder / "model.json") if number % 30 else load_model(folder)
        except HubelError as error:
            refused += 1
            assert "\n" not in error.message + error.hint and len(error.message) < 500, mutated
    assert refused > 400


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("resnet18", {"depths": [9000, 1, 1, 1]}), ("resnet18", {"width_per_group": 60_000}), ("alexnet", {})],
)
def test_a_network_far_larger_than_its_weights_is_not_built(
    folder: Path, architecture: str, options: dict[str, Any]
) -> None:
    """Its size is what the options say, until memory or patience end."""
    for path, value in (("architecture", architecture), ("options", options), ("image_size", 4096)):
        _rewrite(folder, path, value)
    with pytest.raises(HubelError):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensor: tensor.to(torch.int8), "other types of numbers: head.classifier.codes (int8)"),
        (lambda tensor: tensor.to(torch.complex64), "(complex64)"),
        (lambda tensor: tensor > 0, "(bool)"),
        (lambda tensor: tensor * NAN, "not numbers (NaN) or infinite: head.classifier.codes"),
        (lambda tensor: tensor / 0, "not numbers (NaN) or infinite"),
    ],
)
def test_weights_of_other_types_and_values_are_refused(folder: Path, change: Any, message: str) -> None:
    state = load_file(folder / "model.safetensors")
    state["head.classifier.codes"] = change(state["head.classifier.codes"])
    save_file(state, folder / "model.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    assert message in caught.value.message


@pytest.mark.parametrize("architecture", ["simple_cnn", "yolo_v3_tiny", "localizer"])
def test_outputs_that_are_not_numbers_are_an_error(architecture: str) -> None:
    """Also of a module in memory, whose weights nobody has checked."""
    options: dict[str, Any] = {"backbone": "mobilenet_v3_small"} if architecture == "localizer" else {}
    model = create_model(architecture, num_classes=2, image_size=64, **options).eval()
    metadata: ModelMetadata = describe(model)
    with torch.no_grad():
        list(model.parameters())[-1].fill_(NAN)
    predict = Predictor(model, engine="torch", precision="fp32", threads=1, metadata=metadata)
    with pytest.raises(ModelError, match=r"not numbers \(NaN\) for an image"):
        list(predict([np.zeros((64, 64, 3), np.uint8)]))


def test_mutated_configurations_raise_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_config(path, make_config(data=Path("flowers"), epochs=3))
    text, generator = path.read_text(), random.Random(0)
    for content in (
        "[]",
        "3",
        "- a\n- b",
        "1: 2",
        "data: 2020-13-45",
        "[" * 5000,
        "data: [",
        "data: {a: b}",
        "\ttask: 3",
    ):
        path.write_text(content)
        with pytest.raises(DataError) as caught:
            read_config(path)
        assert str(path) in caught.value.message and "\n" not in caught.value.message
    for _ in range(40):
        lines = text.splitlines()
        index = generator.randrange(len(lines))
        name = lines[index].partition(":")[0]
        lines[index] = f"{name}: {json.dumps(generator.choice(VALUES))}"
        path.write_text("\n".join(lines))
        try:
            read_config(path)
        except DataError as error:
            assert "\n" not in error.message + error.hint and len(error.message) < 500
