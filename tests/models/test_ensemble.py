"""Ensembles against NumPy: the members are loaded one by one, and their predictions averaged by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import hubel
from hubel.boxes import convert
from hubel.cli.main import main
from hubel.errors import HubelError, ModelError, WeightsError
from hubel.exporters.export import export
from hubel.inference import Predictor
from hubel.inference.fusion import fuse
from hubel.models import create_model, describe, load_model, resolve_model, save_model
from hubel.models.base import Model
from hubel.models.detection.ssd import SSD
from hubel.models.ensemble import Ensemble
from hubel.models.localization import Localizer
from hubel.models.metadata import find_model
from hubel.models.mirrored import Mirrored

SMALL = "mobilenet_v3_small"
NETWORKS: dict[str, dict[str, Any]] = {
    "lenet5": {"num_classes": 4},
    "resnet18": {"num_classes": 4, "image_size": 64, "depths": (1, 1, 1, 1)},
    "localizer": {"num_classes": 4, "backbone": "lenet5"},
    "ssd": {"num_classes": 4, "image_size": 96, "backbone": SMALL},
    "fcn32s": {"num_classes": 4, "image_size": 64, "backbone": SMALL},
}


def _trained(name: str, seed: int) -> Model:
    """A network with statistics and scores as training leaves them: confident, and unlike those of another seed."""
    torch.manual_seed(seed)
    model = create_model(name, **NETWORKS[name])
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.startswith("head.") and "classifier" in key:
                nn.init.normal_(parameter, std=0.5)
    assert isinstance(model, Model)
    return model.eval()


def _saved(name: str, root: Path, count: int = 3) -> tuple[Path, list[Path]]:
    """The folders of an ensemble, and of its members by themselves."""
    members = [_trained(name, seed) for seed in range(count)]
    metadata = describe(members[0])
    alone = [root / f"{name}-{number}" for number in range(count)]
    for folder, member in zip(alone, members, strict=True):
        save_model(folder, member, metadata)
    save_model(root / name, Ensemble(members), replace(metadata, members=count))
    return root / name, alone


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The networks are too small for more, which wait for each other where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    return _saved("lenet5", tmp_path_factory.mktemp("lenet"))


def _softmax(scores: np.ndarray, axis: int) -> np.ndarray:
    exponentials = np.exp(scores - scores.max(axis, keepdims=True))
    shares: np.ndarray = exponentials / exponentials.sum(axis, keepdims=True)
    return shares


def _by_hand(member: nn.Module, images: torch.Tensor, size: tuple[int, int] | None = None) -> dict[str, np.ndarray]:
    """What averages: class probabilities, of pixels in maps of ``size``, and boxes in pixels of the input."""
    height, width = size or images.shape[2:]
    with torch.no_grad():
        raw = member(images)
    raw = {key: value.double().numpy() for key, value in ({"scores": raw} if torch.is_tensor(raw) else raw).items()}
    if isinstance(member, Localizer):
        # Raw: the centre, x and y, and square roots of height and width.
        centre, sides = 1 / (1 + np.exp(-raw["box"][:, :2])), raw["box"][:, 3:1:-1] ** 2
        corners = np.concatenate((centre - sides / 2, centre + sides / 2), 1) * (width, height, width, height)
        return {"boxes": corners[:, None], "scores": _softmax(raw["scores"], 1)[:, None]}
    if isinstance(member, SSD):
        anchors = convert(member.anchors(height, width), "xyxy", "cxcywh").double().numpy()
        centre = anchors[:, :2] + 0.1 * raw["offsets"][..., :2] * anchors[:, 2:]
        sides = anchors[:, 2:] * np.exp(0.2 * raw["offsets"][..., 2:])
        boxes = np.concatenate((centre - sides / 2, centre + sides / 2), -1)
        return {"boxes": boxes, "scores": _softmax(raw["scores"], -1)[..., 1:]}
    if raw["scores"].ndim == 4:
        scores = nn.functional.interpolate(torch.from_numpy(raw["scores"]), (height, width), mode="bilinear")
        return {"class_map": _softmax(scores.numpy(), 1)}
    return {"probabilities": _softmax(raw["scores"], 1)}


@pytest.mark.parametrize("name", NETWORKS)
def test_predictions_are_the_means_of_the_members(name: str, tmp_path: Path) -> None:
    """As they are, and prepared for a fast prediction: their normalizations folded, sums and activations fused."""
    folder, alone = _saved(name, tmp_path)
    ensemble, metadata = load_model(folder)
    assert isinstance(ensemble, Ensemble) and metadata.members == 3
    images = torch.randn(2, metadata.in_channels, metadata.preprocessing.height, metadata.preprocessing.width)
    each = [_by_hand(load_model(path)[0], images) for path in alone]
    expected = {key: np.mean([one[key] for one in each], axis=0) for key in each[0]}
    for network in (ensemble, fuse(ensemble, torch.device("cpu"), torch.float32)):
        with torch.no_grad():
            found = ensemble.predictions(network(images), (images.shape[2], images.shape[3]))
        assert tuple(found) == ensemble.prediction_names and set(found) == set(expected)
        for key, values in expected.items():
            if key == "class_map":
                best = values.argmax(1)
                ranked = np.sort(values, axis=1)
                sure = ranked[:, -1] - ranked[:, -2] > 1e-4
                assert (found[key].numpy() == best)[sure].all() and sure.mean() > 0.9
                others = [one[key].argmax(1) for one in each]
                assert all((one != best).mean() > 0.05 for one in others), "the members differ"
            else:
                np.testing.assert_allclose(found[key].numpy(), values, rtol=1e-4, atol=1e-4)


def test_not_raw_scores_are_averaged(tmp_path: Path) -> None:
    folder, alone = _saved("resnet18", tmp_path)
    images = torch.randn(8, 3, 64, 64)
    ensemble, _ = load_model(folder)
    with torch.no_grad():
        scores = np.mean([load_model(path)[0](images).numpy() for path in alone], axis=0)
        found = ensemble.predictions(ensemble(images), (64, 64))["probabilities"].numpy()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert np.abs(found - _softmax(scores, 1)).max() > 0.05


@pytest.mark.parametrize(("name", "format"), [("lenet5", "onnx"), ("resnet18", "openvino")])
def test_exported_files_predict_the_same(tmp_path: Path, name: str, format: str) -> None:
    folder, alone = _saved(name, tmp_path)
    exported = export(folder, format, out=tmp_path / "out")
    assert exported.max_difference < 1e-5 and exported.task == "classify"
    images = list(np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8))
    *members, ensemble, file = (
        [[each.score for each in sorted(result.classes, key=lambda each: each.index)] for result in predict(images)]
        for predict in (
            *(Predictor(path, engine="torch", precision="fp32", top=4) for path in (*alone, folder)),
            Predictor(exported.path.parent, precision="fp32", top=4),
        )
    )
    np.testing.assert_allclose(ensemble, np.mean(members, axis=0), atol=1e-5)
    np.testing.assert_allclose(file, ensemble, atol=1e-5)


def test_boxes_are_the_same_on_openvino(tmp_path: Path) -> None:
    folder, _ = _saved("localizer", tmp_path)
    size = load_model(folder)[1].preprocessing
    pixels = [np.random.default_rng(0).integers(0, 256, (3, size.height, size.width, size.channels), np.uint8)]
    (torchs,), (theirs,) = (
        list(Predictor(folder, engine=engine, precision="fp32").engine_for(8).run(pixels))
        for engine in ("torch", "openvino")
    )
    np.testing.assert_allclose(theirs["boxes"], torchs["boxes"], atol=0.01)
    np.testing.assert_allclose(theirs["scores"], torchs["scores"], atol=1e-4)


def test_mirror_images_count_as_members(tmp_path: Path) -> None:
    """Test-time augmentation of segmentation: 18 class maps, of three networks and six views."""
    folder, alone = _saved("fcn32s", tmp_path)
    images = torch.randn(2, 3, 64, 64)
    ensemble, _ = load_model(folder)
    with torch.no_grad():
        mirrored = Mirrored(ensemble)
        found = mirrored.predictions(mirrored(images), (64, 64))["class_map"].numpy()
        networks = [load_model(path)[0] for path in alone]
    each = []
    for side in (48, 64, 80):
        view = nn.functional.interpolate(images, (side, side), mode="bilinear", align_corners=False)
        each += [_by_hand(network, view, (64, 64))["class_map"] for network in networks]
        each += [_by_hand(network, view.flip(3), (64, 64))["class_map"][..., ::-1] for network in networks]
    ranked = np.sort(np.mean(each, axis=0), axis=1)
    sure = ranked[:, -1] - ranked[:, -2] > 1e-4
    assert (found == np.mean(each, axis=0).argmax(1))[sure].all() and sure.mean() > 0.9


def test_auxiliary_classifiers_are_not_kept() -> None:
    members = [create_model("googlenet", 3) for _ in range(2)]
    ensemble = Ensemble([member for member in members if isinstance(member, Model)])
    assert not [key for key in ensemble.state_dict() if "auxiliary" in key]


def test_the_summary_says_what_it_costs(lenet: tuple[Path, list[Path]], capsys: Any) -> None:
    costs = []
    for path in (lenet[0], lenet[1][0]):
        with pytest.raises(SystemExit):
            main(["summary", str(path), "--json"])
        costs.append(json.loads(capsys.readouterr().out))
    for total in ("parameters", "multiplications"):
        assert costs[0][total] == 3 * costs[1][total]


def test_a_searchs_folder_means_its_ensemble(lenet: tuple[Path, list[Path]], tmp_path: Path) -> None:
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "ensemble").symlink_to(lenet[0], target_is_directory=True)
    assert isinstance(resolve_model(tmp_path / "search")[0], Ensemble)
    found, same = find_model(tmp_path / "search"), find_model(lenet[0])
    assert found is not None and same is not None and found.digest == same.digest


def _rewritten(folder: Path, copy: Path, **changes: Any) -> Path:
    copy.mkdir()
    record = {**json.loads((folder / "model.json").read_text()), **changes}
    (copy / "model.json").write_text(json.dumps({key: each for key, each in record.items() if each != "absent"}))
    (copy / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    return copy


@pytest.mark.parametrize("members", [0, 1, -2, 101, 10**9, True, "3", 3.0, None, [3]])
def test_a_wrong_number_of_members_is_named(lenet: tuple[Path, list[Path]], tmp_path: Path, members: Any) -> None:
    folder = _rewritten(lenet[0], tmp_path / "forged", members=members)
    with pytest.raises(ModelError, match=r"model\.json: members cannot be "):
        load_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": 2}, r"has unknown members\.2\."),
        ({"members": 4}, r"misses members\.3\."),
        ({"members": "absent"}, r"misses backbone\..* has unknown members\.0\."),
        ({"members": 100, "architecture": "alexnet", "image_size": 224}, "far larger than its weights"),
    ],
)
def test_other_members_than_its_weights_are_refused(
    lenet: tuple[Path, list[Path]], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(HubelError, match=message):
        load_model(_rewritten(lenet[0], tmp_path / "forged", **changes))


def test_a_network_by_itself_is_written_as_before(lenet: tuple[Path, list[Path]]) -> None:
    assert "members" not in json.loads((lenet[1][0] / "model.json").read_text())
    assert set(load_file(lenet[0] / "model.safetensors")) == {
        f"members.{number}.{key}" for number in range(3) for key in load_file(lenet[1][0] / "model.safetensors")
    }


def test_it_cannot_be_trained_further(lenet: tuple[Path, list[Path]]) -> None:
    weights = lenet[0] / "model.safetensors"
    with pytest.raises(WeightsError) as raised:
        create_model("lenet5", 4, weights=weights)
    expected = f"{weights} holds an ensemble of 3 networks, which cannot be trained further"
    assert (raised.value.message, raised.value.hint) == (expected, "pass the weights of a single network")


def test_it_tells_when_it_has_seen_what_it_is_scored_on(
    lenet: tuple[Path, list[Path]], tmp_path: Path, capsys: Any
) -> None:
    from drawn_shapes import write_shapes

    root = write_shapes(tmp_path / "shapes", {"cross": 4, "disc": 4})
    folder = _rewritten(lenet[0], tmp_path / "ensemble", classes=["cross", "disc", "ring", "square"])
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    (folder / "splits.json").write_text(json.dumps({"train": names[2:], "test": names[:2]}))
    assert hubel.evaluate(folder, root).split == "test" and not capsys.readouterr().err.count("note")
    hubel.evaluate(folder, root, split="all")
    expected = "note: 6 of 8 images were trained on by 2 of the 3 networks: the score is too high"
    assert expected in capsys.readouterr().err
