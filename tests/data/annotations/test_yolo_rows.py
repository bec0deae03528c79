"""Rows of a class and numbers: boxes, outlines, poses, what trackers append."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from hubel.data.annotated_images import read_annotated_images
from hubel.data.annotations import AnnotatedDataset, read_annotations
from hubel.data.annotations.reader import LabelFileError
from hubel.data.annotations.yolo_rows import detect_layout
from hubel.errors import DataError
from labelled_sets import write_image

BOX = "0 0.5 0.5 0.4 0.2"
AS_READ = (30, 40, 70, 60)
OUTLINE = "0 0.3 0.4 0.7 0.4 0.7 0.6 0.3 0.6"


def yolo(root: Path, *rows: str, more: str = "", names: str = "[cat]") -> AnnotatedDataset:
    for number, row in enumerate(rows):
        write_image(root / "images" / f"{number}.jpg", 100, 100)
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{number}.txt").write_text(row)
    (root / "data.yaml").write_text(f"train: images\nval: images\nnames: {names}\n{more}")
    return read_annotations(root)


def _objects(dataset: AnnotatedDataset) -> list[tuple]:
    return [
        (tuple(round(value, 6) for value in obj.box), bool(obj.polygons), obj.score)
        for image in dataset.images()
        for obj in image.objects or ()
    ]


@pytest.mark.parametrize(
    ("shape", "points"),
    [
        ("[2, 3]", "0.4 0.4 2 0.6 0.6 1"),
        ("[4, 2]", "0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6"),
        ("[1, 3]", "0.4 0.4 2"),
        ("[1, 2]", "0.4 0.4"),
        ("['2', '2']", "0 0 0 0"),
        ("[17, 3]", " ".join(["0.4 0.5 2"] * 17)),
    ],
)
def test_kpt_shape_makes_poses(shape: str, points: str, tmp_path: Path) -> None:
    dataset = yolo(tmp_path, f"{BOX} {points}", BOX, more=f"kpt_shape: {shape}\n")
    assert _objects(dataset) == [(AS_READ, False, None)] * 2
    assert "1 objects have key points: left out" in dataset.warnings


def test_a_row_that_does_not_fit_kpt_shape_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="0.txt, line 1: has 8 numbers after the class; a pose of 2 × 3 has 10"):
        yolo(tmp_path, OUTLINE, more="kpt_shape: [2, 3]\n")


@pytest.mark.parametrize("shape", ["17", "[17]", "[0, 3]", "[17, 4]", "[a, b]"])
def test_a_kpt_shape_that_is_none_is_named(shape: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data.yaml: kpt_shape is"):
        yolo(tmp_path, BOX, more=f"kpt_shape: {shape}\n")


@pytest.mark.parametrize(
    ("points", "shape"),
    [("0.4 0.45 2 0.6 0.55 1", "[2, 3]"), ("0.4 0.45 2", "[1, 3]"), ("0.4 0.45 0.6 0.55 0.4 0.55 0.6 0.45", "[4, 2]")],
)
def test_poses_without_kpt_shape_are_told_by_their_numbers(points: str, shape: str, tmp_path: Path) -> None:
    dataset = yolo(tmp_path, f"{BOX} {points}", f"{BOX} {points}")
    assert _objects(dataset) == [(AS_READ, False, None)] * 2
    assert dataset.warnings[0] == f"rows are read as poses, as kpt_shape: {shape} in data.yaml would declare them"


def test_outlines_stay_outlines(tmp_path: Path) -> None:
    """Of equal length, as rotated boxes are, or of different ones."""
    circle = " ".join(f"{0.7 + 0.1 * math.cos(i):.4f} {0.8 + 0.1 * math.sin(i):.4f}" for i in range(6))
    dataset = yolo(tmp_path, OUTLINE, "0 0.6 0.7 0.8 0.75 0.75 0.95 0.55 0.9")
    assert [is_outline for _, is_outline, _ in _objects(dataset)] == [True, True]
    assert dataset.warnings == ()
    assert detect_layout([[float(v) for v in circle.split()], [0.1, 0.1, 0.2, 0.1, 0.2, 0.2]]).keypoints is None


def test_what_may_be_either_is_said(tmp_path: Path) -> None:
    """The points lie in the box that the first four numbers would be, and make an outline too."""
    dataset = yolo(tmp_path, "0 0.5 0.5 0.6 0.6 0.5 0.7 0.4 0.6")
    assert [is_outline for _, is_outline, _ in _objects(dataset)] == [True]
    assert dataset.warnings[0].startswith("rows are read as outlines; if they are poses, a box and key points, declare")


def test_what_a_tracker_appends(tmp_path: Path) -> None:
    dataset = yolo(tmp_path, f"{BOX} 0.9 17\n{BOX} 0.8 1\n")
    assert _objects(dataset) == [(AS_READ, False, 0.9), (AS_READ, False, 0.8)]
    assert "2 rows end with the id of a track: left out" in dataset.warnings
    dataset = yolo(tmp_path / "ids", f"{BOX} 17\n{BOX} 0.5\n")
    assert _objects(dataset) == [(AS_READ, False, None), (AS_READ, False, 0.5)]


@pytest.mark.parametrize("score", ["1.5", "-0.5"])
def test_a_score_that_is_none_is_an_error(score: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"the fifth number is {score}, not a score from 0 to 1"):
        yolo(tmp_path, f"{BOX} {score}\n")


def test_blank_lines_are_no_objects(tmp_path: Path) -> None:
    dataset = yolo(tmp_path, "\n \n", f"\n{BOX}\r\n\n")
    assert [len(image.objects or ()) for image in dataset.images()] == [0, 1]
    assert all(image.objects is not None for image in dataset.images())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("[yes, no]", ("yes", "no")),
        ("[on, off, y, n]", ("on", "off", "y", "n")),
        ("[null, ~, None]", ("null", "~", "None")),
        ("[010, 0x1F, 1_000, 1e3, 12:30]", ("010", "0x1F", "1_000", "1e3", "12:30")),
        ("[2024-01-01, 1.0, 1, .5]", ("2024-01-01", "1.0", "1", ".5")),
        ("{0: yes, 1: no}", ("yes", "no")),
        ("{'1': no, '0': yes}", ("yes", "no")),
        ("['a: b', \"c\"]", ("a: b", "c")),
        ("\n- true\n- false", ("true", "false")),
    ],
)
def test_names_stay_as_they_are_written(names: str, expected: tuple[str, ...], tmp_path: Path) -> None:
    assert yolo(tmp_path, BOX, names=names).classes == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("[cat, cat]", "has the class 'cat' twice"),
        ("{0: cat, 0: dog}", "is not valid YAML (line 3: '0' is there twice)"),
        ("{0: cat, 2: dog}", "numbers its classes [0, 2]"),
        ("[cat, ]\n\tnc: 1", "is not valid YAML (line 4, column 1: a tab"),
        ("[[cat]]", "a class name is a list of 1, not a name"),
    ],
)
def test_names_that_cannot_be_used_are_named(names: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        yolo(tmp_path, BOX, names=names)
    assert message in caught.value.message


def test_names_in_a_file_of_their_own(tmp_path: Path) -> None:
    tmp_path.joinpath("data").mkdir()
    (tmp_path / "data" / "obj.names").write_text("cat\ndog\n\n")
    assert yolo(tmp_path, BOX, names="data/obj.names").classes == ("cat", "dog")


def test_a_count_that_differs_from_the_names_is_said(tmp_path: Path) -> None:
    assert "nc is 3, but there are 1 names, which are used" in yolo(tmp_path, BOX, more="nc: 3\n").warnings[0]


def test_an_unknown_class_leaves_its_image_unlabelled(tmp_path: Path) -> None:
    yolo(tmp_path, BOX)
    (tmp_path / "labels" / "0.txt").write_text("1_0 0.5 0.5 0.1 0.1\n")
    faults: list[LabelFileError] = []
    (image,) = read_annotations(tmp_path, on_fault=faults.append).images()
    assert image.objects is None
    assert "the class is '1_0', not a whole number" in faults[0].message


@pytest.mark.parametrize(
    "row",
    [
        "0,0.5,0.5,0.4,0.2", "0, 0.5, 0.5, 0.4, 0.2", "0;0.5;0.5;0.4;0.2;", "0\t0.5\t0.5\t0.4\t0.2",
        "0 0,5 0,5 0,4 0,2", "0 0.5,0.5,0.4,0.2", "0, 0.5 0.5 0.4 0.2,", "cat 0.5 0.5 0.4 0.2", "cat,0.5,0.5,0.4,0.2",
    ],
)  # fmt: skip
def test_rows_with_other_separators_and_with_names(tmp_path: Path, row: str) -> None:
    assert _objects(yolo(tmp_path, row)) == [(AS_READ, False, None)]


def test_rows_with_separators_need_no_data_yaml(tmp_path: Path) -> None:
    yolo(tmp_path, "1,0.5,0.5,0.4,0.2", names="[cat, traffic light]")
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cat\ntraffic light\n")
    dataset = read_annotations(tmp_path)
    assert dataset.format == "yolo" and _objects(dataset) == [(AS_READ, False, None)]
    (tmp_path / "labels" / "0.txt").write_text("traffic light 0.5 0.5 0.4 0.2\ntraffic light 0.5 0.5 0.4 0.2")
    dataset = read_annotations(tmp_path)
    assert [obj.label for image in dataset.images() for obj in image.objects or ()] == [1, 1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("dog 0.5 0.5 0.4 0.2", "class 'dog' is not one of the 1 classes"),
        ("0,0.5,,0.4,0.2", "a coordinate is '', not a number"),
        ("0_0 0.5 0.5 0.4 0.2", "the class is '0_0', not a whole number"),
    ],
)
def test_rows_that_are_wrong_in_spite_of_separators(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(LabelFileError) as caught:
        yolo(tmp_path, row)
    assert message in caught.value.message


def test_names_that_begin_with_a_digit(tmp_path: Path) -> None:
    assert _objects(yolo(tmp_path, "3d printer 0.5 0.5 0.4 0.2", names="[3d printer]")) == [(AS_READ, False, None)]


def test_a_label_file_named_after_the_whole_image(tmp_path: Path) -> None:
    yolo(tmp_path, BOX)
    (tmp_path / "labels" / "0.txt").rename(tmp_path / "labels" / "0.jpg.txt")
    assert _objects(read_annotations(tmp_path)) == [(AS_READ, False, None)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "# names\ncat\ndog\n"),
        ("classes.txt", "0 cat\n1 dog\n"),
        ("_classes.txt", "0: cat\n1: dog\n\n"),
        ("obj.names", "cat\ndog"),
    ],
)
def test_lists_of_classes(tmp_path: Path, name: str, text: str) -> None:
    yolo(tmp_path, BOX)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / name).write_text(text)
    assert read_annotations(tmp_path).classes == ("cat", "dog")


def test_an_empty_line_in_a_list_of_classes_is_refused(tmp_path: Path) -> None:
    yolo(tmp_path, BOX)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("cat\n\ndog\n")
    with pytest.raises(DataError, match=r"classes\.txt, line 2: is empty"):
        read_annotations(tmp_path)


def test_names_that_begin_with_other_numbers_stay(tmp_path: Path) -> None:
    yolo(tmp_path, BOX)
    (tmp_path / "data.yaml").unlink()
    (tmp_path / "classes.txt").write_text("0 km\n5 km\n")
    assert read_annotations(tmp_path).classes == ("0 km", "5 km")


def test_pixels_for_fractions_do_not_become_boxes_of_the_whole_image(tmp_path: Path) -> None:
    yolo(tmp_path, BOX, "0 50 50 100 100")
    data = read_annotated_images(tmp_path)
    assert [sample.path.name for samples in data.splits.values() for sample in samples] == ["0.jpg"]
    assert any("1 box of more than twice the size of their image" in warning for warning in data.warnings)
