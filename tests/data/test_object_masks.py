"""Class maps of labelled objects are pycocotools' masks, in any format; background, overlaps, what does not count."""

from __future__ import annotations

import base64
import io
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation, write_annotations
from hubel.data.checks.training_checks import check_masks
from hubel.data.class_maps import class_map_fault, read_class_maps
from hubel.data.samples import ImageDataset, Sample
from hubel.errors import DataError
from hubel.masks import encode
from hubel.tasks.registry import guess_task
from labelled_sets import write_image

WIDTH, HEIGHT = 64, 48
# Coordinates that a little rounding does not bring to another pixel; COCO rounds to fifths.
LARGE = (4.06, 4.06, 40.26, 6.06, 42.06, 40.06, 6.06, 38.06)
SMALL = (20.06, 10.06, 60.06, 12.06, 50.06, 30.06)
APART = (50.06, 36.06, 62.06, 36.06, 62.06, 46.06, 50.06, 46.06)
HOLE = (12.06, 12.06, 18.06, 12.06, 18.06, 30.06, 12.06, 30.06)


def pixels(*polygons: tuple[float, ...]) -> np.ndarray:
    """Pixels inside any of the polygons, by pycocotools."""
    rle = reference.merge(reference.frPyObjects([list(each) for each in polygons], HEIGHT, WIDTH))
    return np.array(reference.decode(rle), bool)


def drawn(*objects: tuple[np.ndarray, int], background: int = 0) -> np.ndarray:
    """A class map of pixels and classes, each over the ones before."""
    class_map = np.full((HEIGHT, WIDTH), background, np.uint8)
    for inside, label in objects:
        class_map[inside] = label
    return class_map


def ring() -> np.ndarray:
    """A disc with a hole."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(x - 30, y - 24)
    return (distance < 18) & (distance > 7)


def lengths(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, column by column, zeros first."""
    flat = mask.ravel("F")
    runs = np.diff(np.flatnonzero(np.concatenate(([True], flat[1:] != flat[:-1], [True])))).tolist()
    return [0, *runs] if flat[0] else runs


def coco(root: Path, *rows: dict[str, Any], names: Iterable[str] = ("cat", "dog"), **image: Any) -> Path:
    """A COCO file of one image."""
    write_image(root / "a.png", WIDTH, HEIGHT)
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT, **image}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
        "annotations": [{"id": number, "image_id": 1, **row} for number, row in enumerate(rows)],
    }
    file = root / "labels.json"
    file.write_text(json.dumps(content))
    return file


def only(data: ImageDataset) -> Sample:
    ((sample,),) = data.splits.values()
    return sample


def class_map(data: ImageDataset) -> np.ndarray:
    found = only(data).class_map
    assert found is not None
    return found.read()


@pytest.mark.data
def test_polygons_of_coco_are_those_of_pycocotools(data_folder: Path) -> None:
    file = data_folder / "coco128" / "instances_panoptic100.json"
    content = json.loads(file.read_text())
    data = read_class_maps(file)
    classes = {row["id"]: data.classes.index(row["name"]) for row in content["categories"]}
    by_image = {sample.path.name: sample for sample in data.splits["all"]}
    assert data.classes[0] == "background" and len(by_image) == len(content["images"]) == 100
    for image in content["images"]:
        size = image["height"], image["width"]
        objects = []
        for row in (row for row in content["annotations"] if row["image_id"] == image["id"]):
            rle = row["segmentation"]
            if isinstance(rle, list):
                rle = reference.merge(reference.frPyObjects(rle, *size))
            label = 255 if row["iscrowd"] else classes[row["category_id"]]
            objects.append((-int(reference.area(rle)), label, reference.decode(rle).astype(bool)))
        expected = np.zeros(size, np.uint8)
        for _, label, inside in sorted(objects, key=lambda each: each[0]):
            expected[inside] = label
        found = by_image[image["file_name"]].class_map
        assert found is not None and np.array_equal(found.read(), expected)


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_with_holes_several_parts_and_crowds(tmp_path: Path, compressed: bool) -> None:
    counts: Any = lengths(ring())
    if compressed:
        counts = reference.frPyObjects({"size": [HEIGHT, WIDTH], "counts": counts}, HEIGHT, WIDTH)["counts"].decode()
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[40:, :20] = True
    file = coco(
        tmp_path,
        {"category_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": counts}, "bbox": [12, 6, 36, 36]},
        {"category_id": 2, "segmentation": [list(APART), [2, 2, 8, 2, 8, 8]], "bbox": [2, 2, 60, 44]},
        {"category_id": 1, "segmentation": {"size": [HEIGHT, WIDTH], "counts": lengths(crowd)}, "iscrowd": 1},
    )
    data = read_class_maps(file)
    assert data.classes == ("background", "cat", "dog")
    expected = drawn((ring(), 1), (crowd, 255), (pixels(APART, (2, 2, 8, 2, 8, 8)), 2))
    assert np.array_equal(class_map(data), expected)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_object_of_fewer_pixels_is_on_top(tmp_path: Path, order: tuple[int, int]) -> None:
    rows = [{"category_id": label, "segmentation": [list(ring)]} for label, ring in ((1, LARGE), (2, SMALL))]
    data = read_class_maps(coco(tmp_path, *(rows[index] for index in order)))
    assert np.array_equal(class_map(data), drawn((pixels(LARGE), 1), (pixels(SMALL), 2)))


POLYGONS = (
    "coco",
    "voc",
    "yolo",
    "via",
    "via-csv",
    "via3",
    "labelbox",
    "supervisely",
    "labelme",
    "cvat",
    "label-studio",
)


@pytest.mark.parametrize("name", POLYGONS)
def test_outlines_of_every_format(tmp_path: Path, name: str) -> None:
    image = write_image(tmp_path / "a.png", WIDTH, HEIGHT)
    objects = tuple(
        Annotation(label, (min(ring[::2]), min(ring[1::2]), max(ring[::2]), max(ring[1::2])), polygons=(ring,))
        for label, ring in ((0, LARGE), (1, SMALL), (0, APART))
    )
    dataset = AnnotatedDataset(tmp_path, ("cat", "dog"), {"train": (AnnotatedImage(image, WIDTH, HEIGHT, objects),)})
    write_annotations(dataset, name, tmp_path / "written")
    assert guess_task(tmp_path / "written") == "detect"
    data = read_class_maps(tmp_path / "written")
    assert data.classes == ("background", "cat", "dog")
    expected = drawn((pixels(LARGE), 1), (pixels(SMALL), 2), (pixels(APART), 1))
    assert np.array_equal(class_map(data), expected)


@pytest.mark.parametrize("name", ["coco", "supervisely", "labelme", "cvat"])
def test_masks_of_every_format(tmp_path: Path, name: str) -> None:
    image = write_image(tmp_path / "a.png", WIDTH, HEIGHT)
    objects = (
        Annotation(1, (12, 6, 48, 42), mask=encode(ring())),
        Annotation(0, (0, 0, 9, 9), mask=encode(pixels(APART))),
    )
    dataset = AnnotatedDataset(tmp_path, ("cat", "dog"), {"train": (AnnotatedImage(image, WIDTH, HEIGHT, objects),)})
    write_annotations(dataset, name, tmp_path / "written")
    data = read_class_maps(tmp_path / "written")
    assert np.array_equal(class_map(data), drawn((ring(), 2), (pixels(APART), 1)))


def test_supervisely_holes_and_bitmaps(tmp_path: Path) -> None:
    write_image(tmp_path / "ds" / "img" / "a.png", WIDTH, HEIGHT)
    png = io.BytesIO()
    Image.fromarray(ring()[5:45, 10:50]).save(png, "PNG")
    bitmap = base64.b64encode(zlib.compress(png.getvalue())).decode()
    points = {"exterior": np.reshape(LARGE, (-1, 2)).tolist(), "interior": [np.reshape(HOLE, (-1, 2)).tolist()]}
    figures = [
        {"classTitle": "cat", "geometryType": "polygon", "points": points},
        {"classTitle": "dog", "geometryType": "bitmap", "bitmap": {"data": bitmap, "origin": [10, 5]}},
    ]
    (tmp_path / "meta.json").write_text(json.dumps({"classes": [{"title": "cat"}, {"title": "dog"}], "tags": []}))
    (tmp_path / "ds" / "ann").mkdir()
    content = {"size": {"height": HEIGHT, "width": WIDTH}, "objects": figures}
    (tmp_path / "ds" / "ann" / "a.png.json").write_text(json.dumps(content))
    found = class_map(read_class_maps(tmp_path))
    outline = pixels(LARGE) & ~pixels(HOLE)
    first, second = ((outline, 1), (ring(), 2))
    assert np.array_equal(found, drawn(*sorted((first, second), key=lambda each: -each[0].sum())))


def test_brush_labels_of_label_studio(tmp_path: Path) -> None:
    """A stroke over the first three pixels of 20,000, packed by the rle-pack of @thi.ng/umbrella."""
    write_image(tmp_path / "a.png", 200, 100)
    count = 4 * 20_000
    bits = f"{count:032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "1" + "01" + f"{11:04b}" + f"{255:08b}"  # twelve values of 255: three pixels
    rest = count - 12
    while rest:
        run = min(rest, 1 << 16)
        bits += "1" + "11" + f"{run - 1:016b}" + f"{0:08b}"
        rest -= run
    packed = [int(bits[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(bits), 8)]
    value = {"format": "rle", "rle": packed, "brushlabels": ["dog"]}
    result = {"type": "brushlabels", "original_width": 200, "original_height": 100, "image_rotation": 0, "value": value}
    task = {"data": {"image": "a.png"}, "annotations": [{"result": [{"id": "1", "from_name": "l", **result}]}]}
    (tmp_path / "labels.json").write_text(json.dumps([task]))
    data = read_class_maps(tmp_path)
    assert data.classes == ("background", "dog")
    found = class_map(data)
    assert found.shape == (100, 200) and found[0, :3].tolist() == [1, 1, 1] and found.sum() == 3


def test_boxes_alone_are_refused(tmp_path: Path) -> None:
    file = coco(tmp_path, {"category_id": 1, "bbox": [1, 2, 3, 4]}, {"category_id": 1, "bbox": [5, 2, 3, 4]})
    with pytest.raises(DataError, match="has 2 boxes, and no outlines or masks") as caught:
        read_class_maps(file)
    assert "--task detect" in caught.value.hint


def test_what_a_box_without_an_outline_shows_does_not_count(tmp_path: Path) -> None:
    file = coco(
        tmp_path,
        {"category_id": 1, "segmentation": [list(LARGE)]},
        {"category_id": 2, "bbox": [45, 30, 10, 10]},
    )
    data = read_class_maps(file)
    box = np.zeros((HEIGHT, WIDTH), bool)
    box[30:40, 45:55] = True
    assert np.array_equal(class_map(data), drawn((pixels(LARGE), 1), (box, 255)))
    assert any(line.startswith("1 object has a box and no outline") and "a.png" in line for line in data.warnings)


@pytest.mark.parametrize("has_objects", [True, False])
@pytest.mark.parametrize("name", ["background", "_background_", "Background (ignore)"])
def test_a_class_of_background_is_that_of_pixels_without_object(tmp_path: Path, name: str, has_objects: bool) -> None:
    rows = [{"category_id": 1, "segmentation": [list(LARGE)]}]
    if has_objects:
        rows.append({"category_id": 2, "segmentation": [list(APART)]})
    data = read_class_maps(coco(tmp_path, *rows, names=("cat", name)))
    counted = "ignore" not in name
    assert data.classes == (("background", "cat") if counted else ("cat",))
    background = 0 if counted else 255
    cat = int(counted)
    assert np.array_equal(class_map(data), drawn((pixels(LARGE), cat), background=background))
    assert any("pixels of no object are of the class background" in line for line in data.warnings) == counted


@pytest.mark.parametrize("name", ["mud (ignore)", "__ignore__"])
def test_ignored_classes_do_not_count(tmp_path: Path, name: str) -> None:
    rows = [{"category_id": 2, "segmentation": [list(LARGE)]}, {"category_id": 1, "segmentation": [list(APART)]}]
    data = read_class_maps(coco(tmp_path, *rows, names=(name, "cat")))
    assert data.classes == ("background", "cat")
    assert only(data).labels.tolist() == [1]
    assert np.array_equal(class_map(data), drawn((pixels(LARGE), 1), (pixels(APART), 255)))


def test_images_of_another_size_than_their_labels_are_named(tmp_path: Path) -> None:
    file = coco(tmp_path, {"category_id": 1, "segmentation": [list(LARGE)]})
    write_image(tmp_path / "a.png", HEIGHT, WIDTH)
    data = read_class_maps(file)
    findings = check_masks(data.splits, data.classes)
    assert findings.warnings()[0] == f"{file}: a.png is 64 × 48, its image 48 × 64: left out"
    fault = class_map_fault(only(data))
    assert fault is not None and fault.message == f"{file}: a.png is 64 × 48, its image 48 × 64"


def test_an_image_without_objects_is_background(tmp_path: Path) -> None:
    file = coco(tmp_path, {"category_id": 1, "segmentation": [list(LARGE)]})
    content = json.loads(file.read_text())
    content["images"].append({"id": 2, "file_name": "b.png", "width": 5, "height": 4})
    file.write_text(json.dumps(content))
    write_image(tmp_path / "b.png", 5, 4)
    data = read_class_maps(file)
    _, empty = data.splits["all"]
    assert empty.class_map is not None and empty.class_map.read().tolist() == [[0] * 5] * 4
    assert check_masks(data.splits, data.classes).warnings() == ["no pixel of dog in the all masks"]


def test_a_model_knows_other_classes(tmp_path: Path) -> None:
    file = coco(tmp_path, {"category_id": 2, "segmentation": [list(LARGE)]})
    data = read_class_maps(file)
    moved = data.remap_classes(("dog", "fox", "background"))
    assert np.array_equal(class_map(moved), drawn((pixels(LARGE), 0), background=2))
    without = data.remap_classes(("fox", "dog"))
    assert np.array_equal(class_map(without), drawn((pixels(LARGE), 1), background=255))
    with pytest.raises(DataError, match="does not know: dog"):
        data.remap_classes(("background", "cat"))


def test_masks_take_the_place_of_labels(tmp_path: Path) -> None:
    """Pascal VOC has boxes in XML files, and masks beside them; so have data sets with masks/ and a COCO file."""
    coco(tmp_path, {"category_id": 1, "segmentation": [list(LARGE)]})
    (tmp_path / "masks").mkdir()
    mask = np.tile(np.arange(WIDTH, dtype=np.uint8) % 2, (HEIGHT, 1))
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    (tmp_path / "classes.txt").write_text("even\nodd\n")
    data = read_class_maps(tmp_path)
    assert data.classes == ("even", "odd") and np.array_equal(class_map(data), mask)
