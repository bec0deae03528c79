"""Copy-paste (Ghiasi et al. 2021, arXiv 2012.07177): every object has a grey of its own, which shows where it is."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from hubel.data.preprocessing import Preprocessing
from hubel.data.transforms import object_transform
from hubel.data.transforms.geometry import IDENTITY
from hubel.data.transforms.object_transform import ObjectTransform
from hubel.data.transforms.pipeline import Decoded
from hubel.masks import encode

SIDE = 80
INPUT = Preprocessing(SIDE, SIDE, mean=(0.0, 0.0, 0.0), resize="stretch")
BACKGROUNDS = (5, 20)
BOXES = {  # the grey of each object, in two images
    60: (5, 5, 40, 45), 85: (50, 50, 75, 78), 110: (30, 10, 36, 16),
    150: (20, 2, 50, 70), 180: (55, 10, 75, 30), 210: (2, 60, 12, 76),
}  # fmt: skip


def image(greys: list[int], background: int) -> Decoded:
    """Rectangles on a plain ground, of labels that are their greys."""
    pixels = np.full((SIDE, SIDE, 3), background, np.uint8)
    masks = []
    for grey in greys:
        x1, y1, x2, y2 = BOXES[grey]
        pixels[y1:y2, x1:x2] = grey
        mask = np.zeros((SIDE, SIDE), bool)
        mask[y1:y2, x1:x2] = True
        masks.append(mask)
    boxes = np.array([BOXES[grey] for grey in greys], float) / SIDE
    shapes = tuple(encode(mask & ~np.logical_or.reduce(masks[index + 1 :], 0)) for index, mask in enumerate(masks))
    return Decoded(pixels, (SIDE, SIDE), boxes, np.array(greys), shapes=shapes, size=(SIDE, SIDE))


GROUP = [image([60, 85, 110], BACKGROUNDS[0]), image([150, 180, 210], BACKGROUNDS[1])]


def eroded(mask: np.ndarray, size: int) -> np.ndarray:
    padded = Image.fromarray(np.pad(mask, size))  # the filter repeats an image's last pixels beyond its edge
    return (np.asarray(padded.filter(ImageFilter.MinFilter(size))) > 0)[size:-size, size:-size]


def test_every_mask_is_where_its_object_is_seen() -> None:
    transform = ObjectTransform(INPUT, ["copy-paste"])
    lent = covered = 0
    for seed in range(80):
        pixels, target = transform.augment(GROUP, seed)
        alone = transform.augment(GROUP[:1], seed)[1]
        greys = pixels[:, :, 0].astype(int)
        assert target.masks is not None and (target.masks.sum(0) <= 1).all()
        assert len(target.masks) == len(target.boxes) == len(target.labels)
        for mask, box, grey in zip(target.masks, target.boxes, target.labels, strict=True):
            assert (np.abs(greys - grey) <= 2)[eroded(mask, 5)].all()
            seen = eroded((np.abs(greys - grey) <= 1).astype(np.uint8), 3)
            assert mask[seen].all()
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            around = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_allclose(box, around, atol=1.0)
        # An object that was not chosen, or is covered, is nowhere. (One whose centre is cut off is, without a label.)
        for grey in {150, 180, 210, *alone.labels.tolist()} - set(target.labels.tolist()):
            assert not eroded((np.abs(greys - grey) <= 1).astype(np.uint8), 5).any()
        lent += int((target.labels >= 150).sum())
        covered += len(set(alone.labels.tolist()) - set(target.labels.tolist()))
    assert 60 < lent < 140 and covered > 3  # half of what is in sight; of the 3 of each image some are cut off


def test_covered_objects_lose_their_pixels_and_boxes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_transform, "large_scale_jitter", lambda *_: IDENTITY)
    monkeypatch.setattr(object_transform, "_FLIPPED", 0.0)
    transform = ObjectTransform(INPUT, ["copy-paste"])
    found = {}
    for seed in range(60):
        pixels, target = transform.augment(GROUP, seed)
        found[tuple(target.labels.tolist())] = pixels, target
    # Each subset of the other image's objects is pasted; 110 lies under 150, and 60 half under it.
    subsets = {(60, 85, 110), (60, 85, 110, 180), (60, 85, 110, 210), (60, 85, 110, 180, 210)}
    assert set(found) == subsets | {(60, 85, 150), (60, 85, 150, 180), (60, 85, 150, 210), (60, 85, 150, 180, 210)}
    pixels, target = found[60, 85, 150, 180]
    expected = GROUP[0].pixels.copy()
    expected[2:70, 20:50], expected[10:30, 55:75] = 150, 180
    assert np.array_equal(pixels, expected)
    assert target.boxes.tolist() == [[5, 5, 20, 45], [50, 50, 75, 78], [20, 2, 50, 70], [55, 10, 75, 30]]
    assert target.masks is not None
    for mask, grey in zip(target.masks, target.labels, strict=True):
        assert np.array_equal(mask, expected[:, :, 0] == grey)


def test_an_image_without_a_partner_is_jittered_alone() -> None:
    transform = ObjectTransform(INPUT, ["copy-paste"])
    assert len(transform.partners(3, 50)) == 1 and 0 <= transform.partners(3, 50)[0] < 50
    assert ObjectTransform(INPUT, ["flip"]).partners(3, 50) == []
    together = ObjectTransform(INPUT, ["mosaic", "copy-paste"])
    assert {len(together.partners(seed, 50)) for seed in range(20)} == {1, 3}
    sides = [transform.augment(GROUP[:1], seed)[1].boxes for seed in range(40)]
    widths = np.concatenate([boxes[:, 2] - boxes[:, 0] for boxes in sides])
    assert widths.min() < 0.4 * 25 and widths.max() > 1.3 * 35
