"""Images that label only some classes: from LVIS's keys and from a table beside the labels to the targets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from hubel.cli.main import app
from hubel.data.annotated_images import read_annotated_images
from hubel.data.annotations import AnnotatedDataset, read_annotations, write_annotations
from hubel.data.checks.statistics import statistics
from hubel.data.instances import read_instances, read_labels
from hubel.data.loader import BatchDataset
from hubel.data.object_masks import read_object_masks
from hubel.data.preprocessing import Preprocessing
from hubel.data.transforms.object_transform import ObjectTransform, WindowSampler
from hubel.data.transforms.pipeline import Transform
from hubel.errors import DataError
from hubel.tasks.detection.task import objects_of
from labelled_sets import small_set, write_image

NAMES = ("cat", "dog", "bird", "cow")

# As LVIS describes its fields: of image 1 cats are labelled, dogs in part, no bird is there, of cows nobody knows.
LVIS: dict[str, Any] = {
    "images": [
        {
            "id": 1,
            "file_name": "a.png",
            "width": 64,
            "height": 48,
            "neg_category_ids": [30],
            "not_exhaustive_category_ids": [20],
        },
        {"id": 2, "file_name": "b.png", "width": 64, "height": 48, "neg_category_ids": [10, 20]},
        {"id": 3, "file_name": "c.png", "width": 64, "height": 48},
        {
            "id": 4,
            "file_name": "d.png",
            "width": 64,
            "height": 48,
            "neg_category_ids": [],
            "not_exhaustive_category_ids": [],
        },
    ],
    "annotations": [
        {"id": id_, "image_id": image, "category_id": category, "bbox": [8 * id_, 5, 20, 20], "segmentation": [points]}
        for id_, image, category in [(1, 1, 10), (2, 1, 20), (3, 3, 40), (4, 1, 10)]
        for points in [[8 * id_, 5, 8 * id_ + 20, 5, 8 * id_ + 20, 25, 8 * id_, 25]]
    ],
    "categories": [{"id": 10 * (index + 1), "name": name} for index, name in enumerate(NAMES)],
}


def lvis(folder: Path, content: dict[str, Any] | None = None) -> Path:
    for name in "abcd":
        write_image(folder / "images" / f"{name}.png")
    (folder / "labels.json").write_text(json.dumps(LVIS if content is None else content))
    return folder


def labelled_in(dataset: AnnotatedDataset) -> dict[str, tuple[int, ...] | None]:
    return {image.path.name: image.labelled for image in dataset.images()}


LABELLED = {"a.png": (0, 2), "b.png": (0, 1), "c.png": None, "d.png": ()}


def test_keys_of_lvis(tmp_path: Path) -> None:
    assert labelled_in(read_annotations(lvis(tmp_path))) == LABELLED
    for read in (read_annotated_images, read_instances):
        (samples,) = read(tmp_path).splits.values()
        found = [None if each.labelled is None else each.labelled.tolist() for each in samples]
        assert found == [[0, 2], [0, 1], None, []]


def test_unknown_category_is_refused(tmp_path: Path) -> None:
    images = [{**LVIS["images"][0], "neg_category_ids": [99]}, *LVIS["images"][1:]]
    with pytest.raises(DataError, match=r"labels.json, image 1: neg_category_ids has 99, which is not one of the"):
        read_annotations(lvis(tmp_path, {**LVIS, "images": images}))


@pytest.mark.parametrize("format", ["coco", "voc", "yolo", "via", "open-images"])
def test_what_is_labelled_is_written_and_read_again(format: str, tmp_path: Path) -> None:
    source = small_set(tmp_path / "source")
    stated = [None, (0, 2), (), (1,)]
    splits = {
        split: tuple(
            image if image.objects is None else replace(image, labelled=stated[(number + len(split)) % 4])
            for number, image in enumerate(images)
        )
        for split, images in source.splits.items()
    }
    source = replace(source, splits=splits)
    assert len(set(labelled_in(source).values())) == 4
    write_annotations(source, format, tmp_path / "out")
    assert labelled_in(read_annotations(tmp_path / "out")) == labelled_in(source)


def test_written_coco_has_the_keys_of_lvis(tmp_path: Path) -> None:
    write_annotations(read_annotations(lvis(tmp_path / "in")), "coco", tmp_path / "out")
    content = json.loads((tmp_path / "out" / "annotations" / "instances_all.json").read_text())
    keys = ("neg_category_ids", "not_exhaustive_category_ids")
    rows = {row["file_name"]: tuple(row.get(key) for key in keys) for row in content["images"]}
    assert rows == {"a.png": ([30], [20]), "b.png": ([10, 20], []), "c.png": (None, None), "d.png": ([], [])}
    assert not (tmp_path / "out" / "labelled_classes.csv").exists()


def test_answers_in_open_images(tmp_path: Path) -> None:
    """As published: what people answered of a class in an image, and boxes of the classes that are there."""
    for name in "abcd":
        write_image(tmp_path / "train" / f"{name}.jpg")
    columns = "ImageID,Source,LabelName,Confidence"
    boxes = "a,xclick,/m/1,1,0.1,0.5,0.2,0.7\nb,xclick,/m/2,1,0.1,0.5,0.2,0.7\nd,xclick,/m/3,1,0.1,0.5,0.2,0.7\n"
    (tmp_path / "train-annotations-bbox.csv").write_text(f"{columns},XMin,XMax,YMin,YMax\n{boxes}")
    answers = ["a,/m/1,1", "a,/m/3,0", "a,/m/2,1", "b,/m/2,1", "c,/m/2,0", "c,/m/9,0", "nowhere,/m/3,0"]
    rows = "".join(
        f"{image},verification,{label},{answer}\n" for image, label, answer in (r.split(",") for r in answers)
    )
    (tmp_path / "train-annotations-human-imagelabels-boxable.csv").write_text(f"{columns}\n{rows}")
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/1,Cat\n/m/2,Dog\n/m/3,Hen\n/m/9,Yak\n")
    dataset = read_annotations(tmp_path)
    assert dataset.classes == ("Cat", "Dog", "Hen")
    # Of d nobody was asked anything beyond its box: as before, all is labelled. Nothing has a box of a yak.
    assert labelled_in(dataset) == {"a.jpg": (0, 2), "b.jpg": (1,), "c.jpg": (1,), "d.jpg": None}
    assert [len(image.objects or ()) for image in sorted(dataset.images(), key=lambda each: each.path)] == [1, 1, 0, 1]


def yolo(folder: Path, table: str) -> Path:
    for name in ("road/a", "road/b", "park/c", "park/d", "e"):
        write_image(folder / "images" / f"{name}.png")
        labels = folder / "labels" / f"{name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        labels.write_text("1 0.5 0.5 0.25 0.25\n")
    (folder / "data.yaml").write_text("names: [cat, dog, bird, cow]\npath: .\ntrain: images\n")
    (folder / "labelled_classes.csv").write_text(table)
    return folder


def test_table_beside_the_labels(tmp_path: Path) -> None:
    table = "images/road,dog, cat\nimages/park/,cow\n\n./images/park/d.png\n"
    found = labelled_in(read_annotations(yolo(tmp_path, table)))
    assert found == {"a.png": (0, 1), "b.png": (0, 1), "c.png": (3,), "d.png": (), "e.png": None}
    (tmp_path / "labelled_classes.csv").write_text(".,bird\nimages/e.png,cat,dog,bird,cow\n")
    found = labelled_in(read_annotations(tmp_path))
    assert found == {"a.png": (2,), "b.png": (2,), "c.png": (2,), "d.png": (2,), "e.png": None}  # all


def test_table_beside_masks_of_objects(tmp_path: Path) -> None:
    for name in "ab":
        write_image(tmp_path / "images" / f"{name}.png", 24, 20)
        (tmp_path / "instances").mkdir(exist_ok=True)
        Image.fromarray(np.eye(20, 24, dtype=np.uint8)).save(tmp_path / "instances" / f"{name}.png")
    (tmp_path / "classes.txt").write_text("cell\n")
    (tmp_path / "labelled_classes.csv").write_text("images/a.png\nimages/b.png,cell\n")  # of a, not all cells
    data = read_instances(tmp_path)
    assert [each.labelled is None or each.labelled.tolist() for each in data.splits["all"]] == [[], True]
    assert data.warnings == ("1 of 2 labelled images label only some classes",)
    assert labelled_in(read_labels(tmp_path)) == {"a.png": (), "b.png": None}


def test_table_replaces_what_a_label_file_says(tmp_path: Path) -> None:
    (lvis(tmp_path) / "labelled_classes.csv").write_text("images/a.png,cow\n")
    assert labelled_in(read_annotations(tmp_path)) == {**LABELLED, "a.png": (3,)}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("images/road,dog\nimages/park,hen\n", "line 2: 'hen' is not one of the classes: cat, dog, bird, cow"),
        ("images/rood,dog\n", "line 1: 'images/rood' is neither a folder nor an image"),
        ("../labels,dog\n", "line 1: '../labels' is neither a folder nor an image"),
        ("x" * 5000 + ",dog\n", "line 1: 'xxx"),
        (",dog\n", "line 1: begins with no path"),
        ("images/road,dog\nimages/road/,cat\n", "line 2: 'images/road' is in line 1 too"),
    ],
    ids=["class", "path", "above", "long", "none", "twice"],
)
def test_faults_in_the_table_are_refused(table: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_annotations(yolo(tmp_path, table))
    assert caught.value.message.startswith(f"{tmp_path / 'labelled_classes.csv'}, {message}")


def test_merged_classes_are_labelled_where_both_are(tmp_path: Path) -> None:
    image = read_annotations(lvis(tmp_path)).images()[0]  # (0, 2) of four
    assert image.relabel({0: 0, 1: 0, 2: 1, 3: 2}).labelled == (1,)
    assert image.relabel({0: 1, 1: 2, 2: 1, 3: 0}).labelled == (1,)
    assert replace(image, labelled=None).relabel({0: 0, 1: 0, 2: 1, 3: 2}).labelled is None


def test_classes_of_a_model_in_another_order(tmp_path: Path) -> None:
    data = read_annotated_images(lvis(tmp_path)).remap_classes(["dog", "hen", "cow", "bird", "cat"])
    found = [None if each.labelled is None else each.labelled.tolist() for each in data.splits["all"]]
    assert found == [[3, 4], [0, 4], None, []]


@pytest.mark.parametrize(
    ("transform", "wanted"),
    [
        (ObjectTransform(Preprocessing(48, 64)), {(0, 2), (0, 1), None, ()}),
        (ObjectTransform(Preprocessing(48, 64), ["crop", "flip"]), {(0, 2), (0, 1), None, ()}),
        (WindowSampler(Preprocessing(48, 64, resize="stretch"), 32, ["flip"]), {(0, 2), (0, 1), None, ()}),
        # What is labelled in all of four images: of a and b cats alone, of c all, of d nothing.
        (ObjectTransform(Preprocessing(48, 64), ["mosaic"]), {(0, 2), (0, 1), None, (), (0,)}),
        # An image is itself, whatever is pasted on it.
        (ObjectTransform(Preprocessing(48, 64), ["copy-paste"]), {(0, 2), (0, 1), None, ()}),
    ],
    ids=["plain", "ssd", "windows", "mosaic", "copy-paste"],
)
def test_targets_say_what_is_labelled(transform: Transform, wanted: set[Any], tmp_path: Path) -> None:
    samples = read_instances(lvis(tmp_path)).splits["all"]
    data = BatchDataset(samples, transform, 0)
    found = set()
    for epoch in range(12):
        for index in range(4):
            batch = data.__getitems__([(epoch, index)])
            (labelled,) = {None if each.labelled is None else tuple(each.labelled.tolist()) for each in batch.targets}
            found.add(labelled)
            own = samples[index].labelled
            assert labelled is not None or own is None
            assert labelled is None or own is None or np.isin(labelled, own).all()
    assert found == wanted


def test_targets_of_losses(tmp_path: Path) -> None:
    samples = read_annotated_images(lvis(tmp_path)).splits["all"]
    batch = BatchDataset(samples, ObjectTransform(Preprocessing(64, 64)), 0).__getitems__([(0, k) for k in range(4)])
    found = [objects_of(target, 4, torch.device("cpu")).labelled for target in batch.targets]
    wanted = [[True, False, True, False], [True, True, False, False], None, [False] * 4]
    assert [None if each is None else each.tolist() for each in found] == wanted
    every = replace(batch.targets[0], labelled=np.arange(4))
    assert objects_of(every, 4, torch.device("cpu")).labelled is None  # and costs nothing


def test_pixels_of_no_object_do_not_count_in_class_maps(tmp_path: Path) -> None:
    data = read_object_masks(lvis(tmp_path))
    found = [each.class_map.read() for each in data.splits["all"] if each.class_map is not None]
    assert [np.unique(each).tolist() for each in found] == [[1, 2, 255], [255], [0, 4], [255]]
    assert data.classes == ("background", *NAMES) and all(each.labelled is None for each in data.splits["all"])


def test_statistics_count_who_labels_what(tmp_path: Path) -> None:
    dataset = read_annotations(lvis(tmp_path))
    assert dataset.warnings == ("3 of 4 labelled images label only some classes",)
    numbers = statistics(dataset)
    # Image c labels all; a cats and birds, b cats and dogs, d nothing.
    counts = {"cat": 3, "dog": 2, "bird": 2, "cow": 1}
    assert numbers.as_json()["splits"]["all"]["labelled_by_class"] == counts == numbers.labelled_by_class
    run = CliRunner().invoke(app, ["data", "stats", str(tmp_path)])
    assert run.exit_code == 0
    assert "images that label all objects of a class: cat 3, dog 2, bird 2, cow 1\n" in run.stdout
    images = [{key: image[key] for key in ("id", "file_name", "width", "height")} for image in LVIS["images"]]
    whole = statistics(read_annotations(lvis(tmp_path, {**LVIS, "images": images})))
    assert whole.labelled_by_class is None and "labelled_by_class" not in whole.as_json()["splits"]["all"]
