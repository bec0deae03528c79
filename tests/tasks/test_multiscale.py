"""Multi-scale training: images and boxes by torchvision's resize, sizes that last ten batches, networks of one size."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from hubel.cli.main import main
from hubel.config import make_config
from hubel.models import create_model, describe
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.tasks.detection.task import DetectionData, draw_size, resized
from synthetic_shapes import painted

HEIGHT, WIDTH = 96, 160


def batch() -> tuple[torch.Tensor, DetectionTargets]:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, HEIGHT, WIDTH, generator=generator)
    boxes = torch.tensor([[10.0, 20.0, 30.0, 90.0], [0.0, 0.0, 160.0, 96.0]])
    objects = [ObjectTargets(boxes, torch.tensor([1, 0])), ObjectTargets(boxes[:0], torch.zeros(0, dtype=torch.int64))]
    return images, DetectionTargets(objects, (HEIGHT, WIDTH))


@pytest.mark.parametrize("size", [(128, 224), (64, 96), (HEIGHT, WIDTH)])
def test_images_and_boxes_are_torchvisions(size: tuple[int, int]) -> None:
    images, targets = batch()
    larger, changed = resized(images, targets, size)
    boxes = tv_tensors.BoundingBoxes(targets.objects[0].boxes, format="XYXY", canvas_size=(HEIGHT, WIDTH))
    resize = v2.Resize(size, antialias=False)
    torch.testing.assert_close(larger, resize(images))
    torch.testing.assert_close(changed.objects[0].boxes, torch.as_tensor(resize(boxes)), check_dtype=False)
    assert changed.objects[0].labels.tolist() == [1, 0]
    assert (changed.size, changed.objects[1].boxes.shape) == (size, (0, 4))


def test_every_size_in_reach_is_as_likely() -> None:
    np.random.seed(0)
    drawn = [draw_size((416, 416)) for _ in range(3000)]
    sides, counts = np.unique([height for height, _ in drawn], return_counts=True)
    assert sides.tolist() == list(range(320, 641, 32))
    assert counts.min() > 0.8 * 3000 / len(sides) and counts.max() < 1.2 * 3000 / len(sides)
    assert all(height == width for height, width in drawn)


@pytest.mark.parametrize("size", [(320, 640), (40, 40), (32, 500)])
def test_sizes_are_multiples_of_the_stride_and_keep_the_shape(size: tuple[int, int]) -> None:
    np.random.seed(0)
    for _ in range(100):
        height, width = draw_size(size)
        assert height % 32 == width % 32 == 0 and height > 0
        assert abs(width - height * size[1] / size[0]) <= 16 or width == 32


def test_a_size_lasts_ten_batches_and_depends_on_the_epochs_seed_alone(tmp_path: Path) -> None:
    model = create_model("ssd", 2, image_size=128, backbone="mobilenet_v3_small")
    config = make_config(data=tmp_path, task="detect", model="ssd", augmentation=("multiscale",))
    data = DetectionData(config, describe(model), 128, ())
    images = torch.rand(1, 3, 128, 128)
    targets = DetectionTargets([ObjectTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))], (128, 128))

    def epoch(seed: int) -> list[tuple[int, int]]:
        np.random.seed(seed)
        return [data.blend(images, targets, step)[1].size for step in range(80)]

    sizes = epoch(1)
    assert all(len(set(sizes[first : first + 10])) == 1 for first in range(0, 80, 10))
    assert len(set(sizes)) > 1
    assert epoch(2) != sizes
    assert epoch(1) == sizes
    plain = DetectionData(make_config(data=tmp_path, task="detect", model="ssd"), describe(model), 128, ())
    assert plain.blend(images, targets, 0) == (images, targets)


def test_it_trains(tmp_path: Path) -> None:
    painted(tmp_path / "shapes", {"train": 12, "val": 4})
    options = ["--model", "ssd", "--backbone", "mobilenet_v3_small", "--image-size", "64", "--epochs", "1"]
    more = ["--batch", "4", "--augment", "flip,multiscale", "--out", str(tmp_path / "run"), "--from-scratch"]
    more += ["--precision", "float32"]
    with contextlib.suppress(SystemExit):
        main(["train", str(tmp_path / "shapes"), *options, *more])
    report = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "multi-scale training" in report


@pytest.mark.parametrize("model", ["yolo_v1_tiny", "sliding_window"])
def test_networks_of_one_size_are_refused(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    painted(tmp_path / "shapes", {"train": 12, "val": 4})
    with pytest.raises(SystemExit) as ended:
        main(["train", str(tmp_path / "shapes"), "--model", model, "--augment", "multiscale", "--from-scratch"])
    error = capsys.readouterr().err
    assert ended.value.code == 2 and f"--augment multiscale: {model} is made for images of one size" in error
