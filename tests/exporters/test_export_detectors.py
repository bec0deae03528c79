"""Exported detectors: what the files compute, and what their example finds without hubel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hubel.exporters.wrappers import check_detections
from PIL import Image
from test_export import run_without_hubel
from torchvision.models.detection.image_list import ImageList

import hubel
from hubel.data.sample_images import sample_photographs
from hubel.errors import ModelError, UsageError
from hubel.exporters import export as exporting
from hubel.exporters.export import Exported
from hubel.exporters.parity import check_objects
from hubel.tasks.detection.decode import NMSConfig
from reference_detectors import CLASSES, saved_detector, torchvision_detector


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    return torchvision_detector()


@pytest.fixture(scope="module")
def folder(theirs: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_detector(theirs, tmp_path_factory.mktemp("model"))


def test_raw_outputs_and_anchors_are_torchvision_s(theirs: torch.nn.Module, folder: Path, tmp_path: Path) -> None:
    exported = hubel.export(folder, "onnx", out=tmp_path / "out")
    assert (exported.task, exported.outputs) == ("detect", ("scores", "offsets"))
    onnx.checker.check_model(onnx.load(exported.path))
    photograph = Image.open(sample_photographs()[0]).resize((320, 320))
    pixels = np.stack([np.asarray(photograph), np.asarray(photograph)[::-1]])
    session = onnxruntime.InferenceSession(exported.path)
    scores, offsets = session.run(["scores", "offsets"], {"pixels": pixels})
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        maps = list(theirs.backbone(images).values())
        expected = theirs.head(maps)
        anchors = theirs.anchor_generator(ImageList(images, [(320, 320)] * 2), maps)[0]
    np.testing.assert_allclose(scores, expected["cls_logits"], atol=2e-3, rtol=1e-3)
    np.testing.assert_allclose(offsets, expected["bbox_regression"], atol=2e-3, rtol=1e-3)
    about = session.get_modelmeta().custom_metadata_map
    assert json.loads(about["classes"]) == CLASSES
    np.testing.assert_allclose(json.loads(about["anchors"]), anchors, atol=1e-3)
    _example_finds_what_hubel_finds(folder, exported, tmp_path)


@pytest.mark.parametrize("format", ["openvino", pytest.param("torch", marks=pytest.mark.slow)])
def test_example_finds_what_hubel_finds(format: str, folder: Path, tmp_path: Path) -> None:
    _example_finds_what_hubel_finds(folder, hubel.export(folder, format, out=tmp_path / "out"), tmp_path)


def _example_finds_what_hubel_finds(folder: Path, exported: Exported, tmp_path: Path) -> None:
    """On a photograph that lies on its side in the file."""
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = tmp_path / "rotated.png"
    Image.open(sample_photographs()[1]).crop((0, 0, 600, 420)).save(picture, exif=exif)
    (found,) = hubel.Predictor(folder, engine="torch", precision="fp32")([picture])
    assert isinstance(found, hubel.Detections) and len(found) > 20
    lines = [line.split("  ") for line in run_without_hubel(exported.path.with_name("use.py"), [picture]).splitlines()]
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
    exported = hubel.export(folder, format, out=tmp_path / "out", nms=True, conf=0.5, iou=0.45)
    assert exported.outputs == ("boxes", "scores", "labels")
    theirs.score_thresh, theirs.nms_thresh, theirs.topk_candidates = 0.5, 0.45, 10_000
    photograph = Image.open(sample_photographs()[1]).resize((320, 320), Image.Resampling.BILINEAR)
    photograph.save(tmp_path / "it.png")
    with torch.inference_mode():
        (found,) = theirs([torch.from_numpy(np.asarray(photograph).copy()).permute(2, 0, 1) / 255])
    said = run_without_hubel(exported.path.with_name("use.py"), [tmp_path / "it.png"])
    lines = [line.split("  ") for line in said.splitlines()]
    assert 20 < len(lines) == len(found["scores"])
    assert [name for _, name, *_ in lines] == [CLASSES[label - 1] for label in found["labels"]]
    np.testing.assert_allclose([float(score) for _, _, score, _ in lines], found["scores"], atol=1e-3)
    boxes = [[float(side) for side in box.split()] for *_, box in lines]
    np.testing.assert_allclose(boxes, found["boxes"], atol=0.2)


def test_found_objects_are_compared_both_ways() -> None:
    """One object with probability 0.8 where the anchor is; a file may neither lose it nor find another."""
    anchors, pixels = np.array([[100, 100, 150, 150]], np.float32), np.zeros((1, 320, 320, 3), np.uint8)
    raw = {"scores": np.log([[[1.0, 4.0]]]).astype(np.float32), "offsets": np.zeros((1, 1, 4), np.float32)}

    def judged(boxes: list[list[float]], scores: list[float], conf: float = 0.5) -> float:
        answers = {"boxes": np.array(boxes, np.float32).reshape(-1, 4), "scores": np.array(scores, np.float32)}
        answers["labels"] = np.zeros(len(scores), np.int64)
        return check_detections(lambda _: answers, pixels, raw, anchors, NMSConfig(conf), "fp16", "file")

    assert judged([[100, 100, 150, 151.6]], [0.79]) == pytest.approx(0.01, abs=1e-5)
    assert judged([], [], conf=0.79) == 0  # about as probable as the threshold
    for boxes, scores in (
        ([], []),
        ([[100, 100, 150, 160]], [0.8]),
        ([[100, 100, 150, 150], [0, 0, 9, 9]], [0.8, 0.7]),
    ):
        with pytest.raises(ModelError, match=f"finds {len(scores)} objects where the model finds 1"):
            judged(boxes, scores)


def test_suppression_is_refused_where_it_cannot_be(folder: Path) -> None:
    with pytest.raises(UsageError, match="finds no objects"):
        hubel.export("efficientnet_lite0", "onnx", nms=True)
    with pytest.raises(UsageError, match="bf16 cannot hold where boxes are"):
        hubel.export(folder, "openvino", "bf16", nms=True)
    with pytest.raises(UsageError, match="conf is 2"):
        hubel.export(folder, "onnx", nms=True, conf=2)


@pytest.mark.parametrize("what", ["scores", "offsets"])
def test_a_file_that_finds_something_else_never_appears(
    what: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = exporting._written

    def with_an_error(*arguments: Any) -> Any:
        run = written(*arguments)

        def changed(pixels: np.ndarray) -> dict[str, np.ndarray]:
            answers = run(pixels)
            answers[what] = answers[what].copy()
            answers[what][-1, 1500, 0] += 0.1
            return answers

        return changed

    monkeypatch.setattr(exporting, "_written", with_an_error)
    with pytest.raises(ModelError, match="differs from the model by up to"):
        hubel.export(folder, "openvino", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_agreement_is_judged_by_what_outputs_mean() -> None:
    """Half a pixel of 320 is 0.0016 of the side; a shift of all scores alike changes no probability."""
    anchors = np.array([[100, 100, 150, 150]], np.float32)
    pixels = np.zeros((1, 320, 320, 3), np.uint8)
    expected = {"scores": np.zeros((1, 1, 3), np.float32), "offsets": np.zeros((1, 1, 4), np.float32)}
    moved = {"scores": expected["scores"] + 5, "offsets": np.array([[[0.1, 0, 0, 0]]], np.float32)}
    found = check_objects(lambda _: moved, pixels, expected, anchors, "fp16", "file")
    assert found == pytest.approx(0.5 / 320, rel=1e-3)
    with pytest.raises(ModelError, match="of a box's place"):
        check_objects(lambda _: moved, pixels, expected, anchors, "fp32", "file")
