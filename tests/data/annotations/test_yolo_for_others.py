"""data.yaml as other programs read it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hubel.data.annotations import read_annotations, write_annotations
from labelled_sets import small_set, write_image


def _written(root: Path) -> dict:
    content = yaml.safe_load((root / "data.yaml").read_text())
    for name in ("train", "val"):
        # Ultralytics: relative to path, or, without one, to the file; in its working directory where path is relative.
        assert (root / content[name]).is_dir()
    return content


def test_it_can_be_used_from_any_folder(tmp_path: Path) -> None:
    write_annotations(small_set(tmp_path / "in"), "yolo", tmp_path / "out")
    content = _written(tmp_path / "out")
    assert "path" not in content
    assert (content["train"], content["val"]) == ("images/train", "images/val")
    assert content["names"] == {0: "bus", 1: "car", 2: "ox"}


def test_a_set_without_splits_says_so(tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "in" / "classes.txt").write_text("cat\n")
    losses = write_annotations(read_annotations(tmp_path / "in"), "yolo", tmp_path / "out")
    assert losses == ("1 images are not split: data.yaml names them as train and as val",)
    assert _written(tmp_path / "out") == {"train": "images", "val": "images", "names": {0: "cat"}}
    assert (tmp_path / "out" / "data.yaml").read_text().startswith("# Not split: train and val are the same images")
    assert list(read_annotations(tmp_path / "out").splits) == ["all"]


@pytest.mark.parametrize("name", ["yes", "null", "010", "2024-01-01", "1e3", "~", "a: b"])
def test_names_are_text_to_every_reader_of_yaml(name: str, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "in" / "classes.txt").write_text(f"{name}\n")
    write_annotations(read_annotations(tmp_path / "in"), "yolo", tmp_path / "out")
    assert _written(tmp_path / "out")["names"] == {0: name}
    assert read_annotations(tmp_path / "out").classes == (name,)
