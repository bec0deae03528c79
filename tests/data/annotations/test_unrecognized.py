"""Folders without labels that are read: what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubel.data.annotations import read_annotations
from hubel.errors import DataError
from labelled_sets import write_image

KITTI = "Car 0.00 0 -1.57 599.41 156.40 629.75 189.25 2.85 2.63 12.34 0.47 1.49 69.44 -1.56\n"
OTHERS = {
    "labels.json": ('{"info": {}, "categories": {}, "items": []}', "Datumaro's JSON (labels.json)"),
    "results.json": (
        '[{"image_id": 1, "category_id": 1, "score": 0.5}]',
        "COCO detection results",
    ),
    "a-asset.json": ('{"asset": {"name": "a.jpg"}, "regions": []}', "VoTT JSON"),
    "bdd.json": ('[{"name": "a.jpg", "labels": []}]', "BDD100K or Scalabel JSON"),
    "a_gtFine_polygons.json": ('{"imgHeight": 1, "imgWidth": 2, "objects": []}', "Cityscapes polygons"),
    "000001.txt": (KITTI, "KITTI labels"),
    "_annotations.txt": ("a.jpg 1,2,3,4,0 5,6,7,8,1\n", "rows for Keras YOLO"),
    "gt.txt": ("1,1,912,484,97,109,0,7,1\n2,1,912,484,97,109,0,7,1\n", "MOTChallenge text"),
    "P0001.txt": ("1.0 2.0 3.0 2.0 3.0 4.0 1.0 4.0 plane 0\n", "DOTA labels"),
    "data.zip": ("PK", "an archive"),
    "pointer.json": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
    "commas.txt": ("0,12,30,44,90\n", "rows of a class and a box, with commas"),
    "train-00000-of-00001.tfrecord": ("\0", "TFRecord files"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_named_with_what_to_do(name: str, tmp_path: Path) -> None:
    content, title = OTHERS[name]
    write_image(tmp_path / "a.jpg")
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        read_annotations(tmp_path)
    assert title in caught.value.message
    assert name in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) + len(caught.value.hint) < 300


def test_an_empty_folder_is_called_empty(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").touch()
    with pytest.raises(DataError, match="is empty") as caught:
        read_annotations(tmp_path)
    assert caught.value.hint == "put images and their labels into it"


def test_what_is_there_is_counted(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.png"):
        write_image(tmp_path / name)
    (tmp_path / "notes.txt").write_text("to do\n")
    with pytest.raises(DataError, match="has no labels of a known format, but 2 .jpg, 1 .png, 1 .txt") as caught:
        read_annotations(tmp_path)
    assert caught.value.hint.startswith("use COCO JSON, Pascal VOC XML, YOLO")
    assert len(caught.value.hint) < 300


def test_yolo_labels_without_their_images(tmp_path: Path) -> None:
    """As CVAT exports them without "Save images"."""
    (tmp_path / "obj_train_data").mkdir()
    (tmp_path / "obj_train_data" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "obj.names").write_text("cat\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/a.jpg\n")
    with pytest.raises(DataError, match=r"has YOLO's label files \(in obj_train_data\), but no images") as caught:
        read_annotations(tmp_path)
    assert "Save images" in caught.value.hint


def test_a_file_that_is_not_a_label_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 1}')
    with pytest.raises(DataError, match=r"a.json is not a label file of a known format"):
        read_annotations(tmp_path / "a.json")
