"""Crowds through reading and augmentation: painted images judge where the regions to be ignored come to lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hubel.data.loader import BatchDataset
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import UNLABELLED, Sample
from hubel.data.transforms.object_transform import ObjectTransform, WindowSampler
from hubel.data.transforms.pipeline import Transform
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.tasks.detection.task import resized

BOXES = np.array([[30, 40, 90, 130], [150, 60, 310, 220], [120, 100, 180, 160]], np.float32)
FIT = Preprocessing(96, 128, mean=(0.0, 0.0, 0.0), resize="fit")
CROP = Preprocessing(96, 96, mean=(0.0, 0.0, 0.0), resize="crop", crop_fraction=1.0)


def samples(folder: Path) -> list[Sample]:
    """Black images with crowds in white, and an object that is not painted."""
    pixels = np.zeros((240, 320, 3), np.uint8)
    for x1, y1, x2, y2 in BOXES[1:].astype(int):
        pixels[y1:y2, x1:x2] = 255
    Image.fromarray(pixels).save(folder / "a.png")
    crowd, zeros = np.array([False, True, True]), np.zeros(3, np.int64)
    one = Sample(folder / "a.png", UNLABELLED, 320, 240, BOXES, zeros, crowd, zeros > 0, np.ones(3, np.float32))
    return [one] * 4


@pytest.mark.parametrize(
    ("transform", "least"),
    [
        (ObjectTransform(FIT), 2),
        (ObjectTransform(CROP), 2),
        (ObjectTransform(FIT, ["zoom", "crop", "flip"]), 1),
        (ObjectTransform(CROP, ["scale", "flip"]), 1),
        (ObjectTransform(FIT, ["mosaic", "flip"]), 1),
        (WindowSampler(Preprocessing(96, 128, resize="stretch"), 32, ["flip"]), 0),
    ],
    ids=["fit", "crop", "ssd", "scale", "mosaic", "windows"],
)
def test_regions_cover_what_is_painted(transform: Transform, least: int, tmp_path: Path) -> None:
    batch = BatchDataset(samples(tmp_path), transform, 0).__getitems__(
        [(epoch, k) for epoch in range(4) for k in range(4)]
    )
    seen = 0
    for image, target in zip(batch.pixels[:, 0].numpy(), batch.targets, strict=True):
        height, width = image.shape
        assert least <= len(target.ignored) <= 8 and target.ignored.dtype == np.float32
        assert (target.ignored >= 0).all() and (target.ignored <= (width, height, width, height)).all()
        covered = np.zeros(image.shape, bool)
        rim = 0.0
        for x1, y1, x2, y2 in target.ignored.tolist():
            covered[round(y1) : round(y2), round(x1) : round(x2)] = True
            rim += 2 * (x2 - x1 + y2 - y1) + 4
        assert ((image > 127) != covered).sum() <= rim / 2  # but for half a pixel around each
        seen += int(covered.sum())
        assert (target.labels == 0).all() and len(target.boxes) <= 4
    assert seen > 1000


def test_regions_of_other_sizes() -> None:
    boxes = torch.tensor([[8.0, 16, 40, 48]])
    given = ObjectTargets(boxes, torch.tensor([0]), boxes + 4)
    _, targets = resized(torch.zeros(1, 3, 64, 64), DetectionTargets([given], (64, 64)), (96, 128))
    assert targets.objects[0].ignored is not None
    torch.testing.assert_close(targets.objects[0].ignored, torch.tensor([[24.0, 30, 88, 78]]))
