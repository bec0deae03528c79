"""What a classifier of windows learns: which windows count, the loss by torch's own, crops, runs on painted discs."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch.nn import functional
from torchvision.ops import box_iou

import hubel
from hubel.boxes import decode
from hubel.data.annotated_images import read_annotated_images
from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation, write_annotations
from hubel.data.loader import BatchDataset
from hubel.data.preprocessing import Preprocessing
from hubel.data.transforms.object_transform import WindowSampler
from hubel.models.base import DetectionTargets, ObjectTargets
from hubel.models.detection.multibox import VARIANCES
from hubel.models.detection.sliding_window import IGNORE_INDEX, SlidingWindow, assign_windows

SIDE = 64


def painted(root: Path, counts: dict[str, int]) -> Path:
    """Red or blue discs on noise, one in each image, as Pascal VOC."""
    rng = np.random.default_rng(0)
    splits = {}
    for split, count in counts.items():
        images = []
        for number in range(count):
            image = Image.fromarray(rng.integers(90, 150, (SIDE, SIDE, 3), dtype=np.uint8))
            label, side = number % 2, int(rng.integers(30, 46))
            x, y = rng.integers(0, SIDE - side + 1, 2).tolist()
            colour = ((220, 40, 40), (40, 80, 220))[label]
            ImageDraw.Draw(image).ellipse((x, y, x + side - 1, y + side - 1), fill=colour)
            path = root.parent / "images" / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.save(path)
            images.append(AnnotatedImage(path, SIDE, SIDE, (Annotation(label, (x, y, x + side, y + side)),)))
        splits[split] = tuple(images)
    write_annotations(AnnotatedDataset(root.parent / "images", ("red", "blue"), splits), "voc", root)
    return root


def test_windows_show_what_is_near_their_centre_and_of_their_size() -> None:
    """An object of 80 × 20 counts as a square of 40 round its centre, 100, 60."""
    targets = ObjectTargets(torch.tensor([[60.0, 50, 140, 70]]), torch.tensor([1]))
    windows = torch.tensor(
        [
            [80.0, 40, 120, 80],  # the square
            [90.0, 40, 130, 80],  # a quarter beside: 30 · 40 / (3200 - 1200) = 0.6
            [85.0, 40, 141, 96],  # 35 · 40 / (1600 + 3136 - 1400) = 0.42
            [100.0, 40, 140, 80],  # half beside: 800 / 2400 = 0.33
            [60.0, 20, 140, 100],  # twice as large: 0.25
        ]
    )
    square = torch.tensor([[80.0, 40, 120, 80]])
    np.testing.assert_allclose(box_iou(square, windows)[0], [1, 0.6, 0.4197, 0.3333, 0.25], atol=1e-4)
    shown = assign_windows(windows, targets)
    assert shown.labels.tolist() == [2, 2, IGNORE_INDEX, 0, 0]
    boxes = decode(shown.offsets[:2], windows[:2], VARIANCES)
    torch.testing.assert_close(boxes, targets.boxes.expand(2, 4))
    assert assign_windows(
        windows, ObjectTargets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    ).labels.tolist() == 5 * [0]


def test_loss_is_binary_cross_entropy_and_that_of_the_classes() -> None:
    torch.manual_seed(0)
    model = hubel.create_model("sliding_window", 2, backbone="lenet5", window=32, image_size=64, hidden=8)
    assert isinstance(model, SlidingWindow)
    maps = torch.randn(3, model.head.reader.in_channels, 5, 5)
    model.head.eval()
    torch.nn.init.normal_(model.head.classifier.weight)
    whole = torch.tensor([[0.0, 0, 32, 32]])
    beside = torch.tensor([[-40.0, 0, -8, 32]])
    targets = [
        ObjectTargets(whole, torch.tensor([0])),
        ObjectTargets(whole, torch.tensor([1])),
        ObjectTargets(beside, torch.tensor([0])),
    ]
    raw = model.head.classifier(torch.relu(model.head.reader(maps))).flatten(1)
    something = functional.binary_cross_entropy_with_logits(raw[:, 0], torch.tensor([1.0, 1, 0]))
    classes = functional.cross_entropy(raw[:2, 1:], torch.tensor([0, 1]), reduction="sum") / 3
    outputs = dict(zip(("scores", "offsets"), model.head(maps), strict=True))
    given = DetectionTargets(targets, (32, 32))
    terms, right = model.losses(outputs, given), model.training_metrics(outputs, given)["windows"] / 3
    torch.testing.assert_close(terms["class"], something + classes)
    offsets = outputs["offsets"][:2, 0]
    expected = functional.smooth_l1_loss(offsets, torch.zeros(2, 4), reduction="sum") / 2
    torch.testing.assert_close(terms["box"], expected)
    assert float(right) in (0.0, *torch.arange(1, 4).div(3).tolist())


def test_crops_carry_their_boxes_and_show_objects_or_none(tmp_path: Path) -> None:
    data = read_annotated_images(painted(tmp_path / "voc", {"train": 8}))
    samples = data.splits["train"]
    whole = Preprocessing(SIDE, SIDE, resize="stretch", crop_fraction=1.0)
    crops = BatchDataset(samples, WindowSampler(whole, 32, ("flip",), 24), 0)
    batch = crops.__getitems__([(epoch, index) for epoch in range(2) for index in range(8)])
    assert batch.pixels.shape == (2 * 8 * 24, 3, 32, 32) and len(batch.targets) == len(batch.indices) == 384
    window = torch.tensor([[0.0, 0, 32, 32]])
    found = [ObjectTargets(torch.from_numpy(each.boxes), torch.from_numpy(each.labels)) for each in batch.targets]
    labels = torch.cat([assign_windows(window, each).labels for each in found])
    shares = [float((labels == label).float().mean()) for label in (0, 1, 2)]
    assert shares[0] > 0.2 and min(shares[1:]) > 0.1, shares
    compared = 0
    for pixels, target in zip(batch.pixels.int(), batch.targets, strict=True):
        x1, y1, x2, y2 = target.boxes[0].tolist()
        if min(x1, y1) < 0 or max(x2, y2) > 32:
            continue
        red, blue = pixels[0] - pixels[2], pixels[2] - pixels[0]
        rows, columns = torch.nonzero((red if data.classes[target.labels[0]] == "red" else blue) > 90, as_tuple=True)
        assert abs(float(columns.float().mean()) + 0.5 - (x1 + x2) / 2) < 0.8
        assert abs(float(rows.float().mean()) + 0.5 - (y1 + y2) / 2) < 0.8
        compared += 1
    assert compared > 20


@pytest.mark.parametrize("objectness", ["binary", pytest.param("class", marks=pytest.mark.slow)])
def test_a_small_network_learns_to_find_discs(objectness: str, tmp_path: Path) -> None:
    data = painted(tmp_path / "voc", {"train": 48, "val": 12})
    result = hubel.train(
        data,
        out=tmp_path / "run",
        task="detect",
        model="sliding_window",
        backbone="lenet5",
        options={"objectness": objectness, "window": 32, "hidden": 16, "dropout": 0.0},
        image_size=SIDE,
        weights=None,
        epochs=10,
        average=0,
        batch=8,
        learning_rate=3e-3,
        precision="float32",
        workers=0,
        augmentation=("flip",),
        device="cpu",
    )
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert float(rows[-1]["train_windows"]) > 0.85
    assert result.scores["val"].to_json()["metrics"]["AP50"] > 0.8
