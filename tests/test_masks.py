"""`hubel.masks`: run lengths and polygons against pycocotools, clipping against matplotlib."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from matplotlib.transforms import Bbox
from pycocotools import mask as reference

from hubel.masks import (
    clip_polygon,
    decode,
    decode_part,
    encode,
    encode_part,
    mask_area,
    mask_box,
    parse_mask,
    rasterize,
)
from labelled_sets import HEIGHT, WIDTH, disc


@pytest.mark.parametrize("seed", range(20))
def test_masks_are_those_of_pycocotools(seed: int) -> None:
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 70, 2))
    pixels = rng.random((height, width)) < rng.random()
    theirs = reference.encode(np.asfortranarray(pixels.astype(np.uint8)))
    ours = encode(pixels)
    assert ours.counts == theirs["counts"].decode()
    assert np.array_equal(decode(ours), pixels)
    assert mask_area(ours) == reference.area(theirs)
    x, y, w, h = reference.toBbox(theirs)
    assert mask_box(ours) == (x, y, x + w, y + h)


@pytest.mark.parametrize("seed", range(20))
def test_polygons_are_rasterized_as_by_pycocotools(seed: int) -> None:
    """Also those that cross themselves and leave the image."""
    rng = np.random.default_rng(seed)
    height, width = (int(side) for side in rng.integers(1, 70, 2))
    for corners in range(3, 10):
        ring = (rng.random(2 * corners) * 90 - 10).round(int(rng.integers(0, 4))).tolist()
        theirs = reference.decode(reference.merge(reference.frPyObjects([ring], height, width)))
        assert np.array_equal(rasterize([ring], [], height, width), theirs)


def test_uncompressed_run_lengths_are_read() -> None:
    pixels = decode(disc())
    lengths = [len(list(run)) for run in np.split(pixels.ravel("F"), np.flatnonzero(np.diff(pixels.ravel("F"))) + 1)]
    theirs = reference.frPyObjects({"size": [HEIGHT, WIDTH], "counts": lengths}, HEIGHT, WIDTH)
    assert parse_mask(HEIGHT, WIDTH, lengths).counts == theirs["counts"].decode()


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("!\u20ac", "are not COCO's compressed text"),
        ("PPPPPPPPPPPP0", "are not COCO's compressed text"),
        ("P", "end in the middle of a number"),
        ([1, 10**12], "do not add up to 64×48"),
        ([-1, 3073], "do not add up to 64×48"),
        ("", "do not add up to 64×48"),
    ],
)
def test_forged_run_lengths_are_refused(counts: str | list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_mask(48, 64, counts)


def test_polygons_are_clipped_as_matplotlib_clips_them() -> None:
    ring = (-20.0, 30.0, 50.0, -15.0, 190.0, 60.0, 80.0, 150.0, 60.0, 70.0)
    clipped = clip_polygon(ring, 160, 120)
    points = np.array(ring).reshape(-1, 2)
    judge = Outline(np.vstack((points, points[:1])), closed=True).clip_to_bbox(Bbox([[0, 0], [160, 120]]))

    def area(outline: np.ndarray) -> float:
        x, y = outline.T
        return abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2

    assert area(np.array(clipped).reshape(-1, 2)) == pytest.approx(area(judge.vertices[:-1]))
    assert min(clipped) >= 0
    assert max(clipped[::2]) <= 160
    assert max(clipped[1::2]) <= 120
    assert clip_polygon((200, 10, 220, 10, 220, 40), 160, 120) == ()


@pytest.mark.parametrize("seed", range(4))
def test_a_part_is_encoded_and_decoded_as_the_whole_image(seed: int) -> None:
    random = np.random.default_rng(seed)
    whole = np.zeros((40, 30), bool)
    # Also columns that are full from the first row to the last, whose runs are joined.
    top, left, height, width = (0, 3, 40, 9) if seed == 0 else (5, 0, 20, 30) if seed == 1 else (11, 7, 13, 17)
    part = np.ones((height, width), bool) if seed < 2 else random.random((height, width)) < 0.5
    whole[top : top + height, left : left + width] = part
    mask = encode_part(part, left, top, 40, 30)
    assert mask.counts == reference.encode(np.asfortranarray(whole.astype(np.uint8)))["counts"].decode()
    found, x, y = decode_part(mask)
    again = np.zeros_like(whole)
    again[y : y + found.shape[0], x : x + found.shape[1]] = found
    np.testing.assert_array_equal(again, whole)
    assert found.any(0)[[0, -1]].all() and found.any(1)[[0, -1]].all(), "the smallest part"
    assert decode_part(encode(np.zeros((4, 3), bool)))[0].size == 0
