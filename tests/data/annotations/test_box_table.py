"""CSV tables of boxes: TensorFlow's and Roboflow's, and their relatives."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubel.data.annotations import read_annotations
from hubel.data.annotations.reader import LabelFileError
from labelled_sets import write_image

TABLES = {
    "tensorflow": "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,64,48,cat,5,6,20,30\n",
    "semicolons, no size": "image_name;label;xmin;ymin;xmax;ymax\na.jpg;cat;5;6;20;30\n",
    "decimal commas": "filename;class;xmin;ymin;xmax;ymax\na.jpg;cat;5,0;6;20,0;3e1\n",
    "capitals, an index, CRLF": ",Image,XMin,YMin,XMax,YMax,Label\r\n0,images/a.jpg,5.0,6.0,20.0,30.0,cat\r\n",
    "old Mac line ends": "filename,class,xmin,ymin,xmax,ymax\ra.jpg,cat,5,6,20,30\r",
}


@pytest.mark.parametrize("table", TABLES)
def test_a_row_is_a_box(table: str, tmp_path: Path) -> None:
    for name in "ab":
        write_image(tmp_path / f"{name}.jpg")
    (tmp_path / "labels.csv").write_bytes(TABLES[table].encode())
    dataset = read_annotations(tmp_path)
    found = {image.path.name: image.objects for image in dataset.images()}
    assert dataset.classes == ("cat",)
    assert [obj.box for obj in found["a.jpg"] or ()] == [(5, 6, 20, 30)]
    assert found["b.jpg"] is None


def test_rows_without_box_are_empty_images_and_broken_rows_are_not(tmp_path: Path) -> None:
    header, _ = TABLES["tensorflow"].splitlines()
    rows = [
        "a.jpg,64,48,,,,,",
        "b.jpg,64,48,cat,5,6,x,30",
        "c.jpg,64,48,cat,0.1,0.2,0.5,0.75",
        "d.jpg,64,48,,1,2,3,4",
        "e.jpg,64",
    ]
    for name in "abcde":
        write_image(tmp_path / f"{name}.jpg")
    (tmp_path / "labels.csv").write_text("\n".join([header, *rows]))
    faults: list[LabelFileError] = []
    dataset = read_annotations(tmp_path, on_fault=faults.append)
    assert {image.path.name: image.objects for image in dataset.images()} == {
        "a.jpg": (), "b.jpg": None, "c.jpg": None, "d.jpg": None, "e.jpg": None,
    }  # fmt: skip
    assert [fault.message.partition(", ")[2] for fault in faults] == [
        "line 3: xmax is 'x', not a number of pixels",
        "line 4: has corners from 0 to 1, which are not pixels",
        "line 5: class is '', not a name",
        "line 6: xmin is None, not a number of pixels",
    ]
