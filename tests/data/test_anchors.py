"""Anchors by k-means under 1 - IoU: the best division of a few boxes, found by trying all; the command."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from hubel.boxes import shape_iou
from hubel.cli.main import app, main
from hubel.data.anchors import cluster_anchors
from hubel.errors import DataError


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    common = min(a[0], b[0]) * min(a[1], b[1])
    return common / (a[0] * a[1] + b[0] * b[1] - common)


def best_stable_division(boxes: list[tuple[float, float]], count: int) -> float:
    """Largest mean IoU with the mean shapes of any division in which every box is nearest to its own part's mean."""
    best = 0.0
    for part_of in itertools.product(range(count), repeat=len(boxes)):
        if len(set(part_of)) < count:
            continue
        members = [[box for box, part in zip(boxes, part_of, strict=True) if part == index] for index in range(count)]
        means = [tuple(sum(side) / len(part) for side in zip(*part, strict=True)) for part in members]
        overlaps = [[overlap(box, mean) for mean in means] for box in boxes]
        if all(row[part] == max(row) for row, part in zip(overlaps, part_of, strict=True)):
            best = max(best, sum(map(max, overlaps)) / len(boxes))
    return best


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_best_division_is_found(seed: int, count: int) -> None:
    draw = random.Random(seed)
    boxes = [(draw.uniform(5, 200), draw.uniform(5, 200)) for _ in range(7)]
    found = cluster_anchors(np.array(boxes), count)
    assert found.mean_iou > best_stable_division(boxes, count) - 1e-9
    # What it says of itself is true.
    nearest = [max(overlap(box, (width, height)) for width, height in found.sizes.tolist()) for box in boxes]
    assert found.mean_iou == pytest.approx(sum(nearest) / len(boxes))


def test_clusters_that_are_apart_are_told_apart() -> None:
    generator = np.random.default_rng(0)
    centres = np.array([[10, 10], [30, 90], [100, 40], [200, 200]], float)
    boxes = np.concatenate([centre * generator.uniform(0.97, 1.03, (50, 2)) for centre in centres])
    assert cluster_anchors(boxes, 4).sizes == pytest.approx(centres, rel=0.02)


def test_small_boxes_count_as_much_as_large_ones() -> None:
    """Under the Euclidean distance, the small boxes would be one cluster: that is why the paper takes the IoU."""
    boxes = np.array([[2, 2]] * 20 + [[8, 8]] * 20 + [[300, 300]] * 20 + [[330, 330]] * 20, float)
    assert cluster_anchors(boxes, 3).sizes[:2] == pytest.approx(np.array([[2, 2], [8, 8]], float))


def test_more_anchors_fit_better() -> None:
    boxes = np.random.default_rng(1).uniform(5, 300, (200, 2))
    fits = [cluster_anchors(boxes, count).mean_iou for count in (1, 3, 5, 9, 15)]
    assert fits == sorted(fits)
    assert cluster_anchors(boxes[:9], 9).mean_iou == pytest.approx(1)


def test_too_few_shapes_are_an_error() -> None:
    with pytest.raises(DataError, match="3 anchors cannot be found among 2 different shapes") as raised:
        cluster_anchors(np.array([[5, 6], [5, 6], [7, 8]]), 3)
    assert "--count 2" in raised.value.hint
    with pytest.raises(DataError, match="among 0 different shapes"):
        cluster_anchors(np.zeros((0, 2)), 1)


def test_shapes_overlap_as_boxes_with_a_common_corner() -> None:
    a, b = np.array([[10, 20], [5, 5]], float), np.array([[20, 10], [5, 5], [10, 20]], float)
    assert shape_iou(a, b) == pytest.approx(np.array([[1 / 3, 25 / 200, 1], [25 / 200, 1, 25 / 200]]))


def write_yolo(folder: Path, sizes: list[tuple[float, float]]) -> None:
    """Images of 200 × 100 pixels with one box each, in YOLO's format; the validation image has a huge one."""
    from PIL import Image

    for split, boxes in (("train", sizes), ("val", [(1.0, 1.0)])):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number, (width, height) in enumerate(boxes):
            Image.new("RGB", (200, 100)).save(folder / "images" / split / f"{number}.png")
            (folder / "labels" / split / f"{number}.txt").write_text(f"0 0.5 0.5 {width} {height}\n")
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [thing]\n")


def test_the_command_prints_what_a_cfg_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_yolo(tmp_path, [(0.1, 0.2), (0.1, 0.2), (0.5, 0.25), (0.5, 0.25)])
    command = ["data", "anchors", str(tmp_path), "--count", "2", "--image-size", "320"]
    assert CliRunner().invoke(app, command).stdout.splitlines()[0] == "anchors = 32,64,  160,80"
    assert json.loads(CliRunner().invoke(app, [*command, "--stride", "32", "--json"]).stdout) == {
        "source": str(tmp_path),
        "boxes": 4,
        "image_size": 320,
        "stride": 32,
        "anchors": [[1, 2], [5, 2.5]],
        "mean_iou": 1,
    }


def test_class_folders_have_no_boxes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.png")
    with pytest.raises(SystemExit) as ended:
        main(["data", "anchors", str(tmp_path)])
    assert ended.value.code == 1 and "no boxes" in capsys.readouterr().err
