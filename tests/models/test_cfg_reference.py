"""A Darknet cfg as a model: by reference, in commands, in training, and written back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from darknet_judges import boxes_by_libdarknet, letterboxed_by_libdarknet, random_weights
from hubel import Predictor, export
from hubel.cli.main import app
from hubel.errors import ModelError, UsageError, WeightsError
from hubel.models import create_model, load_model, resolve_model, save_model
from hubel.models.cfg_reference import read_cfg_model, split_reference
from hubel.models.darknet.detector import DarknetDetector
from hubel.models.metadata import find_model
from hubel.tasks.decoding import scale_to_original
from hubel.weights.darknet_cfg import parse_cfg
from hubel.weights.darknet_layers import layers_of, net_size
from hubel.weights.darknet_weights import read_darknet

NET = "[net]\nwidth=64\nheight=32\nchannels=3\n"
BODY = "".join(
    f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize=3\nstride=2\npad=1\nactivation=mish\n"
    for filters in (8, 16, 32, 64)
)
YOLO = "[convolutional]\nfilters=14\nactivation=linear\n[yolo]\nmask=0,1\nanchors=9,12, 20,25\nclasses=2\nnum=2\n"
REGION = "[convolutional]\nfilters=50\nactivation=linear\n[region]\nanchors=1,2, 3,4\nclasses=20\nnum=2\nsoftmax=1\n"
DETECTION = "[connected]\noutput=144\nactivation=linear\n[detection]\nclasses=6\nside=3\nnum=2\nsqrt=1\n"
CLASSES = "[convolutional]\nfilters=5\nactivation=linear\n[avgpool]\n[softmax]\ngroups=1\n"


def written(folder: Path, head: str, name: str = "net") -> Path:
    """A cfg and random weights of its name."""
    path = folder / f"{name}.cfg"
    path.write_text(NET + BODY + head)
    sections = parse_cfg(path.read_text())
    random_weights(layers_of(sections, net_size(sections[0])), path.with_suffix(".weights"))
    return path


@pytest.mark.parametrize(("head", "classes"), [(YOLO, 2), (REGION, 20), (DETECTION, 6)], ids=["v3", "v2", "v1"])
def test_detectors(head: str, classes: int, tmp_path: Path) -> None:
    path = written(tmp_path, head)
    model, metadata = resolve_model(str(path))
    assert isinstance(model, DarknetDetector)
    family = {2: "yolo_v3", 20: "yolo_v2", 6: "yolo_v1"}[classes]
    assert (metadata.task, metadata.architecture) == ("detect", family)
    assert (metadata.num_classes, len(metadata.classes)) == (classes, classes)
    ready = metadata.preprocessing
    assert (ready.height, ready.width, ready.mean, ready.std) == (32, 64, (0,) * 3, (255,) * 3)
    assert ready.resize == ("stretch" if head == DETECTION else "fit")
    image = np.random.default_rng(0).integers(0, 255, (50, 90, 3), np.uint8)
    found = Predictor(str(path), engine="torch", conf=0.0)(image)[0]
    scaled = Image.fromarray(image).resize((64 if head == DETECTION else 58, 32), Image.Resampling.BILINEAR)
    padded = Image.new("RGB", (64, 32), (128, 128, 128))
    padded.paste(scaled, ((64 - scaled.width) // 2, 0))
    pixels = torch.from_numpy(np.array(padded))
    with torch.no_grad():
        dense = model.predictions(model.forward(pixels.permute(2, 0, 1)[None].float() / 255), (32, 64))
    assert float(found.scores.max()) == pytest.approx(float(dense["scores"].max()), abs=0.01)
    assert found.boxes.min() >= 0 and found.boxes[:, 2].max() <= 90 and found.boxes[:, 3].max() <= 50


def test_classes_of_cells(tmp_path: Path) -> None:
    """Darknet's layout of the last dense layer: side · side · classes numbers, cell by cell, come first."""
    model, _ = resolve_model(written(tmp_path, DETECTION))
    assert isinstance(model, DarknetDetector)
    last = model.graph.layers[-2]
    assert last.kind == "connected"
    seen: list[torch.Tensor] = []
    model.head.get_submodule(last.name).register_forward_hook(lambda *each: seen.append(each[2]))
    with torch.no_grad():
        found = model.cell_classes(model(torch.rand(2, 3, 32, 64)))
    expected = seen[0].flatten(1)[:, : 3 * 3 * 6].reshape(2, 3, 3, 6)
    assert torch.equal(found, expected.clamp(0, 1)) and 0 < float(found.mean()) < 1
    other, _ = resolve_model(written(tmp_path, YOLO))
    with pytest.raises(ModelError, match="boxes of this network have classes of their own"):
        other.cell_classes(other(torch.rand(1, 3, 32, 64)))  # type: ignore[operator]


@pytest.mark.parametrize("size", [(640, 480), (300, 400), (500, 500)])
def test_letterboxing_is_darknets(size: tuple[int, int], tmp_path: Path) -> None:
    """Grey at the same pixels; the image between differs by half a pixel, as Darknet puts corners on corners."""
    width, height = size
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 5, height))
    image = (np.stack((np.sin(x), np.cos(y), np.sin(x + y)), -1) * 100 + 128).astype(np.uint8)
    ready = replace(resolve_model(written(tmp_path, YOLO))[1].preprocessing, height=416, width=416)
    theirs = letterboxed_by_libdarknet(image / 255, 416, 416)
    for interpolation in ("bilinear", "bilinear-2x2"):
        ours = replace(ready, interpolation=interpolation).pixels(Image.fromarray(image)) / 255  # type: ignore[arg-type]
        grey = (theirs == 0.5).all(2)
        assert grey.any() == (width != height) and np.array_equal(grey, (ours == 128 / 255).all(2) & grey)
        assert (ours != 128 / 255).any(2)[~grey].mean() > 0.99
        assert np.abs(ours - theirs).max() < 0.02


@pytest.mark.parametrize("size", [(100, 100), (128, 32), (640, 320)])
@pytest.mark.parametrize("head", [YOLO, REGION], ids=["v3", "v2"])
def test_boxes_go_back_to_the_image_as_in_darknet(head: str, size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "net.cfg"
    path.write_text((NET + BODY).replace("mish", "leaky") + head)
    layers = layers_of(sections := parse_cfg(path.read_text()), net_size(sections[0]))
    random_weights(layers, path.with_suffix(".weights"))
    model, metadata = resolve_model(path)
    image = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), np.uint8)
    pixels = metadata.preprocessing.pixels(Image.fromarray(image)).transpose(2, 0, 1)[None] / np.float32(255)
    theirs, objectness = boxes_by_libdarknet(path, path.with_suffix(".weights"), pixels[0], size)
    if head == REGION:  # anchor by anchor
        theirs, objectness = theirs.reshape(2, -1, 4).swapaxes(0, 1).reshape(-1, 4), objectness.reshape(2, -1).T.ravel()
    with torch.no_grad():
        outputs = model(torch.from_numpy(pixels))
        boxes = model.predictions(outputs, (32, 64))["boxes"][0].numpy()
    np.testing.assert_allclose(outputs["objectness"].sigmoid()[0, :, 0], objectness, atol=1e-4)
    ours = scale_to_original(boxes, metadata.preprocessing, *size)
    np.testing.assert_allclose(ours, theirs.clip(0, np.tile(size, 2)), atol=1e-3 * max(size))
    assert (ours[:, 2:] - ours[:, :2]).max() > 10


def test_who_keeps_the_aspect_of_images(tmp_path: Path) -> None:
    """Redmon's Darknet in ``[region]`` and ``[yolo]``; Bochkovskiy's if it is told to."""
    ciou = YOLO + "iou_loss=ciou\n"
    found = [read_cfg_model(written(tmp_path, head)).preprocessing.resize for head in (YOLO, REGION, ciou, DETECTION)]
    assert found == ["fit", "fit", "stretch", "stretch"]
    for head, box, resize in ((ciou, 1, "fit"), (YOLO, 0, "stretch")):
        path = written(tmp_path, head)
        path.write_text(path.read_text().replace("channels=3", f"channels=3\nletter_box={box}"))
        assert read_cfg_model(path).preprocessing.resize == resize


def test_names_of_classes(tmp_path: Path) -> None:
    path = written(tmp_path, REGION)
    assert read_cfg_model(path).classes[6] == "car"
    (tmp_path / "voc.names").write_text("\n".join(f"class {k}" for k in range(20)))
    assert read_cfg_model(path).classes[:2] == ["class 0", "class 1"]
    (tmp_path / "net.names").write_text("one\ntwo\n")
    with pytest.raises(ModelError, match=r"net.names names 2 classes, and net.cfg has 20"):
        read_cfg_model(path)
    coco = YOLO.replace("14", "170").replace("classes=2", "classes=80")
    (tmp_path / "other").mkdir()
    names = read_cfg_model(written(tmp_path / "other", coco)).classes
    assert (len(names), names[0], names[-1]) == (80, "person", "toothbrush")
    assert read_cfg_model(written(tmp_path / "other", CLASSES)).classes == list("01234")


def test_a_classifier_and_its_command(tmp_path: Path) -> None:
    path = written(tmp_path, CLASSES)
    weights = path.with_suffix(".weights").rename(tmp_path / "trained.weights")
    image = tmp_path / "image.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 64, 3), np.uint8)).save(image)
    arguments = ["predict", str(image), "--model", str(path), "--json", "--quiet", "--engine", "torch"]
    done = CliRunner().invoke(app, [*arguments, "--precision", "fp32", "--weights", str(weights)])
    assert done.exit_code == 0, done.output
    row = json.loads(done.stdout)
    model, _ = resolve_model(f"{path}:{weights}")
    with torch.no_grad():
        pixels = torch.from_numpy(np.array(Image.open(image))).permute(2, 0, 1)[None].float() / 255
        expected = torch.softmax(model(pixels), 1)[0]
    best = row["classes"][0]
    assert (row["task"], best["index"]) == ("classify", int(expected.argmax()))
    assert best["score"] == pytest.approx(float(expected.max()), abs=1e-4)


def test_references_that_cannot_be(tmp_path: Path) -> None:
    path = written(tmp_path, YOLO)
    found = find_model(str(path))
    assert found is not None and found.task == "detect" and found.is_unchanged()
    weights = path.with_suffix(".weights").rename(tmp_path / "trained.weights")
    assert find_model(f"{path}:{weights}").digest == found.digest  # type: ignore[union-attr]
    with pytest.raises(WeightsError, match=r"has no weights beside it, in net.weights"):
        resolve_model(str(path))
    with pytest.raises(WeightsError, match=r"none.weights does not exist"):
        resolve_model(f"{path}:none.weights")
    with pytest.raises(ModelError, match=r"none.cfg cannot be read"):
        resolve_model("none.cfg")
    with pytest.raises(ModelError, match="ends neither in boxes nor in classes"):
        read_cfg_model(written(tmp_path, "", "features"))
    with pytest.raises(ModelError, match="resnet50 is not a Darknet cfg, which --weights is for"):
        Predictor("resnet50", weights=weights)
    with pytest.raises(ModelError, match=r"line 36: there is no tree of classes in any of .*9k\.tree"):
        resolve_model(written(tmp_path, REGION + "tree=9k.tree\n", "tree"))
    assert split_reference("runs/cars") is None and split_reference("resnet50:timm/a1") is None


def test_own_classes_leave_the_body_as_it_is_and_go_back_to_darknet(tmp_path: Path) -> None:
    path = written(tmp_path, YOLO)
    cfg = read_cfg_model(path)
    model = create_model(cfg.architecture, 7, weights=cfg.weights, **cfg.options)
    whole, metadata = resolve_model(path)
    for name, tensor in whole.state_dict().items():
        same = torch.equal(tensor, model.state_dict()[name]) if name.startswith("backbone.") else False
        assert same == name.startswith("backbone."), name
    save_model(tmp_path / "saved", whole, metadata)
    again, read = load_model(tmp_path / "saved")
    assert read == metadata
    done = export(tmp_path / "saved", "darknet", out=tmp_path / "darknet")
    assert done.max_difference == 0 and (done.path.parent / "model.names").read_text() == "0\n1\n"
    theirs = read_darknet(done.path.with_suffix(".weights")).numbers
    assert np.array_equal(theirs, read_darknet(path.with_suffix(".weights")).numbers)
    images = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        for name, tensor in resolve_model(done.path)[0](images).items():
            assert torch.equal(tensor, again(images)[name])
    with pytest.raises(UsageError, match="it was not made of a Darknet cfg"):
        export(create_model("simple_cnn"), "darknet", out=tmp_path / "other")


def test_summary_and_training_take_a_cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubel.training.train import complete_config, make_model

    path = written(tmp_path, YOLO)
    done = CliRunner().invoke(app, ["summary", str(path), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["input"] == [3, 32, 64]
    config = complete_config(tmp_path, {"model": str(path), "epochs": 1})
    assert (config.task, config.model, config.image_size) == ("detect", "yolo_v3", 32)
    model, metadata = make_model(config, ["a", "b", "c"])
    assert isinstance(model, DarknetDetector)
    assert (model.num_classes, metadata.classes) == (3, ["a", "b", "c"])
    first = "backbone.000_convolutional.conv.weight"
    assert torch.equal(model.state_dict()[first], resolve_model(path)[0].state_dict()[first])
