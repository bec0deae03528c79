"""Predicting with detectors, through every engine: what torchvision finds, in pixels of the original."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from typer.testing import CliRunner

import hubel
from hubel.cli.main import app
from hubel.data.image_io import read_image
from hubel.data.sources import sample_photographs
from hubel.errors import DataError, UsageError
from hubel.tasks.decoding import Thresholds
from hubel.tasks.detection.decode import select_objects
from reference_detectors import CLASSES, saved_detector, torchvision_detector

CONF, IOU = 0.5, 0.45


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Converted networks of this file are kept apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HUBEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def theirs() -> torch.nn.Module:
    """torchvision's network, with the thresholds of these tests."""
    network = torchvision_detector()
    network.score_thresh, network.nms_thresh = CONF, IOU
    network.topk_candidates, network.detections_per_img = 10_000, 300
    return network


@pytest.fixture(scope="module")
def folder(theirs: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights as a saved model of ours."""
    return saved_detector(theirs, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def photograph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that lies on its side in the file, so that its rotation has to be undone."""
    path = tmp_path_factory.mktemp("photograph") / "flower.png"
    image = Image.open(sample_photographs()[1]).crop((0, 0, 600, 420))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    return path


def expected(theirs: torch.nn.Module, photograph: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes in pixels of the upright photograph, scores, labels: torchvision's for the same 320 × 320 pixels."""
    upright = read_image(photograph)
    assert upright.size == (420, 600)
    pixels = np.asarray(upright.resize((320, 320), Image.Resampling.BILINEAR))
    with torch.inference_mode():
        (found,) = theirs([torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255])
    boxes = found["boxes"].numpy() * np.array([420 / 320, 600 / 320] * 2)
    return boxes, found["scores"].numpy(), found["labels"].numpy() - 1


@pytest.mark.parametrize("engine", ["torch", "openvino", pytest.param("onnx", marks=pytest.mark.slow)])
def test_objects_are_torchvision_s(engine: str, theirs: torch.nn.Module, folder: Path, photograph: Path) -> None:
    boxes, scores, labels = expected(theirs, photograph)
    assert 20 < len(scores) < 300 and len(set(labels.tolist())) == 3
    predict = hubel.Predictor(folder, engine=engine, precision="fp32", conf=CONF, iou=IOU)
    (found,) = predict([photograph])
    assert isinstance(found, hubel.Detections)
    assert (found.width, found.height, found.source) == (420, 600, str(photograph))
    np.testing.assert_allclose(found.scores, scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, boxes, atol=0.05)
    assert found.labels.tolist() == labels.tolist()
    assert found.names == tuple(CLASSES[label] for label in labels)


def test_command_prints_and_draws_them(theirs: torch.nn.Module, folder: Path, photograph: Path, tmp_path: Path) -> None:
    boxes, scores, labels = expected(theirs, photograph)
    more = ["--model", str(folder), "--conf", str(CONF), "--iou", str(IOU), "--engine", "torch", "--precision", "fp32"]
    done = CliRunner().invoke(app, ["predict", str(photograph), *more, "--json", "--save", str(tmp_path / "out")])
    assert done.exit_code == 0, done.stderr
    row = json.loads(done.stdout)
    assert {key: row[key] for key in ("source", "width", "height", "model", "task")} == {
        "source": str(photograph),
        "width": 420,
        "height": 600,
        "model": str(folder),
        "task": "detect",
    }
    assert [each["index"] for each in row["objects"]] == labels.tolist()
    assert [each["name"] for each in row["objects"]] == [CLASSES[label] for label in labels]
    np.testing.assert_allclose([each["box"] for each in row["objects"]], boxes, atol=0.06)
    drawn = np.asarray(Image.open(tmp_path / "out" / "flower.jpg").convert("RGB")).astype(int)
    plain = np.asarray(read_image(photograph)).astype(int)
    assert drawn.shape == plain.shape
    x1, y1, x2, _ = boxes[int(scores.argmax())].round().astype(int)
    changed = np.abs(drawn - plain).max(axis=2) > 60
    middle = slice((3 * x1 + x2) // 4, (x1 + 3 * x2) // 4)
    assert changed[max(0, y1 - 2) : y1 + 4, middle].any(axis=0).mean() > 0.9  # the upper side of the best box
    line = CliRunner().invoke(app, ["predict", str(photograph), *more]).stdout
    counts = Counter(CLASSES[label] for label in labels)
    assert sorted(line.removeprefix(f"{photograph}  ").strip().split(", ")) == sorted(
        f"{count} {name}" for name, count in counts.items()
    )
    details = CliRunner().invoke(app, ["predict", str(photograph), *more, "--verbose"]).stdout.splitlines()
    assert len(details) == 1 + len(scores)
    assert details[1].startswith(f"  {CLASSES[labels[0]]} {scores[0]:.0%}  at ")
    nothing = CliRunner().invoke(app, ["predict", str(photograph), *more[:2], "--conf", "0.99", "--engine", "torch"])
    assert nothing.stdout == f"{photograph}  nothing found\n"


def test_a_converted_detector_needs_no_torch(folder: Path, photograph: Path) -> None:
    program = """
import sys, hubel
(found,) = hubel.Predictor(sys.argv[1], engine=sys.argv[3], precision="fp32", conf=0.5)([sys.argv[2]])
print(len(found), "torch" in sys.modules)
"""
    first, again = (
        subprocess.run(
            [sys.executable, "-c", program, str(folder), str(photograph), engine],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        for engine in ("openvino", "auto")
    )
    assert first[0] == again[0] != "0"
    assert again[1] == "False"


def test_what_detectors_are_not_asked_is_refused(folder: Path, photograph: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="conf is 25"):
        hubel.Predictor(folder, conf=25)
    with pytest.raises(DataError, match="held-out images; measuring a loss of 0.01 takes 100"):
        hubel.Predictor(folder, precision="int8", calibrate=photograph.parent)
    done = CliRunner().invoke(app, ["predict", str(photograph), "--ray", "--out", str(tmp_path), "--conf", "0.5"])
    assert isinstance(done.exception, UsageError) and "--conf" in done.exception.message


def test_suppression_of_all_classes_together(folder: Path, tmp_path: Path) -> None:
    """torchvision's boxes of all classes before its suppression, and its ``nms`` that knows no classes."""
    everything = torchvision_detector()
    everything.score_thresh, everything.nms_thresh = 0.3, 2.0
    everything.topk_candidates = everything.detections_per_img = 100_000
    image = Image.open(sample_photographs()[1]).convert("RGB").resize((320, 320))
    image.save(tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text(
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.png,320,320,cat,10,10,60,60\n"
    )
    with torch.inference_mode():
        (dense,) = everything([torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255])
    kept = torchvision.ops.nms(dense["boxes"], dense["scores"], 0.6)[:100]  # before scores are equal but for rounding
    predict = hubel.Predictor(folder, engine="torch", precision="fp32", conf=0.3, nms="agnostic")
    (found,) = predict(tmp_path / "a.png")
    assert found.labels[:100].tolist() == (dense["labels"][kept] - 1).tolist() and len(set(found.labels[:100])) > 1
    np.testing.assert_allclose(found.boxes[:100], dense["boxes"][kept], atol=0.05)
    more = ["--engine", "torch", "--precision", "fp32", "--conf", "0.3", "--nms", "agnostic", "--json"]
    done = CliRunner().invoke(app, ["predict", str(tmp_path / "a.png"), "--model", str(folder), *more])
    assert [each["index"] for each in json.loads(done.stdout)["objects"]] == found.labels.tolist()
    scored = hubel.evaluate(folder, tmp_path, split="all", device="cpu", nms="agnostic").evaluator.images[0].found
    np.testing.assert_allclose(scored.boxes, dense["boxes"][kept], atol=0.05)
    usual = hubel.evaluate(folder, tmp_path, split="all", device="cpu").evaluator.images[0].found
    assert usual.boxes.shape == (100, 4) and not np.array_equal(usual.boxes, scored.boxes)
    for call in (hubel.Predictor, partial(hubel.evaluate, data=tmp_path)):
        with pytest.raises(UsageError, match="unknown suppression 'hard'"):
            call(folder, nms="hard")
        with pytest.raises(UsageError, match=r"--nms soft would lower the scores of --tta twice"):
            call(folder, nms="soft", tta=True)
        with pytest.raises(UsageError, match="efficientnet_lite0 is not a detector"):
            call("efficientnet_lite0", nms="soft")


def test_suppression_stops_at_enough_and_keeps_boxes_without_area() -> None:
    """As torchvision does: two boxes without area have no overlap, and classes do not suppress each other."""
    anchors = np.array([[10, 10, 20, 20], [10, 10, 20, 20], [10, 10, 20, 20], [400, 10, 420, 20], [450, 9, 470, 20]])
    odds = np.array([[1, 8, 1], [1, 7, 1], [1, 1, 6], [1, 5, 1], [1, 4, 1]], np.float32)
    scores = (odds / odds.sum(1, keepdims=True))[:, 1:]
    found = select_objects(anchors.astype(np.float32), scores, (300, 300), Thresholds(0.3))
    boxes, label = torch.from_numpy(anchors).float().clamp(max=300), torch.tensor([0, 0, 1, 0, 0])
    kept = torchvision.ops.batched_nms(boxes, torch.tensor([0.8, 7 / 9, 0.75, 5 / 7, 4 / 6]), label, 0.6)
    assert found.labels.tolist() == label[kept].tolist()
    np.testing.assert_allclose(found.boxes, boxes[kept])
    thresholds = Thresholds(0.3, max_detections=2)
    assert len(select_objects(anchors.astype(np.float32), scores, (300, 300), thresholds).scores) == 2


@pytest.mark.parametrize("name", ["standard", "agnostic", "diou", "soft", "soft-linear"])
def test_each_suppression_selects_by_its_own_rule(name: str) -> None:
    """Two classes on the same place, two that overlap the first by an IoU of 5/7 and of 0.54, one far away."""
    rows = [[0, 0, 60, 20], [0, 0, 60, 20], [0, 0, 60, 28], [6, 8, 60, 20], [200, 0, 260, 20]]
    scores = np.zeros((5, 2), np.float32)
    scores[range(5), [0, 1, 0, 0, 0]] = 0.9, 0.8, 0.6, 0.7, 0.5
    found = select_objects(np.array(rows, np.float32), scores, (300, 300), Thresholds(0.3, 0.535, nms=name))
    by_hand = {
        "standard": [(0, 0.9), (1, 0.8), (0, 0.5)],
        "agnostic": [(0, 0.9), (0, 0.5)],
        # The centre of the fourth is 3 and 4 pixels off, on a diagonal of √4000: 0.54 - 25/4000 = 0.534.
        "diou": [(0, 0.9), (1, 0.8), (0, 0.7), (0, 0.5)],
        "soft": [(0, 0.9), (1, 0.8), (0, 0.5), (0, 0.7 * math.exp(-(0.54**2) / 0.5))],
        "soft-linear": [(0, 0.9), (1, 0.8), (0, 0.5), (0, 0.7 * (1 - 0.54))],
    }
    assert found.labels.tolist() == [label for label, _ in by_hand[name]]
    assert found.scores.tolist() == pytest.approx([score for _, score in by_hand[name]])
    with pytest.raises(UsageError, match="unknown suppression 'hard'"):
        Thresholds(nms="hard")
