"""Saved models: what is written, what is refused, which model a name or folder means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import hubel
from hubel.errors import ModelError, WeightsError
from hubel.models import (
    ModelMetadata,
    create_model,
    default_preprocessing,
    describe,
    load_model,
    resolve_model,
    save_model,
)


def card_of(name: str = "lenet5", **changes: Any) -> ModelMetadata:
    values: dict[str, Any] = {
        "task": "classify",
        "architecture": name,
        "num_classes": 3,
        "in_channels": 1,
        "image_size": 32,
        "classes": ["Löwenzahn", "rose", "tulip"],
        "preprocessing": default_preprocessing(name, 32, 1),
    }
    return ModelMetadata(**{**values, **changes})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A saved LeNet-5."""
    save_model(tmp_path / "saved", create_model("lenet5", num_classes=3), card_of())
    return tmp_path / "saved"


def rewritten(folder: Path, **changes: Any) -> Path:
    path = folder / "model.json"
    row = json.loads(path.read_text("utf-8"))
    row.update(changes)
    path.write_text(json.dumps({key: value for key, value in row.items() if value != "absent"}), "utf-8")
    return folder


def test_the_files_say_what_one_needs_to_know(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["model.json", "model.safetensors"]
    text = (folder / "model.json").read_text("utf-8")
    assert "Löwenzahn" in text
    row = json.loads(text)
    assert list(row) == sorted(row)
    assert row["hubel"] == hubel.__version__
    assert row["preprocessing"]["mean"] == [127.5]
    with safe_open(folder / "model.safetensors", "pt") as weights:
        assert weights.get_tensor("backbone.c5.conv.weight").shape == (120, 16, 5, 5)


def test_options_survive(tmp_path: Path) -> None:
    model = create_model("resnet18", num_classes=3, in_channels=1, depths=(1, 1, 1, 1)).eval()
    card = card_of("resnet18", options={"depths": (1, 1, 1, 1)})
    save_model(tmp_path, model, card)
    again, _ = load_model(tmp_path)
    images = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(again(images), model(images))


def test_an_interrupted_save_leaves_the_old_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def interrupted(state: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("hubel.models.checkpoint.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(folder, create_model("lenet5", num_classes=3), card_of())
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_that_cannot_be_is_named(folder: Path) -> None:
    with pytest.raises(ModelError, match="model.json/best: the model cannot be written"):
        save_model(folder / "model.json" / "best", create_model("lenet5", num_classes=3), card_of())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "lenet6"}, "model.json.*'lenet6'.*\n.*lenet5"),
        ({"colour_space": "lab", "hubel": "9.1"}, "hubel 9.1, with colour_space.*\n.*--upgrade"),
        ({"classes": "absent"}, "model.json: classes is missing"),
        ({"classes": ["rose"]}, "names 1 classes for 3 outputs"),
        ({"num_classes": "three"}, "num_classes cannot be 'three'"),
        ({"options": {"width": 2}}, "model.json.*no option 'width'"),
        ({"preprocessing": {"height": 32}}, "model.json: preprocessing"),
        ({"preprocessing": {"height": 32, "width": 32, "mean": [0], "std": [1], "gamma": 2}}, "gamma"),
    ],
)
def test_a_card_that_cannot_be_used_is_named(folder: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(rewritten(folder, **changes))


def test_damaged_and_missing_files_are_named(folder: Path) -> None:
    weights, card = folder / "model.safetensors", folder / "model.json"
    whole = weights.read_bytes()
    for damaged in (b"", whole[:1000], b"not weights at all", whole[:-100]):
        weights.write_bytes(damaged)
        with pytest.raises(WeightsError, match="model.safetensors is damaged"):
            load_model(folder)
    weights.unlink()
    with pytest.raises(WeightsError, match="model.safetensors is missing"):
        load_model(folder)
    card.write_text(card.read_text("utf-8")[:100], "utf-8")
    with pytest.raises(ModelError, match="model.json is damaged"):
        load_model(folder)
    card.write_text("[]", "utf-8")
    with pytest.raises(ModelError, match="expected a JSON object"):
        load_model(folder)
    card.unlink()
    with pytest.raises(ModelError, match="model.json is missing"):
        load_model(folder)


def test_weights_of_another_model_are_refused(folder: Path) -> None:
    rewritten(folder, num_classes=4, classes=["a", "b", "c", "d"])
    with pytest.raises(WeightsError, match=r"model.safetensors.*head.classifier.codes \(3, 84\) for \(4, 84\)"):
        load_model(folder)


def test_a_name_means_its_default_weights() -> None:
    model, card = resolve_model("efficientnet_lite0")
    _, named = resolve_model("efficientnet_lite0:google/IMAGENET1K")
    assert card == named
    assert card.weights == "efficientnet_lite0:google/IMAGENET1K"
    assert (card.num_classes, len(card.classes), card.classes[698]) == (1000, 1000, "palace")
    assert card.preprocessing.mean == (127.0, 127.0, 127.0)
    assert not model.training


def test_a_run_folder_means_its_best_model(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    folder.rename(run / "best")
    for reference in (run, str(run), run / "best"):
        _, card = resolve_model(reference)
        assert card.classes == ["Löwenzahn", "rose", "tulip"]


def test_what_is_not_a_model_is_reported(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as raised:
        resolve_model("lenet5")
    assert raised.value.message == "lenet5 has no pretrained weights"
    assert "hubel train DATA --model lenet5" in raised.value.hint
    with pytest.raises(ModelError, match="runs/flowers is neither an existing folder nor a known architecture"):
        resolve_model("runs/flowers")
    with pytest.raises(ModelError, match="efficientnet_lite_0 is neither an existing folder.*\n.*efficientnet_lite0"):
        resolve_model("efficientnet_lite_0")
    with pytest.raises(ModelError, match="'resnet5'"):
        resolve_model("resnet5:torchvision/IMAGENET1K_V2")
    with pytest.raises(WeightsError, match="IMAGENET21K"):
        resolve_model("resnet50:torchvision/IMAGENET21K")
    with pytest.raises(ModelError, match="is a file"):
        resolve_model(folder / "model.safetensors")
    with pytest.raises(ModelError, match="is not a saved model"):
        resolve_model(tmp_path)


def test_a_created_model_describes_itself() -> None:
    """What a predictor needs to run a module alone: classes and preprocessing, as the catalog has them."""
    card = describe(create_model("efficientnet_lite0", weights="default"))
    assert card.classes[698] == "palace" and card.weights == "efficientnet_lite0:google/IMAGENET1K"
    assert card.preprocessing.mean == (127.0, 127.0, 127.0) and card.preprocessing.std == (128.0, 128.0, 128.0)
    other = describe(create_model("resnet18", num_classes=2, image_size=96, stride_in="1x1"))
    assert (other.classes, other.preprocessing.height, other.options) == (["0", "1"], 96, {"stride_in": "1x1"})
    with pytest.raises(ModelError, match="Linear"):
        describe(torch.nn.Linear(1, 1))
