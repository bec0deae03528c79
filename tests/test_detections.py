"""What a detector says, as JSON, COCO rows, supervision's record and an image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from hubel.drawing import BoxLabel, draw_boxes
from hubel.drawing.boxes import colour_of
from hubel.results import Detections

MASKS = np.zeros((2, 60, 80), bool)
MASKS[0, 10:40, 5:30] = True
MASKS[1, 20:50, 40:71] = True


def two_objects(masks: np.ndarray | None = MASKS) -> Detections:
    boxes = np.array([[5, 10, 30, 40], [40, 20, 71, 50]], np.float32)
    scores, labels = np.array([0.9, 0.25], np.float32), np.array([2, 0])
    return Detections("a.jpg", 80, 60, boxes, scores, labels, ("dog", "cat"), masks)


def test_json_row_has_boxes_and_masks_that_pycocotools_reads():
    first, second = two_objects().to_json()["objects"]
    assert (first["index"], first["name"], first["box"]) == (2, "dog", [5, 10, 30, 40])
    assert first["score"] == pytest.approx(0.9)
    np.testing.assert_array_equal(coco_masks.decode(second["mask"]), MASKS[1])
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
