"""Label Studio's exports JSON-MIN and CSV, in which regions are lists among the data of a task."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from hubel.data.annotations import AnnotatedDataset, read_annotations
from labelled_sets import write_image

SIZE = {"original_width": 200, "original_height": 100}
BOX = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["cat"], **SIZE}
POLYGON = {"points": [[10, 10], [20, 10], [15, 50]], "closed": True, "polygonlabels": ["dog"], **SIZE}
ROWS: list[dict[str, Any]] = [
    {"image": "/data/upload/1/1a2b3c4d-a%20b.jpg", "id": 1, "label": [BOX, POLYGON], "annotator": 1},
    {"image": "/data/upload/1/1a2b3c4d-a%20b.jpg", "id": 1, "label": [BOX], "annotator": 2},
    {"image": "/data/upload/1/5e6f7a8b-empty.jpg", "id": 2, "quality": "good", "annotator": 1},
    {"image": "/data/upload/1/5e6f7a8b-broken.jpg", "id": 3, "label": [{**BOX, "width": "x"}], "annotator": 1},
]


def _rows() -> list[dict[str, Any]]:
    times = {"created_at": "2024-05-01T10:00:00Z", "updated_at": "2024-05-01T10:00:00Z", "lead_time": 3.5}
    return [{**row, "annotation_id": number, **times} for number, row in enumerate(ROWS, 1)]


def _as_json(path: Path) -> None:
    path.with_suffix(".json").write_text(json.dumps(_rows()))


def _as_csv(path: Path) -> None:
    rows = [{k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in _rows()]
    with path.with_suffix(".csv").open("w", newline="") as file:
        table = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        table.writeheader()
        table.writerows(rows)


@pytest.mark.parametrize("write", [_as_json, _as_csv])
def test_regions_of_every_annotator_are_read(write: Any, tmp_path: Path) -> None:
    for name in ("a b", "empty", "broken"):
        write_image(tmp_path / f"{name}.jpg", 200, 100)
    write(tmp_path / "project-1-at-2024")
    dataset: AnnotatedDataset = read_annotations(tmp_path, on_fault=lambda _: None)
    assert (dataset.format, dataset.classes) == ("label-studio", ("cat", "dog"))
    found = {image.path.stem: image.objects for image in dataset.images()}
    box, outline, other = found["a b"] or ()
    assert (box.box, box.annotator) == ((20, 20, 80, 60), "1")
    assert outline.polygons == ((20, 10, 40, 10, 30, 50),)
    assert other.annotator == "2"
    assert (found["empty"], found["broken"]) == ((), None)


def test_labels_apart_from_their_shapes(tmp_path: Path) -> None:
    """With the controls Rectangle and Labels, a region is in both lists."""
    write_image(tmp_path / "a.jpg", 200, 100)
    shape = {name: value for name, value in BOX.items() if name != "rectanglelabels"}
    row = {"image": "a.jpg", "id": 1, "annotation_id": 2, "box": [shape], "label": [{**shape, "labels": ["cat"]}]}
    (tmp_path / "result.json").write_text(json.dumps([row]))
    (image,) = read_annotations(tmp_path).images()
    assert [obj.box for obj in image.objects or ()] == [(20, 20, 80, 60)]


def test_rows_of_versions_without_ids_of_annotations(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", 200, 100)
    (tmp_path / "result.json").write_text(json.dumps([{"image": "a.jpg", "id": 1, "label": [BOX]}]))
    dataset = read_annotations(tmp_path)
    assert [len(image.objects or ()) for image in dataset.images()] == [1]
