"""What a detector says, as JSON, COCO rows, supervision's record and an image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from hubel.drawing import BoxLabel, draw_boxes, draw_instances
from hubel.drawing.boxes import colour_of
from hubel.masks import RunLengthMask, encode
from hubel.results import Detections

MASKS = np.zeros((2, 60, 80), bool)
MASKS[0, 10:40, 5:30] = True
MASKS[1, 20:50, 40:71] = True


ENCODED = tuple(encode(mask) for mask in MASKS)


def two_objects(masks: tuple[RunLengthMask, ...] | None = ENCODED) -> Detections:
    boxes = np.array([[5, 10, 30, 40], [40, 20, 71, 50]], np.float32)
    scores, labels = np.array([0.9, 0.25], np.float32), np.array([2, 0])
    return Detections("a.jpg", 80, 60, boxes, scores, labels, ("dog", "cat"), masks)


def test_json_row_has_boxes_and_masks_that_pycocotools_reads():
    first, second = two_objects().to_json()["objects"]
    assert (first["index"], first["name"], first["box"]) == (2, "dog", [5, 10, 30, 40])
    assert first["score"] == pytest.approx(0.9)
    np.testing.assert_array_equal(coco_masks.decode(second["mask"]), MASKS[1])
    theirs = coco_masks.encode(np.asfortranarray(MASKS[0].astype(np.uint8)))
    assert first["mask"] == {"size": [60, 80], "counts": theirs["counts"].decode()}
    assert "mask" not in two_objects(None).to_json()["objects"][0]


def test_coco_rows_have_category_ids_and_sizes():
    rows = two_objects().to_coco(image_id=7, category_ids=[11, 12, 13])
    assert [(row["image_id"], row["category_id"], row["bbox"]) for row in rows] == [
        (7, 13, [5, 10, 25, 30]),
        (7, 11, [40, 20, 31, 30]),
    ]
    assert coco_masks.area(rows[0]["segmentation"]) == MASKS[0].sum()


def test_supervision_takes_it():
    taken = two_objects().to_supervision()
    np.testing.assert_allclose(taken.box_area, [25 * 30, 31 * 30])
    np.testing.assert_allclose(taken.area, MASKS.sum((1, 2)))
    assert taken["class_name"].tolist() == ["dog", "cat"]
    assert taken.class_id.tolist() == [2, 0]
    np.testing.assert_array_equal(taken.mask, MASKS)
    assert two_objects(None).to_supervision().mask is None


def test_frames_are_drawn_where_the_boxes_are_and_nothing_else_changes():
    ground = Image.new("RGB", (400, 300), (30, 60, 90))
    before = np.asarray(ground)
    drawn = np.asarray(draw_boxes(ground, [BoxLabel((100, 120, 260, 220), "", 3)]))
    rows, columns = np.nonzero((drawn != before).any(2))
    assert (columns.min(), rows.min(), columns.max(), rows.max()) == (99, 119, 261, 221)
    assert tuple(drawn[170, 101]) == colour_of(3), "the line has the colour of the class"
    assert (drawn[130:210, 110:250] == before[130:210, 110:250]).all(), "the object itself is not covered"


def test_boxes_outside_the_image_and_chips_at_its_edges_are_drawn_inside():
    drawn = draw_boxes(Image.new("RGB", (300, 300)), [BoxLabel((-50, -50, 400, 400), "a long name of a class" * 9, 1)])
    assert drawn.size == (300, 300)
    assert np.asarray(drawn)[:25].max() > 200, "the chip is within the image"


def test_chips_do_not_hide_each_other_where_there_is_room():
    same = (100, 100, 200, 200)
    one = np.asarray(draw_boxes(Image.new("RGB", (400, 300)), [BoxLabel(same, "person 0.90", 0)]))
    two = np.asarray(draw_boxes(Image.new("RGB", (400, 300)), [BoxLabel(same, "person 0.90", 0)] * 2))
    assert (two[:99] == one[:99]).all(), "the first chip stays above the box"
    assert (two[102:] != one[102:]).any(), "the second is elsewhere"


def test_a_thumbnail_is_enlarged_and_its_boxes_with_it():
    drawn = draw_boxes(Image.new("RGB", (60, 60)), [BoxLabel((15, 15, 45, 45), "", 0)])
    assert drawn.size == (240, 240)
    columns = np.nonzero(np.asarray(drawn).any(2))[1]
    assert (columns.min(), columns.max()) == pytest.approx((60, 180), abs=2)


def test_neighbouring_classes_have_clearly_different_colours():
    colours = np.array([colour_of(number) for number in range(40)], float)
    steps = np.linalg.norm(np.diff(colours, axis=0), axis=1)
    assert steps.min() > 100


def disc(x: int, y: int, radius: int, height: int = 300, width: int = 400) -> np.ndarray:
    rows, columns = np.ogrid[:height, :width]
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def test_fills_are_translucent_outlines_have_the_colour_and_the_background_is_untouched():
    mask, ground = disc(200, 150, 80), Image.new("RGB", (400, 300), (30, 60, 90))
    before = np.asarray(ground)
    drawn = np.asarray(draw_instances(ground, [BoxLabel((120, 70, 281, 231), "", 3)], [encode(mask)]))
    colour = np.array(colour_of(3), float)
    opacity = (drawn[150, 200].astype(float) - before[150, 200]).sum() / (colour - before[150, 200]).sum()
    assert 0.3 < opacity < 0.6
    mixture = opacity * colour + (1 - opacity) * before[150, 200]
    np.testing.assert_allclose(drawn[150, 200], mixture, atol=2)
    row = drawn[150, :200]
    assert tuple(colour) in {tuple(pixel) for pixel in row[115:126].tolist()}, "an outline at the edge, x = 120"
    assert (drawn[~disc(200, 150, 83)] == before[~disc(200, 150, 83)]).all()


def test_neighbours_of_a_class_have_different_shades_and_a_line_between_them():
    left, right = np.zeros((2, 300, 400), bool)
    left[50:250, 50:200] = True
    right[50:250, 200:350] = True
    labels = [BoxLabel((50, 50, 200, 250), "", 3), BoxLabel((200, 50, 350, 250), "", 3)]
    drawn = np.asarray(draw_instances(Image.new("RGB", (400, 300)), labels, [encode(left), encode(right)])).astype(int)
    assert np.abs(drawn[150, 120] - drawn[150, 280]).max() > 20
    assert drawn[150, 195:205].sum(1).max() > drawn[150, 120].sum() > drawn[150, 195:205].sum(1).min()


def test_masks_are_enlarged_with_a_thumbnail():
    mask = disc(30, 30, 20, 60, 60)
    drawn = np.asarray(draw_instances(Image.new("RGB", (60, 60)), [BoxLabel((10, 10, 51, 51), "", 0)], [encode(mask)]))
    assert drawn.shape == (240, 240, 3)
    assert (drawn.max(2) > 24).sum() == pytest.approx(16 * mask.sum(), rel=0.04)


def test_in_a_crowd_some_labels_are_left_out_but_no_class_is_without_one():
    box, mask = (180.0, 140.0, 190.0, 150.0), encode(disc(185, 145, 5))
    ground = Image.new("RGB", (400, 300))
    crowd = [BoxLabel(box, f"person {number}", 0) for number in range(40)]
    same = np.asarray(draw_instances(ground, crowd, [mask] * 40))
    assert (same[200:] == 0).all() and (same[:100] == 0).all(), "40 labels would not fit between"
    other = np.asarray(draw_instances(ground, [*crowd, BoxLabel(box, "dog", 1)], [mask] * 41))
    assert (other == colour_of(1)).all(2).sum() > 100, "the dog's label"


def test_an_empty_mask_is_labelled_and_hides_nothing():
    drawn = draw_instances(
        Image.new("RGB", (400, 300)), [BoxLabel((9, 9, 9, 9), "", 0)], [encode(np.zeros((300, 400), bool))]
    )
    assert not np.asarray(drawn).any()
