"""Objects with their own pixels: read from labels as pycocotools reads them, refused in a sentence where they fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as reference

from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation, write_annotations
from hubel.data.checks.training_checks import check_object_set
from hubel.data.instances import read_instances
from hubel.data.samples import ImageDataset, Sample
from hubel.errors import DataError
from hubel.masks import RunLengthMask, encode
from labelled_sets import write_image

WIDTH, HEIGHT = 64, 48
# Coordinates that a little rounding does not bring to another pixel; COCO rounds to fifths.
LARGE = (4.06, 4.06, 40.26, 6.06, 42.06, 40.06, 6.06, 38.06)
APART = (50.06, 36.06, 62.06, 36.06, 62.06, 46.06, 50.06, 46.06)
HOLE = (12.06, 12.06, 18.06, 12.06, 18.06, 30.06, 12.06, 30.06)


def theirs(*polygons: tuple[float, ...]) -> np.ndarray:
    """Pixels inside any of the polygons, by pycocotools."""
    rle = reference.merge(reference.frPyObjects([list(each) for each in polygons], HEIGHT, WIDTH))
    return np.array(reference.decode(rle), bool)


def ring() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(x - 30, y - 24)
    return (distance < 18) & (distance > 7)


def coco(root: Path, *rows: dict[str, Any], **image: Any) -> Path:
    """A COCO file of one image."""
    write_image(root / "a.png", WIDTH, HEIGHT)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT, **image}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
        "annotations": [{"id": number, "image_id": 1, "category_id": 1, **row} for number, row in enumerate(rows)],
    }
    file = root / "labels.json"
    file.write_text(json.dumps(content))
    return file


def only(data: ImageDataset) -> Sample:
    ((sample,),) = data.splits.values()
    return sample


def decoded(found: RunLengthMask) -> np.ndarray:
    return np.array(reference.decode(found.to_coco()), bool)


@pytest.mark.data
def test_cocos_objects_are_those_of_pycocotools(data_folder: Path) -> None:
    file = data_folder / "coco128" / "instances_panoptic100.json"
    content = json.loads(file.read_text())
    samples = {sample.path.name: sample for sample in read_instances(file).splits["all"]}
    compared = 0
    for image in content["images"][::5]:
        rows = [row for row in content["annotations"] if row["image_id"] == image["id"]]
        sample = samples[image["file_name"]]
        for row, mask, area in zip(rows, sample.masks(), sample.areas, strict=True):
            outlines = reference.frPyObjects(row["segmentation"], image["height"], image["width"])
            assert np.array_equal(decoded(mask), reference.decode(reference.merge(outlines)))
            assert area == pytest.approx(row["area"], rel=2e-3)
            compared += 1
    assert compared > 100


def test_parts_holes_and_crowds_stay_with_their_boxes(tmp_path: Path) -> None:
    rle = {"size": [HEIGHT, WIDTH], "counts": encode(ring()).counts}
    file = coco(
        tmp_path,
        {"segmentation": [list(LARGE), list(APART)], "bbox": [4, 4, 58, 42]},
        {"segmentation": rle, "bbox": [12, 6, 36, 36], "category_id": 2},
        {"segmentation": rle, "bbox": [12, 6, 36, 36], "iscrowd": 1},
    )
    sample = only(read_instances(file))
    assert sample.crowd.tolist() == [False, False, True] and sample.labels.tolist() == [0, 1, 0]
    assert sample.shapes is not None and len(sample.shapes) == 3
    for found, expected in zip(sample.masks(), (theirs(LARGE, APART), ring(), ring()), strict=True):
        assert np.array_equal(decoded(found), expected)
    chosen = sample.select(np.array([False, True, False]))
    (mask,) = chosen.masks()
    assert np.array_equal(decoded(mask), ring()) and chosen.boxes.tolist() == [[12, 6, 48, 42]]
    again = sample.select(np.array([1, 0]))
    assert np.array_equal(decoded(again.masks()[1]), theirs(LARGE, APART))
    assert sample == only(read_instances(file)) and sample != again


FORMATS = {"coco": True, "supervisely": True, "labelme": False, "via": False, "label-studio": False, "cvat": False}


@pytest.mark.parametrize("name", [*FORMATS, "labelbox", "yolo"])
def test_every_format_with_outlines_has_objects(tmp_path: Path, name: str) -> None:
    write_image(tmp_path / "a.png", WIDTH, HEIGHT)
    with_hole = FORMATS.get(name, False)
    holes = (HOLE,) if with_hole else ()
    objects = (
        Annotation(0, (4.06, 4.06, 42.06, 40.06), polygons=(LARGE,), holes=holes),
        Annotation(1, (50.06, 36.06, 62.06, 46.06), polygons=(APART,)),
    )
    image = AnnotatedImage(tmp_path / "a.png", WIDTH, HEIGHT, objects)
    write_annotations(AnnotatedDataset(tmp_path, ("cat", "dog"), {"all": (image,)}), name, tmp_path / "out")
    data = read_instances(tmp_path / "out")
    found = {data.classes[label]: mask for label, mask in zip(only(data).labels, only(data).masks(), strict=True)}
    expected = theirs(LARGE) & ~theirs(HOLE) if with_hole else theirs(LARGE)
    assert np.array_equal(decoded(found["cat"]), expected) and np.array_equal(decoded(found["dog"]), theirs(APART))


def test_a_box_without_an_outline_counts_neither_way(tmp_path: Path) -> None:
    file = coco(tmp_path, {"segmentation": [list(LARGE)], "bbox": [4, 4, 38, 36]}, {"bbox": [50, 36, 12, 10]})
    data = read_instances(file)
    assert only(data).crowd.tolist() == [False, True]
    assert decoded(only(data).masks()[1])[36:46, 50:62].all() and decoded(only(data).masks()[1]).sum() == 120
    assert "1 object has a box and no outline: left out of training and of the scores (object 2 of a.png)" in " ".join(
        data.warnings
    )


def test_boxes_alone_are_refused(tmp_path: Path) -> None:
    file = coco(tmp_path, {"bbox": [50, 36, 12, 10]}, {"bbox": [1, 1, 5, 5]})
    with pytest.raises(DataError, match="has 2 boxes, and no outlines or masks"):
        read_instances(file)


GOOD = {"segmentation": [list(LARGE)], "bbox": [4, 4, 38, 36]}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "two points": ({"segmentation": [[1, 1, 9, 9]]}, "labels.json, annotation 2: a polygon of segmentation is not a"),
    "another size": (
        {"segmentation": {"size": [10, 10], "counts": [50, 50]}},
        "labels.json, annotation 2: a mask of 10×10 in an image of 64×48 pixels",
    ),
    "outside": (
        {"segmentation": [[90, 4, 99, 4, 99, 9]], "bbox": [4, 4, 9, 9]},
        "1 object left out, for an outline outside the image: object 2 of a.png",
    ),
    "all outside": ({"segmentation": [[90, 4, 99, 4, 99, 9]]}, "object 2 of a.png"),
    "a line": (
        {"segmentation": [[1, 1, 9, 9, 5, 5]]},
        "1 object left out, for an outline or a mask without any pixels",
    ),
    "no pixels": (
        {"segmentation": {"size": [HEIGHT, WIDTH], "counts": [WIDTH * HEIGHT]}, "bbox": [4, 4, 9, 9]},
        "1 object left out, for an outline or a mask without any pixels: object 2 of a.png",
    ),
    "far too large": (
        {"segmentation": [[0, 0, 1e7, 0, 1e7, 1e7]], "bbox": [4, 4, 9, 9]},
        "1 object left out, for an outline of more than twice the size",
    ),
    "far too long": (
        {"segmentation": [[0, 0, 60, 40] * 60_000], "bbox": [4, 4, 9, 9]},
        "1 object left out, for an outline that is millions of pixels long",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_left_out_and_named(tmp_path: Path, name: str) -> None:
    row, sentence = WRONG[name]
    data = read_instances(coco(tmp_path, GOOD, row))
    assert sentence in " ".join(data.warnings)
    (mask,) = only(data).masks()
    assert np.array_equal(decoded(mask), theirs(LARGE))


def test_an_image_of_another_size_than_its_labels_say_scales_the_shapes(tmp_path: Path) -> None:
    rle = {"size": [HEIGHT, WIDTH], "counts": encode(ring()).counts}
    file = coco(tmp_path, {"segmentation": [list(APART)]}, {"segmentation": rle})
    write_image(tmp_path / "a.png", 2 * WIDTH, 3 * HEIGHT)
    found = check_object_set(read_instances(file).splits, ("cat", "dog"))
    (sample,) = found.usable(read_instances(file).splits["all"])
    outline, mask = map(decoded, sample.masks())
    assert np.array_equal(mask, ring().repeat(3, 0).repeat(2, 1))
    scaled = [[value * (2, 3)[index % 2] for index, value in enumerate(APART)]]
    rasterized = reference.decode(reference.merge(reference.frPyObjects(scaled, 3 * HEIGHT, 2 * WIDTH)))
    assert np.array_equal(outline, rasterized)
