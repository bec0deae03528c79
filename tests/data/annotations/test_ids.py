"""Ids are keys: they match where they are the same, and are numbers only where they are written as numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from hubel.data.annotations import parse, read_annotations, write_annotations
from hubel.data.annotations.reader import LabelFileError
from labelled_sets import write_image


def coco(root: Path, images: list[Any], annotations: list[tuple[Any, Any]], categories: list[Any]) -> Path:
    """A COCO set: ids of images, (image_id, category_id) of annotations with different boxes, ids of categories."""
    names = [f"{chr(97 + index)}.jpg" for index in range(len(images))]
    for name in names:
        write_image(root / name)
    content = {
        "images": [{"id": id_, "file_name": name} for id_, name in zip(images, names, strict=True)],
        "annotations": [
            {"id": f"x{number}", "image_id": image, "category_id": category, "bbox": [number, 2, 30, 40]}
            for number, (image, category) in enumerate(annotations, 1)
        ],
        "categories": [{"id": id_, "name": f"class {id_}"} for id_ in categories],
    }
    (root / "labels.json").write_text(json.dumps(content))
    return root


def found(root: Path, **more: Any) -> dict[str, list[tuple[str, float]] | None]:
    """By image, the class and left edge of each object; ``None`` for an unlabelled image."""
    dataset = read_annotations(root, **more)
    return {
        image.path.name: image.objects
        if image.objects is None
        else [(dataset.classes[obj.label], obj.box[0]) for obj in image.objects]
        for image in dataset.images()
    }


@pytest.mark.parametrize("ids", [["0000001_02999_d_05", "b"], ["1_12", "11_2"], [12, "1_2"], ["01", 1], ["\u0661", 1]])
def test_text_ids_of_images_stay_apart(ids: list[Any], tmp_path: Path) -> None:
    coco(tmp_path, ids, [(ids[0], 1), (ids[1], 1)], [1])
    assert found(tmp_path) == {"a.jpg": [("class 1", 1)], "b.jpg": [("class 1", 2)]}


@pytest.mark.parametrize(("image", "annotation"), [(7, "7"), ("7", 7), (7.0, 7), (0, "0"), (-3, "-3")])
def test_a_number_matches_its_text(image: Any, annotation: Any, tmp_path: Path) -> None:
    coco(tmp_path, [image], [(annotation, "1")], [1])
    assert found(tmp_path) == {"a.jpg": [("class 1", 1)]}


def test_text_ids_of_categories_come_after_numbers_and_in_order(tmp_path: Path) -> None:
    coco(tmp_path, [1], [(1, "b"), (1, 10), (1, "9")], ["b", 10, "9", "a"])
    dataset = read_annotations(tmp_path)
    assert dataset.classes == ("class 9", "class 10", "class a", "class b")
    assert dataset.category_ids is None
    assert [obj.label for obj in dataset.images()[0].objects or ()] == [3, 1, 0]


@pytest.mark.parametrize("ids", [["x", "y"], [3, 5], ["3", 4]])
def test_ids_are_kept_where_they_are_of_one_kind(ids: list[Any], tmp_path: Path) -> None:
    coco(tmp_path / "in", ids, [(ids[1], 1)], [1])
    write_annotations(read_annotations(tmp_path / "in"), "coco", tmp_path / "out")
    written = COCO(tmp_path / "out" / "annotations" / "instances_all.json")
    kept = [int(id_) if id_ in ("3", 4) else id_ for id_ in ids]
    assert sorted(written.imgs) == kept
    assert [a["image_id"] for a in written.anns.values()] == [kept[1]]


def test_one_id_of_two_images_labels_neither(tmp_path: Path) -> None:
    coco(tmp_path, [1, "1", 2], [(1, 1), (2, 1)], [1])
    faults: list[LabelFileError] = []
    assert found(tmp_path, on_fault=faults.append) == {"a.jpg": None, "b.jpg": None, "c.jpg": [("class 1", 2)]}
    assert [fault.message.partition(", ")[2] for fault in faults] == [
        "image 1: has the id 1 of another image: whose labels are whose is not clear",
        "image 2: has the id 1 of another image: whose labels are whose is not clear",
    ]


def test_a_category_id_with_two_names_labels_nothing(tmp_path: Path) -> None:
    root = coco(tmp_path, [1, 2], [(1, 1), (2, 2)], [1, 2])
    content = json.loads((root / "labels.json").read_text())
    content["categories"].append({"id": "1", "name": "dog"})
    (root / "labels.json").write_text(json.dumps(content))
    faults: list[LabelFileError] = []
    assert found(root, on_fault=faults.append) == {"a.jpg": None, "b.jpg": [("class 2", 2)]}
    assert "category 1 is 'dog' here and 'class 1' elsewhere" in faults[0].message


def test_where_ids_do_not_fit_each_other_no_image_is_taken_as_empty(tmp_path: Path) -> None:
    coco(tmp_path, ["0001", "0002", "x"], [(1, 1), (2, 1), ("x", 1)], [1])
    assert found(tmp_path) == {"a.jpg": None, "b.jpg": None, "c.jpg": [("class 1", 3)]}


@pytest.mark.parametrize("id_", [9, "2 ", "02", "b.jpg"])
def test_where_one_annotation_s_image_is_not_known_no_image_is_taken_as_empty(id_: Any, tmp_path: Path) -> None:
    coco(tmp_path, [1, 2, 3], [(1, 1), (1, 1), (1, 1), (id_, 1), (3, 1)], [1])
    assert found(tmp_path) == {"a.jpg": [("class 1", n) for n in (1, 2, 3)], "b.jpg": None, "c.jpg": [("class 1", 5)]}


@pytest.mark.parametrize("categories", [True, 3, "cat", {"id": 1}])
def test_categories_that_are_no_list_are_named(categories: Any, tmp_path: Path) -> None:
    root = coco(tmp_path, [1], [(1, 1)], [1])
    content = json.loads((root / "labels.json").read_text())
    (root / "labels.json").write_text(json.dumps({**content, "categories": categories}))
    faults: list[LabelFileError] = []
    assert found(root, on_fault=faults.append) == {"a.jpg": None}
    assert "categories is" in faults[0].message and "not a list" in faults[0].message


@pytest.mark.parametrize("bad", [None, True, [], float("nan"), ""])
def test_what_is_not_an_id_is_an_error(bad: Any, tmp_path: Path) -> None:
    coco(tmp_path, [1, 2], [(1, 1), (bad, 1)], [1])
    faults: list[LabelFileError] = []
    assert found(tmp_path, on_fault=faults.append) == {"a.jpg": [("class 1", 1)], "b.jpg": None}
    assert "annotation 2: image_id is" in faults[0].message
    assert "not an id" in faults[0].message


@pytest.mark.parametrize(
    "text", ["1_12", "\u0661\u0662", "inf", "-inf", "nan", "1e400", "0x10", "1,5", "", "--1", "1 2"]
)
def test_python_s_own_numbers_are_no_coordinates(text: str) -> None:
    with pytest.raises(parse.InvalidAnnotation):
        parse.number(text)
    with pytest.raises(parse.InvalidAnnotation):
        parse.integer(text, "it")


@pytest.mark.parametrize(
    ("text", "number"), [("12", 12), (" 3 ", 3), ("+4", 4), ("-0.5", -0.5), ("1e2", 100), (".5", 0.5)]
)
def test_plain_numbers_in_text(text: str, number: float) -> None:
    assert parse.number(text) == number
