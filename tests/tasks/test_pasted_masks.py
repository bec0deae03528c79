"""Masks of whole images from the probabilities of boxes' pixels; the judge is torchvision's paste_masks_in_image."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_masks
from torchvision.models.detection.roi_heads import paste_masks_in_image

from hubel.data.preprocessing import Preprocessing
from hubel.masks import decode
from hubel.models.metadata import ModelMetadata
from hubel.tasks.decoding import Thresholds
from hubel.tasks.instances.decode import results
from hubel.tasks.instances.paste import paste_masks


def blobs(count: int, seed: int = 0) -> np.ndarray:
    """Smooth probabilities (N, 28, 28), as a network gives them."""
    coarse = np.random.default_rng(seed).normal(size=(count, 1, 7, 7)) * 4
    smooth = torch.nn.functional.interpolate(torch.tensor(coarse, dtype=torch.float32), (28, 28), mode="bicubic")
    return torch.sigmoid(smooth)[:, 0].numpy()


def boxes_in(count: int, height: int, width: int, largest: float, seed: int = 0) -> np.ndarray:
    """Boxes cut off at the edges of an image, some of them without area."""
    random = np.random.default_rng(seed)
    corners = random.uniform(-20, (width, height), (count, 2))
    boxes = np.concatenate((corners, corners + random.uniform(0, largest, (count, 2))), 1)
    return boxes.clip(0, [width, height] * 2).astype(np.float32)


@pytest.mark.parametrize(("height", "width", "largest"), [(240, 320, 200.0), (50, 70, 12.0)])
def test_pasted_masks_are_those_of_torchvision(height: int, width: int, largest: float) -> None:
    masks, boxes = blobs(60), boxes_in(60, height, width, largest)
    expected = paste_masks_in_image(torch.tensor(masks)[:, None], torch.tensor(boxes), (height, width))[:, 0] > 0.5
    found = paste_masks(masks, boxes, height, width, whole_pixels=True)
    for mask, theirs in zip(found, expected.numpy(), strict=True):
        ours = decode(mask)
        union = (ours | theirs).sum()
        assert (ours & theirs).sum() >= 0.99 * union
        assert mask.counts == coco_masks.encode(np.asfortranarray(ours.astype(np.uint8)))["counts"].decode()
    assert sum(int(each.sum()) for each in expected) > 500


@pytest.mark.parametrize(("height", "width", "largest"), [(240, 320, 200.0), (50, 70, 12.0)])
def test_pasted_masks_sample_the_probability_at_the_centre_of_each_pixel(
    height: int, width: int, largest: float
) -> None:
    """The judge is torch's grid_sample, with zeros around."""
    masks, boxes = blobs(60), boxes_in(60, height, width, largest)
    different = total = 0
    for mask, (x1, y1, x2, y2), probabilities in zip(
        paste_masks(masks, boxes, height, width), boxes, masks, strict=True
    ):
        if x2 - x1 < 1e-3 or y2 - y1 < 1e-3:
            assert not decode(mask).any()
            continue
        x = 2 * (np.arange(width) + 0.5 - x1) / (x2 - x1) - 1
        y = 2 * (np.arange(height) + 0.5 - y1) / (y2 - y1) - 1
        grid = torch.tensor(np.stack(np.meshgrid(x, y), -1), dtype=torch.float32)[None]
        sampled = torch.nn.functional.grid_sample(torch.tensor(probabilities)[None, None], grid, align_corners=False)
        theirs = sampled[0, 0].numpy() > 0.5
        different, total = different + int((theirs != decode(mask)).sum()), total + int(theirs.sum())
    assert total > 300 and different < 1e-3 * total


def test_a_mask_that_fills_its_box_has_the_pixels_of_the_box() -> None:
    boxes = np.array([[3, 5, 12, 9], [0, 0, 30, 20], [7, 7, 8, 8]], np.float32)
    for mask, (x1, y1, x2, y2) in zip(paste_masks(np.ones((3, 28, 28)), boxes, 20, 30), boxes.astype(int), strict=True):
        expected = np.zeros((20, 30), bool)
        expected[y1:y2, x1:x2] = True
        np.testing.assert_array_equal(decode(mask), expected)


def test_masks_of_many_objects_in_a_large_photograph_take_a_fraction_of_a_second() -> None:
    masks, boxes = blobs(100), boxes_in(100, 3000, 4000, 800.0)
    paste_masks(masks, boxes, 3000, 4000)
    start = time.process_time()
    paste_masks(masks, boxes, 3000, 4000)
    assert time.process_time() - start < 1, (
        "0.06 s where it was measured; 100 masks of 12 megapixels would take seconds"
    )


def test_results_have_the_masks_of_the_objects_that_are_kept() -> None:
    """Rows: a weak object, the best, one that it suppresses, one left over without a score."""
    ready = Preprocessing(80, 80, resize="stretch")
    metadata = ModelMetadata("instances", "mask_rcnn", 2, 3, 80, ["ball", "cube"], ready)
    boxes = np.array([[[40, 40, 60, 60], [0, 0, 40, 40], [1, 1, 40, 40], [0, 0, 0, 0]]], np.float32)
    scores = np.array([[[0.3, 0], [0, 0.9], [0, 0.8], [0, 0]]], np.float32)
    masks = np.zeros((1, 4, 28, 28), np.float32)
    masks[0, 0], masks[0, 1, :, :14], masks[0, 2] = 1, 1, 1

    class Photograph:
        source, width, height, frame, time = "a.jpg", 160, 80, None, None

    predictions = {"boxes": boxes, "scores": scores, "masks": masks}
    (found,) = results(predictions, [Photograph()], metadata, Thresholds(conf=0.0))
    assert found.names == ("cube", "ball")
    np.testing.assert_allclose(found.boxes, [[0, 0, 80, 40], [80, 40, 120, 60]])
    assert found.masks is not None
    left, whole = (decode(mask) for mask in found.masks)
    assert left.shape == (80, 160)
    assert left.sum() == 40 * 40 and left[:40, :40].all(), "half of the box is the object"
    assert whole.sum() == 40 * 20 and whole[40:60, 80:120].all()
    assert [row["mask"]["size"] for row in found.to_json()["objects"]] == [[80, 160]] * 2
    (none,) = results(predictions, [Photograph()], metadata, Thresholds(conf=0.95))
    assert none.masks == () and none.to_json() == {"objects": []}


@pytest.mark.parametrize("name", ["mask_rcnn", "maskrcnn_resnet50_fpn"])
def test_a_mask_is_not_squeezed_into_the_part_of_its_box_that_is_in_the_image(name: str) -> None:
    """The input has 20 rows of padding above and below; a box reaches from there over the whole image."""
    metadata = ModelMetadata("instances", name, 1, 3, 80, ["ball"], Preprocessing(80, 80, resize="fit"))
    masks = np.zeros((1, 1, 28, 28), np.float32)
    masks[0, 0, 14:] = 1  # of rows 0 to 60 of the input those from 30 on, which are 20 and more of the original
    predictions = {
        "boxes": np.array([[[0, 0, 80, 60]]], np.float32),
        "scores": np.full((1, 1, 1), 0.9, np.float32),
        "masks": masks,
    }

    class Photograph:
        source, width, height, frame, time = "a.jpg", 160, 80, None, None

    (found,) = results(predictions, [Photograph()], metadata, Thresholds())
    np.testing.assert_allclose(found.boxes, [[0, 0, 160, 80]])
    assert found.masks is not None
    pixels = decode(found.masks[0])
    assert not pixels[:18].any() and pixels[22:78, 2:158].all()
