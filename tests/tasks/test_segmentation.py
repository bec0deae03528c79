"""Semantic segmentation: masks on disk, the network, a run from data to report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

import hubel
from hubel.data.mask_file import read_class_map
from hubel.data.mask_folder import read_mask_folder
from hubel.data.samples import IGNORE_INDEX
from hubel.errors import DataError, ImageError
from hubel.models import create_model
from hubel.models.segmentation.segmenter import SegmentationTargets
from hubel.training.evaluate import evaluate
from hubel.training.train import train


def painted(root: Path, counts: dict[str, int], side: int = 128) -> Path:
    """Discs (red) and squares (blue) on grey, with masks; a frame of the border is unlabelled."""
    rng = np.random.default_rng(0)
    (root).mkdir(parents=True)
    (root / "classes.txt").write_text("0 background\n1 disc\n2 square\n3 unlabelled(ignore)\n")
    y, x = np.mgrid[:side, :side]
    for split, count in counts.items():
        for kind in ("images", "masks"):
            (root / split / kind).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(90, 130, (side, side, 3)).astype(np.uint8)
            mask = np.zeros((side, side), np.uint8)
            for label, colour in ((1, (210, 40, 40)), (2, (40, 40, 210))):
                cx, cy = rng.integers(40, side - 40, 2)
                radius = int(rng.integers(26, 36))
                inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
                if label == 2:
                    inside = (abs(x - cx) < radius) & (abs(y - cy) < radius)
                pixels[inside], mask[inside] = colour, label
            mask[:2] = 3
            Image.fromarray(pixels).save(root / split / "images" / f"{number}.png")
            Image.fromarray(mask).save(root / split / "masks" / f"{number}.png")
    return root


def test_upsampling_is_a_transposed_convolution_with_bilinear_weights() -> None:
    torch.manual_seed(0)
    model = create_model("fcn32s", num_classes=3, backbone="resnet18", image_size=96).eval()
    nn.init.normal_(model.head.classifier.weight)
    scores = model(torch.randn(2, 3, 96, 128))
    assert scores.shape == (2, 3, 3, 4)
    ramp = 1 - (torch.arange(64) - 31.5).abs() / 32
    kernel = (ramp[:, None] * ramp).expand(3, 1, 64, 64)
    # Replicated borders: outside the maps, the nearest score counts.
    padded = functional.pad(scores, (1, 1, 1, 1), mode="replicate")
    expected = functional.conv_transpose2d(padded, kernel, stride=32, padding=16, groups=3)[:, :, 32:-32, 32:-32]
    found = model.predictions(scores, (96, 128))["class_map"]
    assert found.shape == (2, 96, 128)
    assert (found == expected.argmax(1)).float().mean() > 0.9999  # equal scores aside
    class_maps = torch.randint(0, 3, (2, 96, 128))
    class_maps[:, :10] = IGNORE_INDEX
    loss = model.losses(scores, SegmentationTargets(class_maps))["class"]
    torch.testing.assert_close(loss, functional.cross_entropy(expected, class_maps, ignore_index=255))


@pytest.mark.data
def test_camvid(data_folder: Path) -> None:
    data = read_mask_folder(data_folder / "camvid")
    assert data.classes[:2] == ("sky", "building") and len(data.classes) == 11
    assert {split: len(samples) for split, samples in data.splits.items()} == {"train": 367, "val": 101}
    sample = data.splits["val"][0]
    assert sample.class_map is not None
    class_map = sample.class_map.read()
    assert class_map.shape == (360, 480) == (sample.height, sample.width)
    assert set(np.unique(class_map)) <= {*range(11), 255}


def test_a_run_learns_shapes_and_is_scored_and_reported(tmp_path: Path) -> None:
    data = painted(tmp_path / "shapes", {"train": 24, "val": 6})
    result = train(
        data,
        out=tmp_path / "run",
        image_size=128,
        augmentation="flip",
        epochs=3,
        head_epochs=0,
        batch=2,
        average=0,
        precision="float32",
        threads=1,
        seed=0,
    )
    assert result.task.name == "segment"
    metrics = result.to_json()["metrics"]
    overlaps = {"mean_iou", "frequency_weighted_iou", "boundary_iou"}
    assert set(metrics) == {*overlaps, "pixel_accuracy", "mean_accuracy"}
    assert metrics["mean_iou"] > 0.55 and metrics["pixel_accuracy"] > 0.8
    again = evaluate(tmp_path / "run", data)
    assert again.to_json()["metrics"]["mean_iou"] == pytest.approx(metrics["mean_iou"])
    assert "mean IoU" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in (tmp_path / "run" / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 6 and all(0 <= row["mean_iou"] <= 1 for row in rows)
    predict = hubel.Predictor(tmp_path / "run", engine="torch", precision="fp32")
    (found,) = predict([str(data / "val" / "images" / "0.png")])
    for engine in ("onnx", "openvino"):
        (other,) = hubel.Predictor(tmp_path / "run", engine=engine, precision="fp32")(
            [str(data / "val" / "images" / "0.png")]
        )
        assert other.classes.dtype == found.classes.dtype and (other.classes == found.classes).mean() > 0.999
    truth = read_class_map(data / "val" / "masks" / "0.png")
    counted = truth < 3
    assert found.classes.shape == (128, 128) and (found.classes == truth)[counted].mean() > 0.7
    assert sum(found.shares.values()) == pytest.approx(1)
    (data / "val" / "masks" / "0.png").write_bytes(b"no PNG")
    Image.fromarray(truth[:50]).save(data / "val" / "masks" / "1.png")
    without = evaluate(tmp_path / "run", data)
    assert [fault.message.partition("masks/")[2][:5] for fault in without.failures] == ["0.png", "1.png"]
    assert without.to_json()["images"] == 4
    drawn = np.asarray(found.draw(Image.open(data / "val" / "images" / "0.png").convert("RGB")))
    assert drawn.shape[2] == 3


def test_what_is_wrong_is_reported(tmp_path: Path) -> None:
    data = painted(tmp_path / "shapes", {"train": 3, "val": 2})
    (data / "train" / "masks" / "0.png").write_bytes(b"no PNG")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(data / "train" / "masks" / "1.png")
    (data / "train" / "masks" / "2.png").unlink()
    with pytest.raises(DataError, match="no train image has a mask"):
        train(data, out=tmp_path / "run", backbone="resnet18", weights=None, image_size=64, epochs=1)
    with pytest.raises(ImageError, match=r"0\.png"):
        read_class_map(data / "train" / "masks" / "0.png")
    Image.new("RGB", (4, 4), (0, 90, 0)).save(tmp_path / "rgb.png")
    with pytest.raises(ImageError, match="mode is RGB"):
        read_class_map(tmp_path / "rgb.png")
    (data / "classes.txt").write_text("0 a\n2 b\n")
    with pytest.raises(DataError, match="line 2: index 2"):
        read_mask_folder(data)
    (data / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes\.txt"):
        read_mask_folder(data)
