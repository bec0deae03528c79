"""Exported detectors: what the files compute, and what their example finds without hubel."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from test_export import run_without_hubel
from torch.nn import functional
from torchvision.models.detection.image_list import ImageList

import hubel
from hubel.data.sources import sample_photographs
from hubel.errors import ModelError, UsageError
from hubel.exporters.export import Exported
from hubel.exporters.parity import check_detections, check_parity
from hubel.inference.engines.normalized_model import NormalizedModel
from hubel.inference.engines.openvino import OpenVinoBackend
from hubel.inference.engines.selection import BACKENDS
from hubel.models.checkpoint import describe
from hubel.tasks.decoding import Thresholds
from hubel.tasks.detection.decode import select_objects
from reference_detectors import CLASSES, saved_detector, torchvision_detector
from two_stage_detector import two_stage_detector, two_stage_pixels


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    return torchvision_detector()


@pytest.fixture(scope="module")
def folder(theirs: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_detector(theirs, tmp_path_factory.mktemp("model"))


def test_boxes_and_scores_are_torchvision_s(theirs: torch.nn.Module, folder: Path, tmp_path: Path) -> None:
    exported = hubel.export(folder, "onnx", out=tmp_path / "out")
    assert (exported.task, exported.outputs) == ("detect", ("boxes", "scores"))
    onnx.checker.check_model(onnx.load(exported.path))
    photograph = Image.open(sample_photographs()[0]).resize((320, 320))
    pixels = np.stack([np.asarray(photograph), np.asarray(photograph)[::-1]])
    session = onnxruntime.InferenceSession(exported.path)
    boxes, scores = session.run(["boxes", "scores"], {"pixels": pixels})
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        maps = list(theirs.backbone(images).values())
        expected = theirs.head(maps)
        anchors = theirs.anchor_generator(ImageList(images, [(320, 320)] * 2), maps)[0]
        decoded = [theirs.box_coder.decode_single(each, anchors) for each in expected["bbox_regression"]]
    np.testing.assert_allclose(scores, expected["cls_logits"].softmax(-1)[..., 1:], atol=1e-4)
    np.testing.assert_allclose(boxes, torch.stack(decoded), atol=0.02, rtol=1e-4)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == CLASSES
    assert "anchors" not in about
    _example_finds_what_hubel_finds(folder, exported, tmp_path)


@pytest.mark.parametrize("format", ["openvino", pytest.param("torch", marks=pytest.mark.slow)])
def test_example_finds_what_hubel_finds(format: str, folder: Path, tmp_path: Path) -> None:
    _example_finds_what_hubel_finds(folder, hubel.export(folder, format, out=tmp_path / "out"), tmp_path)


def _example_finds_what_hubel_finds(folder: Path, exported: Exported, tmp_path: Path) -> None:
    """On a photograph that lies on its side in the file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = tmp_path / "rotated.png"
    Image.open(sample_photographs()[1]).crop((0, 0, 600, 420)).save(image, exif=exif)
    (found,) = hubel.Predictor(folder, engine="torch", precision="fp32")([image])
    assert isinstance(found, hubel.Detections) and len(found) > 20
    lines = [line.split("  ") for line in run_without_hubel(exported.path.with_name("use.py"), [image]).splitlines()]
    best = 20  # further down neighbours may change places
    assert [name for _, name, *_ in lines[:best]] == list(found.names[:best])
    np.testing.assert_allclose([float(score) for _, _, score, _ in lines[:best]], found.scores[:best], atol=1e-3)
    boxes = [[float(side) for side in box.split()] for *_, box in lines[:best]]
    np.testing.assert_allclose(boxes, found.boxes[:best], atol=0.3)


@pytest.mark.parametrize(
    "format", ["onnx", pytest.param("openvino", marks=pytest.mark.slow), pytest.param("torch", marks=pytest.mark.slow)]
)
def test_graph_with_suppression_finds_what_torchvision_finds(
    format: str, theirs: torch.nn.Module, folder: Path, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        exported = hubel.export(folder, format, out=tmp_path / "out", nms=True, conf=0.5, iou=0.45)
    assert exported.outputs == ("boxes", "scores", "labels")
    theirs.score_thresh, theirs.nms_thresh, theirs.topk_candidates = 0.5, 0.45, 10_000
    photograph = Image.open(sample_photographs()[1]).resize((320, 320), Image.Resampling.BILINEAR)
    photograph.save(tmp_path / "it.png")
    with torch.inference_mode():
        (found,) = theirs([torch.from_numpy(np.asarray(photograph).copy()).permute(2, 0, 1) / 255])
    output = run_without_hubel(exported.path.with_name("use.py"), [tmp_path / "it.png"])
    lines = [line.split("  ") for line in output.splitlines()]
    assert 20 < len(lines) == len(found["scores"])
    assert [name for _, name, *_ in lines] == [CLASSES[label - 1] for label in found["labels"]]
    np.testing.assert_allclose([float(score) for _, _, score, _ in lines], found["scores"], atol=1e-3)
    boxes = [[float(side) for side in box.split()] for *_, box in lines]
    np.testing.assert_allclose(boxes, found["boxes"], atol=0.2)


def test_found_objects_are_compared_both_ways() -> None:
    """One object with probability 0.8 where the anchor is; a file may neither lose it nor find another."""
    pixels = np.zeros((1, 320, 320, 3), np.uint8)
    expected = {"boxes": np.array([[[100, 100, 150, 150]]], np.float32), "scores": np.array([[[0.8]]], np.float32)}

    def check(boxes: list[list[float]], scores: list[float], conf: float = 0.5) -> float:
        outputs = {"boxes": np.array(boxes, np.float32).reshape(-1, 4), "scores": np.array(scores, np.float32)}
        outputs["labels"] = np.zeros(len(scores), np.int64)
        return check_detections(lambda _: outputs, pixels, expected, Thresholds(conf), "fp16", "file")

    assert check([[100, 100, 150, 151.6]], [0.79]) == pytest.approx(0.01, abs=1e-5)
    assert check([], [], conf=0.79) == 0  # about as probable as the threshold
    for boxes, scores in (
        ([], []),
        ([[100, 100, 150, 160]], [0.8]),
        ([[100, 100, 150, 150], [0, 0, 9, 9]], [0.8, 0.7]),
    ):
        with pytest.raises(ModelError, match=f"finds {len(scores)} objects where the model finds 1"):
            check(boxes, scores)


def test_suppression_is_refused_where_it_cannot_be(folder: Path) -> None:
    with pytest.raises(UsageError, match="is not a detector"):
        hubel.export("efficientnet_lite0", "onnx", nms=True)
    with pytest.raises(UsageError, match="bf16 is too coarse for box coordinates"):
        hubel.export(folder, "openvino", "bf16", nms=True)
    with pytest.raises(UsageError, match="conf is 2"):
        hubel.export(folder, "onnx", nms=True, conf=2)


@pytest.mark.parametrize("what", ["scores", "boxes"])
def test_a_file_that_finds_something_else_never_appears(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small network, which is converted in a second."""
    torch.manual_seed(0)
    model = hubel.create_model("localizer", num_classes=3, image_size=32, backbone="resnet18").eval()
    open_file = OpenVinoBackend.open_file

    def with_an_error(*arguments: Any) -> Any:
        classes, run = open_file(*arguments)

        def changed(pixels: np.ndarray) -> dict[str, np.ndarray]:
            predictions = run(pixels)
            predictions[what] = predictions[what].copy()
            predictions[what][-1, -1, 0] += 0.1 if what == "scores" else 3.2  # pixels
            return predictions

        return classes, changed

    monkeypatch.setattr(OpenVinoBackend, "open_file", with_an_error)
    with pytest.raises(ModelError, match="differs from the model by up to"):
        hubel.export(model, "openvino", out=tmp_path / "out", metadata=replace(describe(model), classes=CLASSES))
    assert not (tmp_path / "out").exists()


def test_parity_of_boxes_is_judged_within_the_image() -> None:
    """Half a pixel of 320 is 0.0016 of the size; where a box ends outside the image does not matter."""
    pixels = np.zeros((1, 320, 320, 3), np.uint8)
    expected = {"boxes": np.array([[[-40, 100, 150, 150]]], np.float32), "scores": np.full((1, 1, 3), 0.2, np.float32)}
    moved = {**expected, "boxes": np.array([[[-90, 100.5, 150.5, 150]]], np.float32)}
    assert check_parity(lambda _: moved, pixels, expected, "fp16", "file") == pytest.approx(0.5 / 320, rel=1e-3)
    with pytest.raises(ModelError, match="of the image's size in a box"):
        check_parity(lambda _: moved, pixels, expected, "fp32", "file")


def test_a_localizer_is_exported_with_its_box(tmp_path: Path) -> None:
    """Its example prints what hubel predicts; the reference is the module in plain torch."""
    torch.manual_seed(0)
    model = hubel.create_model("localizer", num_classes=3, image_size=64, backbone="mobilenet_v2").eval()
    metadata = replace(describe(model), classes=CLASSES)
    exported = hubel.export(model, "openvino", out=tmp_path / "out", metadata=metadata)
    assert (exported.task, exported.outputs) == ("localize", ("boxes", "scores"))
    image = tmp_path / "it.png"
    Image.open(sample_photographs()[0]).save(image)
    (line,) = run_without_hubel(exported.path.with_name("use.py"), [image]).splitlines()
    _, name, score, box = line.split("  ")
    (found,) = hubel.Predictor(model, metadata=metadata, engine="torch", precision="fp32")([image])
    assert isinstance(found, hubel.Detections)
    assert name == found.names[0]
    assert float(score) == pytest.approx(float(found.scores[0]), abs=1e-3)
    clipped = np.array([float(side) for side in box.split()]).clip(0, [found.width, found.height] * 2)
    np.testing.assert_allclose(clipped, found.boxes[0], atol=0.5)


@pytest.mark.parametrize("format", ["onnx", "openvino", "torch"])
def test_class_maps_are_exported_for_images_of_any_size(format: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = hubel.create_model("fcn16s", num_classes=3, image_size=64, backbone="resnet18").eval()
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.normal_()
    metadata = replace(describe(model), classes=CLASSES)
    exported = hubel.export(model, format, out=tmp_path / "out", metadata=metadata)
    _, run = BACKENDS[format].open_file(exported.path, threads=1)
    for size in ((33, 97), (120, 64)):
        pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
        with torch.inference_mode():
            images = metadata.preprocessing.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            scores = functional.interpolate(model(images), size, mode="bilinear", align_corners=False)
        found = run(pixels)["class_map"]
        assert found.shape == (2, *size) and (found == scores.argmax(1).numpy()).mean() > 0.999
    (shown,) = hubel.Predictor(exported.path)([sample_photographs()[0]])  # at the size of its training
    assert shown.classes.shape == (427, 640)


@pytest.mark.parametrize(("format", "resize"), [("onnx", "stretch"), ("onnx", "fit"), ("openvino", "fit")])
def test_a_class_map_is_exported(format: str, resize: str, tmp_path: Path) -> None:
    """The example prints the fraction of the pixels of each class; the reference is the module in plain torch."""
    torch.manual_seed(0)
    model = hubel.create_model("fcn32s", num_classes=3, image_size=64, backbone="mobilenet_v2").eval()
    with torch.no_grad():
        for parameter in model.head.parameters():  # so that classes differ from place to place
            parameter.normal_()
    described = describe(model)
    metadata = replace(described, classes=CLASSES, preprocessing=replace(described.preprocessing, resize=resize))
    exported = hubel.export(model, format, out=tmp_path / "out", metadata=metadata)
    assert (exported.task, exported.outputs) == ("segment", ("class_map",))
    Image.open(sample_photographs()[0]).save(tmp_path / "it.png")
    output = run_without_hubel(exported.path.with_name("use.py"), [tmp_path / "it.png"])
    pixels = metadata.preprocessing.pixels(Image.open(sample_photographs()[0]))
    with torch.inference_mode():
        images = metadata.preprocessing.normalize(torch.from_numpy(pixels).permute(2, 0, 1)[None])
        class_map = model.predictions(model(images), (64, 64))["class_map"]
    if resize == "fit":  # the photograph of 640 × 427 pixels is 43 high, below ten rows that are no part of it
        class_map = class_map[:, 10:53]
    fractions = {name: float((class_map == index).float().mean()) for index, name in enumerate(CLASSES)}
    printed = {name: float(value) for _, name, value in (line.split("  ") for line in output.splitlines())}
    assert printed == pytest.approx({name: part for name, part in fractions.items() if part >= 0.01}, abs=2e-3)


@pytest.mark.parametrize(
    "format", ["openvino", *(pytest.param(each, marks=pytest.mark.slow) for each in ("onnx", "torch"))]
)
def test_proposals_and_their_suppression_are_in_the_graph(format: str, tmp_path: Path) -> None:
    """For batches of any size, with as many proposals in each image as there are: none in black."""
    model, pixels = two_stage_detector(), two_stage_pixels()
    exported = hubel.export(model, format, out=tmp_path / "out")
    _, run = BACKENDS[format].open_file(exported.path)
    ready = describe(model).preprocessing
    with torch.inference_mode():
        outputs = model(ready.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
        expected = model.predictions(outputs, (96, 96))
    assert not outputs["proposals"][2].any() and outputs["proposals"][:2].any(-1).sum() == 20
    for images in (slice(0, 1), slice(2, 3), slice(0, 3)):
        found = run(np.ascontiguousarray(pixels[images]))
        for boxes, scores, index in zip(found["boxes"], found["scores"], range(3)[images], strict=True):
            ours = select_objects(boxes, scores, (96, 96), Thresholds())
            wanted = select_objects(
                *(expected[name][index].numpy() for name in ("boxes", "scores")), (96, 96), Thresholds()
            )
            assert (len(wanted.scores) > 5) is (index < 2)
            np.testing.assert_allclose(ours.scores, wanted.scores, atol=1e-4)
            np.testing.assert_allclose(ours.boxes, wanted.boxes, atol=0.1)
            assert ours.labels.tolist() == wanted.labels.tolist()


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("fasterrcnn_vgg16", "openvino"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("fasterrcnn_resnet50_c4", "openvino"),
                ("fasterrcnn_vgg16", "onnx"),
                ("fasterrcnn_resnet50_c4", "onnx"),
                ("fasterrcnn_vgg16", "torch"),
            )
        ),
    ],
)
def test_editions_on_one_map_find_what_torch_finds(name: str, format: str, tmp_path: Path) -> None:
    """Regions that are pooled alike have equal scores, whose order is chance: objects are compared in any order."""
    model, pixels = two_stage_detector(name), two_stage_pixels()
    ready, backend = describe(model).preprocessing, BACKENDS[format]
    graph = NormalizedModel(model, ready)
    facts = {"classes": ["a", "b", "c"], "outputs": list(graph.output_names), "inference_precision": "f32"}
    backend.save(backend.convert(graph), tmp_path, facts, half=False)
    _, run = backend.open_file(tmp_path / backend.export_file)
    with torch.inference_mode():
        outputs = model(ready.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2)))
        expected = model.predictions(outputs, (96, 96))
    for images in (slice(2, 3), slice(0, 3)):
        found = run(np.ascontiguousarray(pixels[images]))
        for boxes, scores, index in zip(found["boxes"], found["scores"], range(3)[images], strict=True):
            row, label = np.nonzero(expected["scores"][index].numpy() > 0.1)
            assert len(row) > (0 if index == 2 else 10)
            distance = np.abs(expected["boxes"][index].numpy()[row, None] - boxes).max(2)
            differs = np.abs(expected["scores"][index].numpy()[row, label, None] - scores[:, label].T) > 1e-4
            assert (distance + 1000 * differs).min(1).max() < 0.1


@pytest.mark.parametrize("channels", [3, 1])
def test_the_example_pads_what_was_trained_on_padded_images(channels: int, tmp_path: Path) -> None:
    """A detector's boxes go back to the image."""
    torch.manual_seed(0)
    letterbox = {"resize": "fit", "fill": 127.5, "interpolation": "bilinear-2x2" if channels == 1 else "bilinear"}
    model = hubel.create_model("yolo_v3_tiny", 3, image_size=64, in_channels=channels).eval()
    described = describe(model)
    ready = replace(described.preprocessing, **letterbox)
    metadata = replace(described, classes=CLASSES, preprocessing=ready)
    exported = hubel.export(model, "onnx", out=tmp_path / "out", metadata=metadata)
    image = tmp_path / "wide.png"
    Image.open(sample_photographs()[0]).resize((300, 130)).save(image)
    (found,) = hubel.Predictor(model, metadata=metadata, engine="torch", precision="fp32")([image])
    lines = [line.split("  ") for line in run_without_hubel(exported.path.with_name("use.py"), [image]).splitlines()]
    assert isinstance(found, hubel.Detections) and len(found) > 5
    best = 5
    assert [name for _, name, *_ in lines[:best]] == list(found.names[:best])
    boxes = np.array([[float(side) for side in box.split()] for *_, box in lines[:best]])
    np.testing.assert_allclose(boxes.clip(0, [300, 130] * 2), found.boxes[:best], atol=0.3)
