"""Masks at a network's input: pycocotools judges what is drawn whole, torchvision what is cut, scaled and mirrored."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as reference
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from hubel.data.instances import read_instances
from hubel.data.loader import BatchDataset
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import Sample, Target
from hubel.data.transforms.geometry import View, Window
from hubel.data.transforms.object_transform import ObjectTransform
from hubel.data.transforms.shapes import draw_shapes, fit_cut_boxes
from hubel.masks import Outline, Shape, encode

STAR = (30.0, 2.5, 37.0, 22.0, 58.5, 22.0, 41.0, 35.0, 47.5, 56.0, 30.0, 43.0, 12.5, 56.0, 19.0, 35.0, 1.5, 22.0)
HOLE = (25.0, 25.0, 35.0, 25.0, 35.0, 35.0, 25.0, 35.0)


def rasterized(polygons: list[list[float]], height: int, width: int) -> np.ndarray:
    rle = reference.merge(reference.frPyObjects(polygons, height, width))
    return np.array(reference.decode(rle))


def labelled(path: Path, width: int, height: int, boxes: np.ndarray, shapes: tuple[Shape, ...]) -> Sample:
    """An image with objects of the first class."""
    count = len(boxes)
    none = np.zeros(count, bool)
    return Sample(path, -1, width, height, boxes, np.zeros(count, np.int64), none, none, np.ones(count), shapes=shapes)


def target_of(sample: Sample, transform: ObjectTransform, seed: int = 0) -> Target:
    (target,) = BatchDataset([sample], transform, seed).__getitems__([(1, 0)]).targets
    return target


@pytest.mark.data
def test_drawn_at_the_images_own_size_they_are_pycocotools(data_folder: Path) -> None:
    file = data_folder / "coco128" / "instances_panoptic100.json"
    content = json.loads(file.read_text())
    samples = {sample.path.name: sample for sample in read_instances(file).splits["all"]}
    for image in content["images"][::20]:
        width, height = image["width"], image["height"]
        sample = samples[image["file_name"]]
        target = target_of(sample, ObjectTransform(Preprocessing(height, width, resize="stretch")))
        rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
        drawn = [rasterized(row["segmentation"], height, width) for row in rows]
        expected = [mask for mask in drawn if mask.any()]
        assert target.masks is not None and target.masks.dtype == np.uint8
        assert np.array_equal(target.masks, np.stack(expected))
        assert len(target.boxes) == len(target.labels) == len(expected)


@pytest.mark.parametrize("flipped", [False, True])
def test_a_mask_is_cut_and_scaled_as_torchvisions(flipped: bool) -> None:
    pixels = rasterized([list(STAR)], 60, 60) & ~rasterized([list(HOLE)], 60, 60)
    for x, y, w, h, drawn in ((10, 20, 40, 30, (101, 45)), (0, 0, 60, 60, (60, 60)), (33, 0, 20, 50, (17, 31))):
        window = Window(x / 60, y / 60, (x + w) / 60, (y + h) / 60, flipped)
        exact = v2.InterpolationMode.NEAREST_EXACT
        cut = functional.resized_crop(torch.from_numpy(pixels)[None, None], y, x, h, w, [drawn[1], drawn[0]], exact)
        cut = functional.horizontal_flip(cut) if flipped else cut
        view = View(window, drawn[1], drawn[0])
        (found,) = draw_shapes([encode(pixels)], 60, 60, view)
        assert np.array_equal(found, cut[0, 0].numpy())
        # An outline is drawn finer than the pixels of a mask can be: the same but for its rim, of a pixel of the mask.
        (outlined,) = draw_shapes([Outline((STAR,), (HOLE,))], 60, 60, view)
        rim = 0.5 * (np.abs(np.diff(found.astype(int), axis=0)).sum() + np.abs(np.diff(found.astype(int))).sum())
        assert (outlined != found).sum() <= 1.5 * rim * max(1, drawn[0] / w, drawn[1] / h)
        assert outlined.any()


def test_an_outline_is_rasterized_where_it_comes_to_lie() -> None:
    window = Window(-0.25, -0.5, 1.25, 0.75)  # beside the image to the left, and cut off below
    (found,) = draw_shapes([Outline((STAR,), (HOLE,))], 60, 60, View(window, 100, 90))
    moved, hole = (
        [value * scale + shift for value, (scale, shift) in zip(each, [(1, 15), (100 / 75, 40)] * 20, strict=False)]
        for each in (STAR, HOLE)
    )
    expected = rasterized([moved], 100, 90) & ~rasterized([hole], 100, 90)
    assert np.array_equal(found, expected)
    # Mirrored, a rim may be rounded the other way.
    (mirrored,) = draw_shapes([Outline((STAR,), (HOLE,))], 60, 60, View(Window(-0.25, -0.5, 1.25, 0.75, True), 100, 90))
    assert (mirrored[:, ::-1] != expected).mean() < 0.01


@pytest.mark.parametrize("resize", ["fit", "stretch", "crop"])
def test_the_resizing_of_prediction_has_masks_where_the_pixels_are(tmp_path: Path, resize: str) -> None:
    pixels = np.zeros((60, 90, 3), np.uint8)
    inside = np.zeros((60, 90), bool)
    inside[10:40, 20:80] = True
    inside[20:30, 40:60] = False
    pixels[inside] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    box = np.array([[20, 10, 80, 40]], np.float32)
    for shape in (
        encode(inside),
        Outline(((20, 10, 80, 10, 80, 40, 20, 40),), ((40, 20, 60, 20, 60, 30, 40, 30),)),
    ):
        sample = labelled(tmp_path / "a.png", 90, 60, box, (shape,))
        transform = ObjectTransform(Preprocessing(64, 64, resize=resize, crop_fraction=1.0))  # type: ignore[arg-type]
        batch = BatchDataset([sample], transform, 0).__getitems__([(1, 0)])
        (target,) = batch.targets
        assert target.masks is not None and target.masks.shape == (1, 64, 64)
        bright = batch.pixels[0, 0].numpy() > 127
        rim = np.abs(np.diff(bright.astype(int), axis=0)).sum() + np.abs(np.diff(bright.astype(int))).sum()
        assert (bright != target.masks[0]).sum() <= rim / 2


def test_a_box_that_is_cut_becomes_that_of_what_is_left(tmp_path: Path) -> None:
    # Upright on the left, and a long foot to the right and below: cut off below, the box is only as wide as the leg.
    shape = Outline(((10, 10, 20, 10, 20, 50, 80, 50, 80, 58, 10, 58),))
    window = View(Window(0, 0, 1, 0.75), 45, 90)
    masks = draw_shapes([shape, shape], 90, 60, window)
    boxes = np.array([[10, 10, 80, 45], [10.5, 10.25, 80, 44.5]])
    fitted = fit_cut_boxes(boxes, masks)
    assert fitted.tolist() == [[10, 10, 20, 45], [10.5, 10.25, 80, 44.5]]


@pytest.mark.parametrize("shape", [(3, 13, 7), (0, 5, 5), None])
def test_masks_come_from_a_worker_as_they_are(shape: tuple[int, ...] | None) -> None:
    masks = None if shape is None else np.random.default_rng(0).integers(0, 2, shape, np.uint8)
    there = pickle.loads(pickle.dumps(Target(4, masks=masks)))  # noqa: S301 – as workers send it
    assert there.label == 4
    if masks is None:
        assert there.masks is None
    else:
        assert there.masks.dtype == np.uint8 and np.array_equal(there.masks, masks)


def test_three_hundred_objects(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((200, 300, 3), np.uint8)).save(tmp_path / "a.png")
    x, y = (np.arange(300) % 20 * 15.0, np.arange(300) // 20 * 13.0)
    boxes = np.stack((x, y, x + 10, y + 9), 1).astype(np.float32)
    shapes = tuple(Outline(((a, b, c, b, c, d, a, d),)) for a, b, c, d in boxes.tolist())
    sample = labelled(tmp_path / "a.png", 300, 200, boxes, shapes)
    target = target_of(sample, ObjectTransform(Preprocessing(200, 300, resize="stretch")))
    assert target.masks is not None and target.masks.shape == (300, 200, 300)
    assert (target.masks.sum((1, 2)) == 90).all()
    for box, mask in zip(target.boxes.astype(int), target.masks, strict=True):
        assert mask[box[1] : box[3], box[0] : box[2]].all()
