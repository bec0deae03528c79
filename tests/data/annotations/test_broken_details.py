"""One detail that cannot be read costs that detail; an image of whose labels none can be read is not background."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hubel.data.annotated_images import read_annotated_images
from hubel.data.annotations import AnnotatedDataset, read_annotations
from hubel.data.annotations.reader import LabelFileError
from hubel.errors import DataError
from labelled_sets import write_image

BOX = (5.0, 6.0, 20.0, 30.0)
BOUNDS = {"left": 5, "top": 6, "width": 15, "height": 24}
TASK = {"original_width": 64, "original_height": 48, "from_name": "label", "id": "1", "type": "rectanglelabels"}
PERCENT = {"x": 5 / 64 * 100, "y": 12.5, "width": 15 / 64 * 100, "height": 50, "rectanglelabels": ["cat"]}


def _coco(**more: Any) -> dict[str, str]:
    row = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 6, 15, 24], **more}
    images = [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}]
    content = {"images": images, "annotations": [row], "categories": [{"id": 1, "name": "cat"}]}
    return {"labels.json": json.dumps(content)}


def _voc(more: str = "", size: str = "<width>64</width><height>48</height>") -> dict[str, str]:
    bounds = "<bndbox><xmin>6</xmin><ymin>7</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"
    return {"a.xml": f"<annotation><size>{size}</size><object><name>cat</name>{bounds}{more}</object></annotation>"}


def _labelbox(**more: Any) -> dict[str, str]:
    obj = {"name": "cat", "bounding_box": BOUNDS, **more.pop("object", {})}
    labels = [{"annotations": {"objects": [obj]}}]
    row = {"data_row": {"external_id": "a.jpg"}, "projects": {"p": {"labels": labels}}, **more}
    return {"export.ndjson": json.dumps(row)}


def _supervisely(**more: Any) -> dict[str, str]:
    figure = {"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[5, 6], [19, 29]]}}
    figure |= more.pop("object", {})
    return {"set/ann/a.jpg.json": json.dumps({"size": {"width": 64, "height": 48}, "objects": [figure], **more})}


def _labelme(**more: Any) -> dict[str, str]:
    shape = {"label": "cat", "points": [[5, 6], [20, 30]], "shape_type": "rectangle", **more.pop("shape", {})}
    content = {"version": "5", "imagePath": "a.jpg", "imageWidth": 64, "imageHeight": 48, "shapes": [shape], **more}
    return {"a.json": json.dumps(content)}


def _cvat(more: str, attributes: str = "") -> dict[str, str]:
    sides = f'xtl="5" ytl="6" xbr="20" ybr="30" {attributes}'
    image = f'<image name="a.jpg" width="64" height="48"><box label="cat" {sides}>{more}</box></image>'
    return {"annotations.xml": f"<annotations>{image}</annotations>"}


def _studio(**more: Any) -> dict[str, str]:
    results = [{**TASK, "value": PERCENT, **more}]
    return {"export.json": json.dumps([{"data": {"image": "a.jpg"}, "annotations": [{"result": results}]}])}


def _dlib(more: str) -> dict[str, str]:
    box = f"<box left='5' top='6' width='15' height='24' {more}><label>cat</label></box>"
    return {"d.xml": f"<dataset><images><image file='a.jpg'>{box}</image></images></dataset>"}


def _open_images(confidence: str) -> dict[str, str]:
    row = f"a,x,cat,{confidence},{5 / 64},{20 / 64},0.125,0.625"
    return {"boxes.csv": f"ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n{row}\n"}


def _via3(**more: Any) -> dict[str, Any]:
    row = {"vid": "1", "xy": [2, 5, 6, 15, 24], "av": {}, **more}
    files = {"1": {"fid": 1, "fname": "a.jpg"}}
    return {"project": {}, "file": files, "view": {"1": {"fid_list": [1]}}, "metadata": {"m": row}, "attribute": {}}


CASES = {
    "label studio: predictions": {
        "export.json": _studio()["export.json"].replace('"annotations"', '"predictions": true, "annotations"')
    },
    "coco: [[]]": _coco(segmentation=[[]]),
    "coco: two points": _coco(segmentation=[[1, 2, 3, 4]]),
    "coco: an odd number": _coco(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
    "coco: words": _coco(segmentation=[["a"] * 6]),
    "coco: nan": _coco(segmentation=[[1, 2, 3, 4, float("nan"), 6]]),
    "coco: text": _coco(segmentation="none"),
    "coco: a number": _coco(segmentation=3),
    "coco: a mask without counts": _coco(segmentation={"size": [48, 64]}),
    "coco: a mask of another size": _coco(segmentation={"size": [4, 4], "counts": [16]}),
    "coco: forged run lengths": _coco(segmentation={"size": [48, 64], "counts": "!!"}),
    "coco: area -1": _coco(area=-1),
    "coco: area of words": _coco(area="large"),
    "coco: area nan": _coco(area=float("nan")),
    "coco: iscrowd": _coco(iscrowd="maybe"),
    "coco: iscrowd as a list": _coco(iscrowd=[0]),
    "coco: score": _coco(score="high"),
    "coco: attributes": _coco(attributes="red"),
    "voc: outline": _voc("<polygon><x1>1</x1><y1>x</y1><x2>3</x2><y2>4</y2><x3>5</x3><y3>6</y3></polygon>"),
    "voc: attributes": _voc("<attributes><attribute><value>1</value></attribute></attributes>"),
    "voc: flags": _voc("<difficult>perhaps</difficult><truncated/>"),
    "voc: size": _voc(size="<width>wide</width><height>-3</height>"),
    "labelbox: answers": _labelbox(object={"classifications": [3]}),
    "labelbox: media": _labelbox(media_attributes="none"),
    "labelbox: rotation": _labelbox(media_attributes={"width": 64, "height": 48, "exif_rotation": "left"}),
    "labelbox: size": _labelbox(media_attributes={"width": "x", "height": None}),
    "supervisely: tags": _supervisely(object={"tags": [{"value": 1}]}),
    "supervisely: annotator": _supervisely(object={"labelerLogin": ["ann"]}),
    "supervisely: size": _supervisely(size=[64, 48]),
    "labelme: flags": _labelme(shape={"flags": ["a"]}),
    "labelme: attributes": _labelme(shape={"attributes": 3}),
    "labelme: score": _labelme(shape={"score": "?"}),
    "labelme: size": _labelme(imageWidth="wide"),
    "labelme: path": _labelme(imagePath=None),
    "cvat: attribute": _cvat("<attribute>red</attribute>"),
    "cvat: occluded": _cvat("", 'occluded="?"'),
    "label studio: size": _studio(original_width="wide"),
    "dlib: score": _dlib("detection_score='high'"),
    "open images: confidence": _open_images("high"),
}  # fmt: skip


def _write(root: Path, files: dict[str, str], image: str = "a.jpg") -> None:
    write_image(root / ("set/img" if "set/ann/a.jpg.json" in files else ".") / image)
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


@pytest.mark.parametrize("case", CASES)
def test_the_object_stays(case: str, tmp_path: Path) -> None:
    _write(tmp_path, CASES[case])
    dataset = read_annotations(tmp_path)  # raises the first error
    (image,) = dataset.images()
    (obj,) = image.objects or ()
    assert (dataset.classes, obj.box) == (("cat",), pytest.approx(BOX))
    assert (image.width, image.height) == (64, 48)
    assert obj.area is None or obj.area > 0


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    _write(tmp_path, _coco(segmentation=[[1, 2]], area=-1, iscrowd="x"))
    assert read_annotations(tmp_path).warnings == (
        "1 outlines or masks cannot be read: left out, their boxes stay ("
        "labels.json: that of annotation 1: a polygon of segmentation is not a list of three or more x, y)",
        "1 values of iscrowd cannot be read: left out, the objects stay",
        "1 values of area cannot be read: left out, the objects stay",
    )


@pytest.mark.parametrize("bbox", [None, [], [1, 2, 3], "x", [5, 6, 0, 0], [1, float("nan"), 2, 3]])
def test_a_good_outline_gives_the_box_that_cannot_be_read(bbox: Any, tmp_path: Path) -> None:
    _write(tmp_path, _coco(bbox=bbox, segmentation=[[5, 6, 20, 6, 20, 30, 5, 30], [7, 7]]))
    ((obj,),) = (image.objects or () for image in read_annotations(tmp_path).images())
    assert obj.box == BOX
    assert obj.polygons == ((5, 6, 20, 6, 20, 30, 5, 30),)


def test_via_s_single_outline_without_a_list_around_it(tmp_path: Path) -> None:
    _write(tmp_path, _coco(segmentation=[5, 6, 20, 6, 20, 30, 5, 30]))
    ((obj,),) = (image.objects or () for image in read_annotations(tmp_path).images())
    assert obj.polygons == ((5, 6, 20, 6, 20, 30, 5, 30),)


BROKEN: dict[str, Callable[[], dict[str, str]]] = {
    "coco": lambda: _coco(bbox=[1, 2]),
    "coco, class": lambda: _coco(category_id=9),
    "voc": lambda: {"a.xml": _voc()["a.xml"].replace("<xmin>6", "<xmin>six")},
    "labelbox": lambda: _labelbox(object={"bounding_box": {"left": 1}}),
    "labelbox, a mask on a server": lambda: _labelbox(object={"bounding_box": None, "mask": {"url": "https://x"}}),
    "supervisely": lambda: _supervisely(object={"points": {"exterior": [[1, 2]]}}),
    "supervisely, a point": lambda: _supervisely(object={"geometryType": "point"}),
    "labelme": lambda: _labelme(shape={"points": [[1, "x"], [2, 3]]}),
    "labelme, a line": lambda: _labelme(shape={"shape_type": "line"}),
    "cvat": lambda: _cvat("", 'rotation="x"'),
    "cvat, a polyline": lambda: {
        "a.xml": '<annotations><image name="a.jpg"><polyline label="cat"/></image></annotations>'
    },
    "label studio": lambda: _studio(value={**PERCENT, "width": "x"}),
    "dlib": lambda: {"d.xml": _dlib("")["d.xml"].replace("top='6'", "")},
    "yolo": lambda: {"a.txt": "0 0.5 0.5 0.3\n", "classes.txt": "cat\n"},
    "yolo, class": lambda: {"a.txt": "7 0.5 0.5 0.3 0.3\n", "classes.txt": "cat\n"},
    "via": lambda: {
        "v.json": json.dumps({"a": {"filename": "a.jpg", "regions": [{"shape_attributes": {"name": "rect"}}]}})
    },
    "via, a point": lambda: {
        "v.json": json.dumps({"a": {"filename": "a.jpg", "regions": [{"shape_attributes": {"name": "point"}}]}})
    },
    "createml": lambda: {
        "c.json": json.dumps([{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {}}]}])
    },
    "open images": lambda: {"boxes.csv": _open_images("1")["boxes.csv"].replace("0.125", "x")},
    "labelme, one point": lambda: _labelme(shape={"points": [[5, 6]]}),
    "labelme, text for a point": lambda: _labelme(shape={"points": ["56", "78"]}),
    "supervisely, text for a point": lambda: _supervisely(object={"points": {"exterior": ["56", "78"]}}),
    "label studio, type": lambda: _studio(type="vectorlabels"),
    "label studio, no type": lambda: _studio(type=None),
    "cvat, a box in capitals": lambda: {
        "a.xml": _cvat("")["annotations.xml"].replace("<box", "<Box").replace("/box", "/Box")
    },
    "dlib, a box in capitals": lambda: {"d.xml": _dlib("")["d.xml"].replace("<box", "<Box").replace("/box", "/Box")},
    "via, a region that is null": lambda: {"v.json": json.dumps({"a": {"filename": "a.jpg", "regions": None}})},
    "via, a row that is cut off": lambda: {"v.csv": "filename,region_count,region_shape_attributes\na.jpg,1\n"},
    "via 3, a view that does not exist": lambda: {"v.json": json.dumps(_via3(vid="7"))},
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_an_image_of_whose_labels_none_can_be_read_is_not_labelled_as_empty(case: str, tmp_path: Path) -> None:
    _write(tmp_path, BROKEN[case]())
    faults: list[LabelFileError] = []
    dataset: AnnotatedDataset = read_annotations(tmp_path, on_fault=faults.append)
    (image,) = dataset.images()
    assert image.objects is None
    assert image.label_file is not None
    left_out = any("of which none can be read" in line for line in dataset.warnings)
    assert left_out


NESTED = {
    "in a list": lambda text: text.replace("<object>", "<objects><object>").replace("</object>", "</object></objects>"),
    "in capitals": lambda text: text.replace("object>", "Object>"),
}


def test_a_broken_file_of_a_via_3_project_costs_that_file(tmp_path: Path) -> None:
    content = _via3()
    content["attribute"] = {"1": {"aname": "class", "type": 1}}
    content["metadata"]["m"]["av"] = {"1": "cat"}
    content["file"]["2"], content["view"]["2"], content["view"]["3"] = {"fid": 2, "fname": []}, {"fid_list": [2]}, 7
    write_image(tmp_path / "a.jpg", 64, 48)
    (tmp_path / "v.json").write_text(json.dumps(content))
    faults: list[LabelFileError] = []
    (image,) = read_annotations(tmp_path, on_fault=faults.append).images()
    assert [obj.box for obj in image.objects or ()] == [BOX]
    assert [fault.message.partition(", ")[2][:6] for fault in faults] == ["file 2", "view 3"]


@pytest.mark.parametrize("change", NESTED)
def test_objects_of_voc_that_are_not_where_they_belong(change: str, tmp_path: Path) -> None:
    _write(tmp_path, {"a.xml": NESTED[change](_voc()["a.xml"])})
    (obj,) = read_annotations(tmp_path).images()[0].objects or ()
    assert obj.box == BOX


def test_a_broken_file_before_the_others_in_a_folder_without_images_is_named(tmp_path: Path) -> None:
    for name in "ab":
        write_image(tmp_path / "JPEGImages" / f"{name}.jpg", 64, 48)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text("<annotation><object>")
    (tmp_path / "Annotations" / "b.xml").write_text(_voc()["a.xml"])
    faults: list[LabelFileError] = []
    dataset = read_annotations(tmp_path, on_fault=faults.append)
    assert [fault.file.name for fault in faults] == ["a.xml"]
    assert {image.path.name: image.objects is None for image in dataset.images()} == {"a.jpg": True, "b.jpg": False}


def test_lists_of_images_without_annotations_label_nothing(tmp_path: Path) -> None:
    """As COCO publishes them for its test sets."""
    content = json.loads(_coco()["labels.json"])
    del content["annotations"]
    _write(tmp_path, {"labels.json": json.dumps(content)})
    dataset = read_annotations(tmp_path)
    assert [image.objects for image in dataset.images()] == [None]
    assert any("has no annotations" in line for line in dataset.warnings)


def test_training_leaves_it_out_and_says_so(tmp_path: Path) -> None:
    """Beside a sound image and one that is labelled as empty; a box outside its image cannot be used either."""
    rows = {"sound": "0 0.5 0.5 0.3 0.3\n", "empty": "", "broken": "7 0.5 0.5 0.3 0.3\n", "outside": "0 3 3 0.1 0.1\n"}
    for name, row in rows.items():
        write_image(tmp_path / "images" / f"{name}.jpg")
        (tmp_path / "labels").mkdir(exist_ok=True)
        (tmp_path / "labels" / f"{name}.txt").write_text(row)
    (tmp_path / "data.yaml").write_text("names: [cat]\n")
    data = read_annotated_images(tmp_path)
    assert {sample.path.stem: len(sample.labels) for sample in data.splits["all"]} == {"sound": 1, "empty": 0}
    said = [line for line in data.warnings if "background" in line]
    assert said == [
        "2 images have only labels that cannot be used: left out, not taken as background: broken.jpg, outside.jpg"
    ]


def test_the_sound_objects_of_an_image_stay(tmp_path: Path) -> None:
    _write(tmp_path, {"a.txt": "0 0.5 0.5 0.3 0.3\n9 0.5 0.5 0.3 0.3\n", "classes.txt": "cat\n"})
    faults: list[LabelFileError] = []
    (image,) = read_annotations(tmp_path, on_fault=faults.append).images()
    assert len(image.objects or ()) == len(faults) == 1


REGION = '{""name"":""rect"",""x"":5,""y"":6,""width"":15,""height"":24}'
VIA_COLUMNS = "filename,region_shape_attributes,region_attributes\n"


def test_a_region_of_via_without_a_readable_class(tmp_path: Path) -> None:
    """Where classes have no attribute, the object stays; where they have, one whose class is unknown is named."""
    write_image(tmp_path / "a.jpg", 64, 48)
    file = tmp_path / "via.csv"
    file.write_text(f'{VIA_COLUMNS}a.jpg,"{REGION}","{{""class"": cat"\n')
    dataset = read_annotations(tmp_path)
    (obj,) = dataset.images()[0].objects or ()
    assert obj.box == BOX and dataset.classes == ("object",)
    assert "1 attributes cannot be read: left out, the objects stay" in dataset.warnings
    good = f'a.jpg,"{REGION}","{{""class"":""cat""}}"\n'
    file.write_text(f'{VIA_COLUMNS}{good}a.jpg,"{REGION}","{{""class"": cat"\n')
    faults: list[LabelFileError] = []
    dataset = read_annotations(tmp_path, on_fault=faults.append)
    assert dataset.classes == ("cat",) and len(dataset.images()[0].objects or ()) == 1
    (fault,) = faults
    assert "its attributes cannot be read, of which 'class' is its class" in fault.message


@pytest.mark.parametrize("prefix", ["", "v:"])
def test_xml_with_a_namespace(tmp_path: Path, prefix: str) -> None:
    write_image(tmp_path / "a.jpg", 64, 48)
    declared = f'xmlns{":v" if prefix else ""}="http://example.org/voc"'
    content = _voc()["a.xml"].replace("<", f"<{prefix}").replace(f"<{prefix}/", f"</{prefix}")
    (tmp_path / "a.xml").write_text(content.replace("annotation>", f"annotation {declared}>", 1))
    (obj,) = read_annotations(tmp_path).images()[0].objects or ()
    assert obj.box == BOX
    cvat = _cvat("")["annotations.xml"].replace("<", f"<{prefix}").replace(f"<{prefix}/", f"</{prefix}")
    (tmp_path / "a.xml").unlink()
    (tmp_path / "annotations.xml").write_text(cvat.replace("annotations>", f"annotations {declared}>", 1))
    (obj,) = read_annotations(tmp_path).images()[0].objects or ()
    assert obj.box == BOX


@pytest.mark.parametrize("content", ["", " \n", "\0\0\0\0", "not XML"])
def test_an_empty_file_before_the_others_is_named(tmp_path: Path, content: str) -> None:
    for name in ("a.jpg", "b.jpg"):
        write_image(tmp_path / name, 64, 48)
    (tmp_path / "a.xml").write_text(content)
    (tmp_path / "b.xml").write_text(_voc()["a.xml"])
    faults: list[LabelFileError] = []
    dataset = read_annotations(tmp_path, on_fault=faults.append)
    assert [fault.file.name for fault in faults] == ["a.xml"]
    assert {image.path.name: image.objects is None for image in dataset.images()} == {"a.jpg": True, "b.jpg": False}


def test_categories_that_are_not_a_list_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    content = json.loads(_coco()["labels.json"])
    (tmp_path / "labels.json").write_text(json.dumps(content | {"categories": 1.5}))
    with pytest.raises(LabelFileError, match=r"labels\.json: categories is .*not a list"):
        read_annotations(tmp_path)


def test_an_image_without_labels_in_two_splits_stays_in_the_first(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_image(tmp_path / f"images/{name}.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    (tmp_path / "val.txt").write_text("images/b.jpg\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: val.txt\nnames: [cat]\n")
    faults: list[LabelFileError] = []
    dataset = read_annotations(tmp_path, on_fault=faults.append)
    assert [fault.message for fault in faults] == [
        f"{tmp_path}/images/b.jpg: b.jpg is in train and in val: it stays in train"
    ]
    assert {split: len(images) for split, images in dataset.splits.items()} == {"train": 2}


def test_line_breaks_and_commands_of_terminals_in_names_are_shown_as_escapes(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    for name, content in _coco(category_id="a\nb\x1b[2J").items():
        (tmp_path / name).write_text(content)
    with pytest.raises(LabelFileError) as raised:
        read_annotations(tmp_path)
    assert r"category_id a\nb\x1b[2J is not one of the categories" in raised.value.message


def test_a_class_name_of_any_length_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    content = json.loads(_coco()["labels.json"])
    (tmp_path / "labels.json").write_text(json.dumps(content | {"categories": [{"id": 1, "name": "x" * 5000}]}))
    with pytest.raises(DataError, match=r"labels\.json: a class name has 5,000 characters"):
        read_annotations(tmp_path)
    (tmp_path / "labels.json").unlink()
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: [{'x' * 5000}]\n")
    with pytest.raises(DataError, match=r"data\.yaml: a class name has 5,000 characters"):
        read_annotations(tmp_path)
