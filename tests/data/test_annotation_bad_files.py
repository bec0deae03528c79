"""Broken and hostile label files: one error that names the file and the row, in bounded time and memory."""

# ruff: noqa: E501 – files as somebody may write them
from __future__ import annotations

import base64
import json
import os
import resource
import zlib
from pathlib import Path
from typing import Any

import pytest

from hubel.data.annotations import read_annotations, write_annotations
from hubel.data.annotations.parse import InvalidAnnotation
from hubel.data.annotations.png_masks import decode_png
from hubel.errors import DataError
from labelled_sets import write_image

VOC = "<annotation><filename>a.jpg</filename><object><name>cat</name><bndbox>{}</bndbox></object></annotation>"
BOX = "<xmin>{}</xmin><ymin>1</ymin><xmax>5</xmax><ymax>5</ymax>"
BOMB = """<!DOCTYPE lolz [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">]>
<annotation><filename>&c;</filename></annotation>"""
OUTSIDE = """<!DOCTYPE x [<!ENTITY secret SYSTEM "file:///etc/hostname">]>
<annotation><filename>&secret;</filename></annotation>"""


def _coco(**changes: Any) -> str:
    image = {"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}
    image |= {key: value for key, value in changes.items() if key in image}
    annotation |= {key: value for key, value in changes.items() if key not in image}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "cat"}]}
    return json.dumps(content)


CASES = {
    "entity bomb": ("a.xml", BOMB, "a.xml: contains XML that no label file has (EntitiesForbidden"),
    "external entity": ("a.xml", OUTSIDE, "a.xml: contains XML that no label file has (EntitiesForbidden"),
    "broken xml": ("a.xml", "<annotation><object>", "a.xml: is broken XML"),
    "deep xml": ("a.xml", "<annotations>" + "<a>" * 100_000, "a.xml: XML nested more than 64 deep"),
    "no name": ("a.xml", VOC.replace("<name>cat</name>", "").format(BOX.format(1)), "a.xml, object 1: name is None"),
    "no box": ("a.xml", "<annotation><object><name>cat</name></object></annotation>", "object 1: has no <bndbox>"),
    "word": ("a.xml", VOC.format(BOX.format("one")), "a.xml, object 1: xmin is 'one', not a number of pixels"),
    "nan": ("a.xml", VOC.format(BOX.format("nan")), "a.xml, object 1: xmin is 'nan'"),
    "inf in yolo": ("labels/a.txt", "0 0.5 0.5 0.1 0.1\n0 0.5 inf 0.1 0.1\n", "a.txt, line 2: a coordinate is 'inf'"),
    "short row": ("labels/a.txt", "0 0.5 0.5 0.1 0.1\n0 0.5 0.1 0.1\n", "a.txt, line 2: has 3 numbers after the class"),
    "unknown class": ("labels/a.txt", "7 0.5 0.5 0.1 0.1\n", "a.txt, line 1: class 7 is not one of the 1 classes"),
    "nan in json": ("c.json", _coco(bbox=[1, 2, float("nan"), 4]), "c.json, annotation 1: bbox is nan"),
    "huge float": ("c.json", _coco().replace("[1, 2", "[1e999, 2"), "c.json, annotation 1: bbox is inf"),
    "huge integer": ("c.json", _coco(bbox=[10**400, 2, 3, 4]), "annotation 1: bbox is a number of more than 40 digits"),
    "endless digits": ("c.json", _coco().replace("[1, 2", f"[{'9' * 9000}, 2"), "c.json: is not valid JSON (a number has"),
    "deep json": ("c.json", '{"annotations": [], "images": ' + "[" * 200_000, "c.json: is not valid JSON"),
    "cut json": ("c.json", _coco()[:-20], "c.json: is not valid JSON (line 1, column"),
    "text for a list": ("c.json", _coco(bbox="1234"), "c.json, annotation 1: bbox is '1234', not a list"),
    "list for an object": ("c.json", _coco().replace('[{"id": 1, "image_id"', '[[], {"id": 1, "image_id"'), "c.json, annotation 1"),
    "unknown category": ("c.json", _coco(category_id=9), "annotation 1: category_id 9 is not one of the categories"),
    "three coordinates": ("c.json", _coco(bbox=[1, 2, 3]), "c.json, annotation 1: bbox has 3 numbers, not 4"),
    "odd polygon": ("c.json", _coco(bbox=None, segmentation=[[1, 2, 3, 4, 5]]), "annotation 1: a polygon of segmentation"),
    "mask too long": ("c.json", _coco(bbox=None, segmentation={"size": [48, 64], "counts": [1, 10**12]}), "do not add up to 64×48"),
    "mask too large": ("c.json", _coco(bbox=None, segmentation={"size": [10**6, 10**6], "counts": [10**12]}), "is not possible"),
    "mask of letters": ("c.json", _coco(bbox=None, segmentation={"size": [48, 64], "counts": "!\u20ac"}), "are not COCO's compressed text"),
    "leads out": ("c.json", _coco(file_name="../../../etc/passwd"), "names '../../../etc/passwd', which is outside"),
    "absolute": ("c.json", _coco(file_name="/etc/passwd"), "names '/etc/passwd', which is not in"),
    "drive": ("c.json", _coco(file_name="C:\\Windows\\x.bmp"), "which is not in"),
    "null letter": ("c.json", _coco(file_name="a\u0000.jpg"), "c.json, image 1: names no image"),
    "nameless": ("c.json", _coco(file_name=[]), "c.json, image 1: file_name is a list of 0, not a name"),
    "yaml bomb": ("data.yaml", "names: [a]\ntrain: &a [*a]\n", "data.yaml"),
    "yaml object": ("data.yaml", "names: !!python/object/apply:os.system [ls]\ntrain: images\n", "data.yaml: is not valid YAML"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_error_names_file_and_row(case: str, tmp_path: Path) -> None:
    name, content, expected = CASES[case]
    write_image(tmp_path / "images" / "a.jpg")
    write_image(tmp_path / "a.jpg") if name == "a.xml" else None
    (tmp_path / "classes.txt").write_text("cat\n") if name.startswith("labels") else None
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        read_annotations(tmp_path)
    assert expected in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 400


def test_errors_can_be_collected(tmp_path: Path) -> None:
    """What `data check` needs: every error, and all that is sound."""
    for stem in "abc":
        write_image(tmp_path / f"{stem}.jpg")
        (tmp_path / f"{stem}.xml").write_text(VOC.format(BOX.format("nan" if stem == "a" else 2)))
    (tmp_path / "c.xml").write_text("<annotation>")
    errors: list[DataError] = []
    dataset = read_annotations(tmp_path, on_fault=errors.append)
    assert {image.path.name: image.objects and len(image.objects) for image in dataset.images()} == {
        "a.jpg": None, "b.jpg": 1, "c.jpg": None,
    }  # fmt: skip
    assert [Path(message.message.split(":")[0].split(",")[0]).name for message in errors] == ["a.xml", "c.xml"]


def _limited(*, megabytes: int) -> int:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    return used + megabytes * 1_000_000


@pytest.mark.parametrize("kind", ["yolo", "coco", "cvat", "voc"])
def test_more_boxes_than_an_image_has_are_refused(kind: str, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    if kind == "yolo":
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n" * 150_000)
    elif kind == "coco":
        row = '{"image_id":1,"category_id":1,"bbox":[1,2,3,4]}'
        rows = ",".join([row] * 150_000)
        head = '{"images":[{"id":1,"file_name":"a.jpg","width":64,"height":48}],"categories":[{"id":1,"name":"cat"}]'
        (tmp_path / "c.json").write_text(f'{head},"annotations":[{rows}]}}')
    elif kind == "cvat":
        row = '<box label="cat" xtl="1" ytl="1" xbr="2" ybr="2"/>'
        (tmp_path / "a.xml").write_text(f'<annotations><image name="a.jpg">{row * 150_000}</image></annotations>')
    else:
        row = f"<object><name>cat</name><bndbox>{BOX.format(1)}</bndbox></object>"
        (tmp_path / "a.xml").write_text(f"<annotation>{row * 1_000_000}</annotation>")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_limited(megabytes=600), before[1]))
    try:
        with pytest.raises(DataError, match=r"more than the limit of 100,000|more than the limit of 67 MB"):
            read_annotations(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_several_formats_or_none_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    with pytest.raises(DataError, match="no labels of a known format, but 1 .jpg") as none:
        read_annotations(tmp_path)
    assert none.value.hint.startswith("use COCO JSON, Pascal VOC XML, YOLO,")
    (tmp_path / "c.json").write_text(_coco())
    (tmp_path / "a.xml").write_text(VOC.format(BOX.format(1)))
    with pytest.raises(DataError, match="several formats: COCO JSON .1, first c.json., Pascal VOC XML") as several:
        read_annotations(tmp_path)
    assert several.value.hint.startswith("choose one with --from coco|voc")
    assert read_annotations(tmp_path, "voc").format == "voc"
    assert read_annotations(tmp_path / "c.json").format == "coco"


def test_two_files_for_one_image_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    for name in ("ann.json", "bob.json"):
        (tmp_path / name).write_text(_coco())
    with pytest.raises(DataError, match="labels a.jpg, but .*ann.json does so too: pass one of the files"):
        read_annotations(tmp_path)


def test_missing_images_are_kept_and_counted(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(_coco(file_name="gone.jpg"))
    dataset = read_annotations(tmp_path)
    assert dataset.warnings == (f"1 image does not exist: {tmp_path / 'gone.jpg'}",)
    assert dataset.images()[0].width == 64


@pytest.mark.parametrize("name", ["sub%20dir/a%2B.jpg", "SUB DIR\\A+.JPG", "/home/ann/sub dir/a+.jpg", "D:\\x\\sub dir\\a+.jpg", "file:///x/sub%20dir/a+.jpg", "https://example.org/q/a%2B.jpg?x=1", "sub dir/../sub dir/a+.jpg", "../photos/sub dir/a+.jpg"])  # fmt: skip
def test_names_from_other_machines_find_their_image(name: str, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "sub dir" / "a+.jpg")
    write_image(tmp_path / "images" / "b.jpg")
    (tmp_path / "images" / "c.json").write_text(_coco(file_name=name))
    (image,) = (image for image in read_annotations(tmp_path).images() if image.objects)
    assert image.path == tmp_path / "images" / "sub dir" / "a+.jpg"


@pytest.mark.parametrize(
    ("size", "far", "expected"),
    [
        (10**6, 20, "a mask of 1000000×1000000 pixels is not possible"),
        (64, 9e6, "an outline is millions of pixels long"),
    ],
)
def test_forged_sizes_take_no_memory(size: int, far: float, expected: str, tmp_path: Path) -> None:
    write_image(tmp_path / "in" / "all" / "img" / "a.jpg")
    points = {"exterior": [[0, 0], [far, 0], [far, 20]], "interior": [[[5, 1], [9, 1], [9, 3]]]}
    figure = {"classTitle": "cat", "geometryType": "polygon", "points": points, "tags": []}
    (tmp_path / "in" / "all" / "ann").mkdir()
    content = {"size": {"width": size, "height": size}, "objects": [figure]}
    (tmp_path / "in" / "all" / "ann" / "a.jpg.json").write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        write_annotations(read_annotations(tmp_path / "in"), "coco", tmp_path / "out")
    assert expected in caught.value.message
    assert "a.jpg.json" in caught.value.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compressed", [False, True])
def test_an_embedded_mask_that_is_not_a_png_is_named_without_addresses_in_memory(compressed: bool) -> None:
    data = zlib.compress(b"no PNG") if compressed else b"no PNG"
    with pytest.raises(InvalidAnnotation, match=r"^a mask is not a PNG$"):
        decode_png(base64.b64encode(data).decode(), 0, 0, 8, 8, compressed)
