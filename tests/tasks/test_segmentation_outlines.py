"""A run from the outlines of a COCO file to a network that segments."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import hubel
from hubel.errors import DataError
from hubel.training.evaluate import evaluate
from hubel.training.train import train

SIDE = 96


def discs(root: Path, counts: dict[str, int]) -> Path:
    """Red discs on grey, in a COCO file a split."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIDE, :SIDE]
    for split, count in counts.items():
        images, annotations = [], []
        for number in range(count):
            pixels = rng.integers(90, 130, (SIDE, SIDE, 3)).astype(np.uint8)
            cx, cy, radius = *rng.integers(30, SIDE - 30, 2), rng.integers(18, 28)
            pixels[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = (210, 40, 40)
            (root / split).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(root / split / f"{number}.png")
            angles = np.linspace(0, 2 * np.pi, 32, endpoint=False)
            ring = np.stack([cx + 0.5 + radius * np.cos(angles), cy + 0.5 + radius * np.sin(angles)], 1)
            box = [float(cx - radius), float(cy - radius), 2.0 * radius, 2.0 * radius]
            images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
            row = {"category_id": 7, "bbox": box, "segmentation": [ring.ravel().tolist()], "iscrowd": 0}
            annotations.append({"id": number, "image_id": number, **row})
        content = {"images": images, "annotations": annotations, "categories": [{"id": 7, "name": "disc"}]}
        (root / split / "_annotations.coco.json").write_text(json.dumps(content))
    return root


def test_a_run_on_coco_polygons(tmp_path: Path) -> None:
    data = discs(tmp_path / "discs", {"train": 16, "val": 4})
    options = dict(
        image_size=SIDE, epochs=3, head_epochs=0, batch=2, average=0, learning_rate=3e-3, precision="float32", threads=1
    )
    result = train(data, out=tmp_path / "run", task="segment", augmentation="flip", seed=0, **options)
    metrics = result.to_json()
    assert [row["name"] for row in metrics["per_class"]] == ["background", "disc"]
    assert metrics["metrics"]["mean_iou"] > 0.6
    again = evaluate(tmp_path / "run", data)
    assert again.to_json()["metrics"]["mean_iou"] == pytest.approx(metrics["metrics"]["mean_iou"])
    (found,) = hubel.Predictor(tmp_path / "run", engine="torch", precision="fp32")([str(data / "val" / "0.png")])
    red = np.asarray(Image.open(data / "val" / "0.png"))[..., 1] < 60
    assert (found.classes == red).mean() > 0.85


def test_boxes_alone_are_refused(tmp_path: Path) -> None:
    data = discs(tmp_path / "discs", {"train": 3, "val": 2})
    for file in data.glob("*/*.json"):
        content = json.loads(file.read_text())
        for row in content["annotations"]:
            del row["segmentation"]
        file.write_text(json.dumps(content))
    with pytest.raises(DataError, match="has 5 boxes, and no outlines or masks"):
        train(data, out=tmp_path / "run", task="segment")
