"""Label files as the tools write them, by hand after their documentation; the boxes by arithmetic."""

# ruff: noqa: E501 – lines as the tools write them
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hubel.data.annotations import AnnotatedImage, read_annotations
from hubel.errors import DataError
from hubel.masks import decode, mask_area
from labelled_sets import write_image


def _only(path: Path) -> tuple[AnnotatedImage, tuple[str, ...], tuple[str, ...]]:
    """The one image of a data set, its classes and warnings."""
    dataset = read_annotations(path)
    (image,) = dataset.images()
    return image, dataset.classes, dataset.warnings


LABELIMG = """\ufeff<annotation verified="yes">
	<folder>photos</folder>
	<filename>IMG 1</filename>
	<path>C:\\Users\\Ann\\photos\\IMG 1.JPG</path>
	<source><database>Unknown</database></source>
	<size><width>64</width><height>48</height><depth>3</depth></size>
	<segmented>0</segmented>
	<object>
		<name>dog</name><pose>Unspecified</pose><truncated>1</truncated><difficult>1</difficult>
		<bndbox><xmin>1</xmin><ymin>5</ymin><xmax>64.0</xmax><ymax>48</ymax></bndbox>
	</object>
	<object>
		<name>cat</name><pose>Left</pose><truncated>0</truncated><difficult>0</difficult>
		<bndbox><xmin>10</xmin><ymin>11</ymin><xmax>20</xmax><ymax>21</ymax></bndbox>
	</object>
</annotation>
"""


def test_labelimg_next_to_the_images(tmp_path: Path) -> None:
    write_image(tmp_path / "IMG 1.JPG")
    (tmp_path / "IMG 1.xml").write_text(LABELIMG, encoding="utf-8")
    image, classes, warnings = _only(tmp_path)
    assert (image.path, image.width, image.height) == (tmp_path / "IMG 1.JPG", 64, 48)
    assert (classes, warnings) == (("cat", "dog"), ())
    dog, cat = image.objects or ()
    assert (dog.label, dog.box, dog.truncated, dog.difficult) == (1, (0, 4, 64, 48), True, True)
    assert (cat.label, cat.box, cat.attributes) == (0, (9, 10, 20, 21), {"pose": "Left"})


def test_several_published_voc_folders_come_in_their_order(tmp_path: Path) -> None:
    """Images without labels, too: their order must not change from process to process."""
    text = "<annotation><object><name>car</name><bndbox><xmax>9</xmax><xmin>2</xmin><ymax>8</ymax><ymin>3</ymin></bndbox></object></annotation>"
    for year in range(2005, 2013):
        for stem in ("labelled", "unlabelled"):
            write_image(tmp_path / str(year) / "JPEGImages" / f"{stem}{year}.jpg")
        (tmp_path / str(year) / "Annotations").mkdir()
        (tmp_path / str(year) / "Annotations" / f"labelled{year}.xml").write_text(text)
        (tmp_path / str(year) / "ImageSets" / "Main").mkdir(parents=True)
        (tmp_path / str(year) / "ImageSets" / "Main" / "train.txt").write_text(f"labelled{year}\nunlabelled{year}\n")
    names = [image.path.stem for image in read_annotations(tmp_path).splits["train"]]
    assert names == [f"{kind}{year}" for kind in ("labelled", "unlabelled") for year in range(2005, 2013)]


def test_voc_as_published_with_missing_sizes(tmp_path: Path) -> None:
    for stem in ("1", "2", "3", "4"):
        write_image(tmp_path / "JPEGImages" / f"{stem}.jpg")
    for stem in ("1", "2", "3"):
        text = "<annotation><object><name>car</name><bndbox><xmax>9</xmax><xmin>2</xmin><ymax>8</ymax><ymin>3</ymin></bndbox></object></annotation>"
        (tmp_path / "Annotations").mkdir(exist_ok=True)
        (tmp_path / "Annotations" / f"{stem}.xml").write_text(text)
    lists = tmp_path / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("1  1\n")
    (lists / "val.txt").write_text("2\n4\n")
    dataset = read_annotations(tmp_path)
    assert {s: [i.path.stem for i in images] for s, images in dataset.splits.items()} == {
        "train": ["1"],
        "val": ["2", "4"],
    }
    assert dataset.splits["val"][1].objects is None
    assert dataset.splits["train"][0].objects[0].box == (1, 2, 9, 8)  # type: ignore[index]
    assert dataset.splits["train"][0].width == 64
    assert "1 XML files are in no list of ImageSets/Main: left out" in dataset.warnings
    # Of one list, what is not in it is not a part of the set either.
    (lists / "val.txt").unlink()
    dataset = read_annotations(tmp_path)
    assert [image.path.stem for image in dataset.images()] == ["1"]
    assert f"{tmp_path / 'JPEGImages'}: 3 images have no labels and no split: left out" in dataset.warnings


@pytest.mark.parametrize(
    "yaml",
    [
        "train: images/train\nval: images/val\nnames: [cat, dog]\n",
        "path: /content/datasets/pets\ntrain: images/train\nval: images/val\nnc: 2\nnames:\n  0: cat\n  1: dog\n",
        "train: ['./images/train']\nval: ../images/val\nnames: {0: cat, 1: dog}\n",
        "train: train.txt\nval: C:\\data\\pets\\images\\val\nnames: [cat, dog]\n",
        None,
    ],
)
def test_yolo_in_its_variants(yaml: str | None, tmp_path: Path) -> None:
    for split, stem in (("train", "a"), ("train", "none"), ("train", "empty"), ("val", "b")):
        write_image(tmp_path / "images" / split / f"{stem}.jpg", 100, 50)
        (tmp_path / "labels" / split).mkdir(parents=True, exist_ok=True)
    (tmp_path / "labels/train/a.txt").write_text("1 0.5 0.5 0.2 0.4\r\n0 0.1 0.2 0.3 0.2 0.3 0.8\n\n")
    (tmp_path / "labels/train/empty.txt").write_text("")
    (tmp_path / "labels/val/b.txt").write_text("0.0 0.25 0.5 5e-1 1 0.875\n")
    (tmp_path / "train.txt").write_text(
        "./images/train/a.jpg\nimages/train/none.jpg\n/home/ann/pets/images/train/empty.jpg\n"
    )
    if yaml is None:
        (tmp_path / "classes.txt").write_text("cat\ndog\n")
    else:
        (tmp_path / "data.yaml").write_text(yaml)
    dataset = read_annotations(tmp_path)
    assert (dataset.format, dataset.classes, dataset.warnings) == ("yolo", ("cat", "dog"), ())
    train = {image.path.stem: image.objects for image in dataset.splits["train"]}
    assert (train["none"], train["empty"]) == (None, ())
    dog, cat = train["a"] or ()
    assert dog.label == 1
    assert np.allclose(dog.box, (40, 15, 60, 35))
    assert np.allclose(cat.polygons, [(10, 10, 30, 10, 30, 40)])
    (scored,) = dataset.splits["val"][0].objects or ()
    assert scored.box == (0, 0, 50, 50)
    assert scored.score == 0.875


def test_yolo_of_labelimg_next_to_the_images(tmp_path: Path) -> None:
    """Numbers with six digits, `classes.txt` among the labels."""
    write_image(tmp_path / "a.jpg", 100, 50)
    write_image(tmp_path / "b.jpg", 100, 50)
    (tmp_path / "a.txt").write_text("1 0.250000 0.500000 0.500000 1.000000\n")
    (tmp_path / "classes.txt").write_text("cat\r\ndog\r\n")
    dataset = read_annotations(tmp_path)
    a, b = dataset.images()
    assert (dataset.format, dataset.classes, b.objects) == ("yolo", ("cat", "dog"), None)
    assert [(obj.label, obj.box) for obj in a.objects or ()] == [(1, (0, 0, 50, 50))]


def test_fractions_of_yolo_are_of_the_upright_image(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg", 100, 50, orientation=8)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("0 0.5 0.5 1 1\n")
    image, classes, warnings = _only(tmp_path)
    assert (image.width, image.height, image.objects[0].box) == (50, 100, (0, 0, 50, 100))  # type: ignore[index]
    assert (classes, warnings) == (("0",), ("no file names the classes: their indices are used",))


VIA_REGIONS = [
    {"shape_attributes": {"name": "rect", "x": 5, "y": 6, "width": 7, "height": 8}, "region_attributes": {"type": "cat", "occluded": "1"}},
    {"shape_attributes": {"name": "circle", "cx": 20, "cy": 20, "r": 10}, "region_attributes": {"type": {"dog": True}, "age": "2"}},
    {"shape_attributes": {"name": "ellipse", "cx": 20, "cy": 20, "rx": 10, "ry": 5, "theta": 0}, "region_attributes": {"type": "dog"}},
    {"shape_attributes": {"name": "polygon", "all_points_x": [1, 9, 5], "all_points_y": [1, 1, 9]}, "region_attributes": {"type": "dog"}},
    {"shape_attributes": {"name": "point", "cx": 3, "cy": 3}, "region_attributes": {}},
]  # fmt: skip


@pytest.mark.parametrize("kind", ["project", "export", "via 1", "csv"])
def test_via_2(kind: str, tmp_path: Path) -> None:
    write_image(tmp_path / "x y.jpg")
    entry = {"filename": "x y.jpg", "size": 1234, "regions": VIA_REGIONS, "file_attributes": {}}
    if kind == "via 1":
        entry["regions"] = {str(index): region for index, region in enumerate(VIA_REGIONS)}
    entries = {"x y.jpg1234": entry}
    if kind == "csv":
        rows = ["#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"]
        for index, region in enumerate(VIA_REGIONS):
            cells = [json.dumps(region[key]).replace('"', '""') for key in ("shape_attributes", "region_attributes")]
            rows.append(f'x y.jpg,1234,"{{}}",5,{index},"{cells[0]}","{cells[1]}"')
        (tmp_path / "via.csv").write_text("\n".join(rows))
    else:
        content = {"_via_settings": {}, "_via_img_metadata": entries} if kind == "project" else entries
        (tmp_path / "via.json").write_text(json.dumps(content))
    image, classes, warnings = _only(tmp_path)
    assert (image.width, image.height, classes) == (64, 48, ("cat", "dog"))
    assert warnings == ("1 regions are points: left out",)
    rect, circle, ellipse, polygon = image.objects or ()
    assert (rect.label, rect.box, rect.occluded, rect.attributes) == (0, (5, 6, 12, 14), True, {})
    assert np.allclose(circle.box, (10, 10, 30, 30))
    assert circle.attributes == {"age": "2"}
    assert np.allclose(ellipse.box, (10, 15, 30, 25))
    assert polygon.polygons == ((1, 1, 9, 1, 5, 9),)


def test_via_with_several_attributes_says_which_is_the_class(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    shape = {"name": "rect", "x": 5, "y": 6, "width": 7, "height": 8}
    regions = [
        {"shape_attributes": shape, "region_attributes": {"fur": "long", "breed": "collie"}},
        {"shape_attributes": shape, "region_attributes": {"fur": "", "breed": "beagle"}},
    ]
    (tmp_path / "via.json").write_text(json.dumps({"a": {"filename": "a.jpg", "regions": regions}}))
    image, classes, warnings = _only(tmp_path)
    assert classes == ("beagle", "collie")
    assert warnings == ("of the attributes fur, breed, 'breed' is used as the class",)
    assert (image.objects or ())[0].attributes == {"fur": "long"}


def test_via_3(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    content = {
        "project": {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1", "vid_list": ["1"]},
        "config": {},
        "attribute": {"1": {"aname": "Class", "type": 4, "options": {"c": "cat", "d": "dog"}}, "2": {"aname": "note", "type": 1, "options": {}}},
        "file": {"1": {"fid": 1, "fname": "a.jpg", "type": 2, "loc": 1, "src": "a.jpg"}},
        "metadata": {
            "1_A": {"vid": "1", "flg": 0, "z": [], "xy": [2, 5, 6, 7, 8], "av": {"1": "d", "2": "hm"}},
            "1_B": {"vid": "1", "flg": 0, "z": [], "xy": [7, 1, 1, 9, 1, 5, 9], "av": {"1": "c"}},
            "1_C": {"vid": "1", "flg": 0, "z": [], "xy": [1, 1, 1], "av": {"1": "c"}},
        },
        "view": {"1": {"fid_list": [1]}},
    }  # fmt: skip
    (tmp_path / "project.json").write_text(json.dumps(content))
    image, classes, warnings = _only(tmp_path)
    assert (classes, warnings) == (("cat", "dog"), ("1 regions are points: left out",))
    dog, cat = image.objects or ()
    assert (dog.label, dog.box, dog.attributes) == (1, (5, 6, 12, 14), {"note": "hm"})
    assert cat.polygons == ((1, 1, 9, 1, 5, 9),)


def test_via_3_csv(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    (tmp_path / "via3.csv").write_text(
        "# Exported using VGG Image Annotator\n"
        "# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata\n"
        '"1_A","[""a.jpg""]",0,"[]","[2,5,6,7,8]","{""class"":""dog""}"\n'
    )
    image, classes, _ = _only(tmp_path)
    assert (classes, (image.objects or ())[0].box) == (("dog",), (5, 6, 12, 14))


def test_dlib_counts_in_stored_pixels(tmp_path: Path) -> None:
    write_image(tmp_path / "faces" / "a.jpg", 100, 50, orientation=6)  # upright: 50 × 100, rotated clockwise
    (tmp_path / "faces.xml").write_text(
        "<?xml version='1.0' encoding='ISO-8859-1'?>\n<?xml-stylesheet type='text/xsl' href='x.xsl'?>\n"
        "<dataset><name>imglab dataset</name><images><image file='faces\\a.jpg' width='100' height='50'>"
        "<box top='5' left='10' width='20' height='30' ignore='1' gender='female'>"
        "<label>face</label><part name='0' x='1' y='2'/></box><box top='0' left='0' width='100' height='50'/>"
        "</image></images></dataset>"
    )
    image, classes, warnings = _only(tmp_path)
    assert (image.width, image.height, classes) == (50, 100, ("face", "object"))
    face, whole = image.objects or ()
    # x' = 50 - y, y' = x: rows 5 to 35 become columns 15 to 45.
    assert (face.box, face.ignore, face.attributes) == ((15, 10, 45, 30), True, {"gender": "female"})
    assert whole.box == (0, 0, 50, 100)
    assert len(warnings) == 2


def test_labelbox_ndjson(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "b.jpg")
    box = {"name": "cat", "value": "cat", "annotation_kind": "ImageBoundingBox", "bounding_box": {"top": 5.0, "left": 6.0, "height": 7.0, "width": 8.0},
           "classifications": [{"name": "Mood", "value": "mood", "radio_answer": {"name": "Grumpy", "value": "grumpy"}}]}  # fmt: skip
    polygon = {"name": "dog", "polygon": [{"x": 1, "y": 1}, {"x": 9, "y": 1}, {"x": 5, "y": 9}]}
    mask = {"name": "dog", "mask": {"url": "https://example.org/mask.png"}}

    def label(by: str, *objects: dict) -> dict:
        return {"label_details": {"created_by": by}, "annotations": {"objects": objects, "classifications": []}}

    rows = [
        {"data_row": {"id": "x", "external_id": "a.jpg", "row_data": "https://storage.example.org/7f/a.jpg?token=1"}, "media_attributes": {"height": 48, "width": 64, "exif_rotation": "1"},
         "projects": {"p": {"labels": [label("ann@example.org", box, mask), label("bob@example.org", polygon)]}}},
        {"data_row": {"id": "y", "row_data": "https://storage.example.org/7f/b.jpg?token=1"}, "projects": {"p": {"labels": []}}},
    ]  # fmt: skip
    (tmp_path / "export.ndjson").write_text("\n".join(map(json.dumps, rows)) + "\n")
    dataset = read_annotations(tmp_path)
    a, b = dataset.splits["all"]
    assert (b.path.name, b.objects) == ("b.jpg", None)
    cat, dog = a.objects or ()
    assert (cat.box, cat.annotator, cat.attributes) == ((6, 5, 14, 12), "ann@example.org", {"Mood": "Grumpy"})
    assert (dog.polygons, dog.annotator) == (((1, 1, 9, 1, 5, 9),), "bob@example.org")
    assert [w.split(" ", 1)[1][:20] for w in dataset.warnings] == ["objects are masks on", "images were labelled"]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_labelbox_before_2023(kind: str, tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    label = {
        "objects": [{"title": "cat", "value": "cat", "bbox": {"top": 5, "left": 6, "height": 7, "width": 8}}],
        "classifications": [],
    }
    if kind == "json":
        row = {
            "ID": "1",
            "Labeled Data": "https://example.org/a.jpg",
            "Label": label,
            "Created By": "ann@example.org",
            "External ID": "a.jpg",
        }
        (tmp_path / "export.json").write_text(json.dumps([row]))
    else:
        cell = json.dumps(label).replace('"', '""')
        (tmp_path / "export.csv").write_text(
            f'ID,Labeled Data,Label,Created By,External ID\n1,https://example.org/a.jpg,"{cell}",ann@example.org,a.jpg\n'
        )
    image, classes, _ = _only(tmp_path)
    (cat,) = image.objects or ()
    assert (classes, cat.box, cat.annotator) == (("cat",), (6, 5, 14, 12), "ann@example.org")


def test_supervisely(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "img" / "a.jpg")
    (tmp_path / "train" / "ann").mkdir()
    (tmp_path / "meta.json").write_text(
        json.dumps(
            {"classes": [{"title": "dog", "shape": "rectangle"}, {"title": "ox", "shape": "polygon"}], "tags": []}
        )
    )
    common = {"labelerLogin": "ann", "tags": [{"name": "occluded", "value": None}, {"name": "age", "value": 3}]}
    objects = [
        {"classTitle": "dog", "geometryType": "rectangle", "points": {"exterior": [[5, 6], [11, 13]], "interior": []}, **common},
        {"classTitle": "dog", "geometryType": "polygon", "points": {"exterior": [[0, 0], [20, 0], [20, 20], [0, 20]], "interior": [[[5, 5], [9, 5], [9, 9]]]}, "tags": []},
        # The Python of Supervisely's documentation packs the PNG of a 2 × 3 block this way.
        {"classTitle": "dog", "geometryType": "point", "points": {"exterior": [[1, 1]], "interior": []}, "tags": []},
    ]  # fmt: skip
    (tmp_path / "train" / "ann" / "a.jpg.json").write_text(
        json.dumps({"size": {"width": 64, "height": 48}, "tags": [], "objects": objects})
    )
    dataset = read_annotations(tmp_path)
    assert (dataset.classes, list(dataset.splits)) == (("dog", "ox"), ["train"])
    assert dataset.warnings == ("1 objects are of type point: left out",)
    box, polygon = dataset.images()[0].objects or ()
    assert (box.box, box.annotator, box.occluded, box.attributes) == ((5, 6, 12, 14), "ann", True, {"age": 3})
    assert (polygon.box, polygon.holes) == ((0, 0, 20, 20), ((5, 5, 9, 5, 9, 9),))


def test_labelme(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    flags = {"flags": {"difficult": True, "wet": False}}
    shapes = [
        {"label": "cat", "points": [[20, 30], [5, 6]], "group_id": None, "shape_type": "rectangle", **flags},
        {"label": "dog", "points": [[1, 1], [9, 1], [5, 9]], "group_id": 1, "shape_type": "polygon", "flags": {}},
        {"label": "dog", "points": [[11, 1], [19, 1], [15, 9]], "group_id": 1, "shape_type": "polygon", "flags": {}},
        {"label": "dog", "points": [[20, 20], [20, 30]], "group_id": None, "shape_type": "circle", "flags": {}},
        {"label": "dog", "points": [[1, 1]], "group_id": None, "shape_type": "point", "flags": {}},
    ]
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "..\\photos\\a.jpg", "imageData": None, "imageHeight": None, "imageWidth": None}  # fmt: skip
    (tmp_path / "a.json").write_text(json.dumps(content))
    image, classes, warnings = _only(tmp_path)
    assert (image.path.name, image.width, classes) == ("a.jpg", 64, ("cat", "dog"))
    assert warnings == ("1 shapes are of type point: left out",)
    cat, both, circle = image.objects or ()
    assert (cat.box, cat.difficult, cat.attributes) == ((5, 6, 20, 30), True, {})
    assert (both.box, len(both.polygons)) == ((1, 1, 19, 9), 2)
    assert np.allclose(circle.box, (10, 10, 30, 30))


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
<meta><task><id>1</id><labels><label><name>cat</name><attributes></attributes></label><label><name>ox</name></label></labels></task></meta>
<image id="0" name="sub/a.jpg" subset="Train" width="64" height="48">
  <box label="cat" source="manual" occluded="1" xtl="5.5" ytl="6.0" xbr="12.0" ybr="14.0" z_order="0"><attribute name="age">3</attribute></box>
  <box label="cat" source="manual" occluded="0" xtl="10" ytl="10" xbr="30" ybr="20" rotation="90.0" z_order="0"></box>
  <polygon label="cat" source="manual" occluded="0" points="1.0,1.0;9.0,1.0;5.0,9.0" z_order="0"></polygon>
  <mask label="cat" source="semi-auto" occluded="0" rle="1, 2, 3" left="10" top="20" width="3" height="2" z_order="0"></mask>
  <points label="cat" points="1,1"></points>
</image></annotations>"""


def test_cvat(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "sub" / "a.jpg")
    (tmp_path / "annotations.xml").write_text(CVAT)
    dataset = read_annotations(tmp_path / "annotations.xml")
    assert (dataset.classes, list(dataset.splits)) == (("cat", "ox"), ["train"])
    assert dataset.warnings == ("1 points labels: left out",)
    box, rotated, polygon, mask = dataset.images()[0].objects or ()
    assert (box.box, box.occluded, box.attributes) == ((5.5, 6, 12, 14), True, {"age": "3"})
    assert np.allclose(rotated.box, (15, 5, 25, 25))
    assert polygon.polygons == ((1, 1, 9, 1, 5, 9),)
    assert mask.mask is not None
    assert mask.box == (11, 20, 13, 21)
    assert np.argwhere(decode(mask.mask)).tolist() == [[20, 11], [20, 12]]


def test_cvat_of_a_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<annotations><track id="0" label="cat"></track></annotations>')
    with pytest.raises(DataError, match="tracks of a video; export it as"):
        read_annotations(tmp_path)


def test_label_studio(tmp_path: Path) -> None:
    write_image(tmp_path / "a b.jpg", 200, 100)
    common = {
        "original_width": 200,
        "original_height": 100,
        "image_rotation": 0,
        "from_name": "label",
        "to_name": "image",
    }
    # A brush stroke over the first 3 of 20,000 pixels, packed by the rle-pack of @thi.ng/umbrella.
    bits = f"{80000:032b}" + f"{7:05b}" + "".join(f"{size - 1:04b}" for size in (3, 4, 8, 16))
    bits += "1" + "01" + f"{11:04b}" + f"{255:08b}"
    rest = 80000 - 12
    while rest:
        length = min(rest, 65536)
        bits += "1" + "11" + f"{length - 1:016b}" + f"{0:08b}"
        rest -= length
    packed = np.packbits(np.array(list(bits), dtype=np.uint8)).tolist()
    results = [
        {**common, "id": "1", "type": "rectanglelabels", "value": {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["cat"]}},
        {**common, "id": "1", "type": "choices", "from_name": "mood", "value": {"choices": ["grumpy"]}},
        {**common, "id": "2", "type": "rectanglelabels", "value": {"x": 50, "y": 10, "width": 10, "height": 40, "rotation": 90, "rectanglelabels": ["dog"]}},
        {**common, "id": "3", "type": "polygonlabels", "value": {"points": [[10, 10], [20, 10], [15, 50]], "polygonlabels": ["dog"]}},
        {**common, "id": "4", "type": "ellipselabels", "value": {"x": 50, "y": 50, "radiusX": 10, "radiusY": 10, "rotation": 0, "ellipselabels": ["dog"]}},
        {**common, "id": "5", "type": "brushlabels", "value": {"format": "rle", "rle": packed, "brushlabels": ["dog"]}},
        {**common, "id": "6", "type": "keypointlabels", "value": {"x": 1, "y": 1, "width": 1, "keypointlabels": ["dog"]}},
    ]  # fmt: skip
    task = {
        "id": 1, "file_upload": "1a2b3c4d-a_b.jpg", "data": {"image": "/data/upload/1/1a2b3c4d-a%20b.jpg"},
        "annotations": [{"id": 1, "completed_by": {"email": "ann@example.org"}, "result": results}],
        "predictions": [{"result": []}],
    }  # fmt: skip
    (tmp_path / "export.json").write_text(json.dumps([task]))
    image, classes, warnings = _only(tmp_path)
    assert (image.path.name, image.width, image.height, classes) == ("a b.jpg", 200, 100, ("cat", "dog"))
    assert warnings == ("1 predictions: left out", "1 key points: left out")
    box, rotated, polygon, ellipse, brush = image.objects or ()
    assert np.allclose(box.box, (20, 20, 80, 60))
    assert (box.annotator, box.attributes) == ("ann@example.org", {"mood": "grumpy"})
    assert np.allclose(rotated.box, (60, 10, 100, 30))  # 20 × 40 pixels, rotated around (100, 10)
    assert np.allclose(polygon.polygons, [(20, 10, 40, 10, 30, 50)])
    assert np.allclose(ellipse.box, (80, 40, 120, 60))
    assert brush.mask is not None
    assert (mask_area(brush.mask), brush.box) == (3, (0, 0, 3, 1))


@pytest.mark.parametrize("keys", [("image", "annotations"), ("imagefilename", "annotation")])
def test_createml(keys: tuple[str, str], tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    row = {keys[0]: "a.jpg", keys[1]: [{"label": "cat", "coordinates": {"x": 20, "y": 30, "width": 10, "height": 20}}]}
    (tmp_path / "_annotations.createml.json").write_text(json.dumps([row]))
    image, classes, _ = _only(tmp_path)
    assert (classes, (image.objects or ())[0].box) == (("cat",), (15, 20, 25, 40))


def test_coco_of_roboflow_and_of_the_publisher(tmp_path: Path) -> None:
    """Labels beside the images of each split; or in `annotations/`, with images in `train2017/`."""
    content = {
        "info": {}, "categories": [{"id": 7, "name": "zebra"}, {"id": 2, "name": "ant"}],
        "images": [{"id": 5, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 5, "category_id": 7, "bbox": [1.5, 2, 3, 4], "area": 12, "iscrowd": 0, "segmentation": []}],
    }  # fmt: skip
    for root, file, folder in (
        ("roboflow", "train/_annotations.coco.json", "train"),
        ("published", "annotations/instances_train2017.json", "train2017"),
        ("published", "annotations/captions_train2017.json", "train2017"),
    ):
        write_image(tmp_path / root / folder / "a.jpg")
        (tmp_path / root / file).parent.mkdir(exist_ok=True)
        (tmp_path / root / file).write_text(json.dumps(content))
        dataset = read_annotations(tmp_path / root)
        assert (dataset.classes, dataset.category_ids, dataset.warnings) == (("ant", "zebra"), (2, 7), ())
        (image,) = dataset.splits["train"]
        assert (image.path, image.id) == (tmp_path / root / folder / "a.jpg", 5)
        assert (image.objects or ())[0].box == (1.5, 2, 4.5, 6)


# Rows of Open Images' train-annotations-bbox.csv; the fourth got a score, an unknown flag and a depiction.
OPEN_IMAGES = """ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside
000026e7ee790996,xclick,/m/07j7r,1,0.071875,0.1453125,0.20625,0.39166668,0,1,1,0,0
000026e7ee790996,xclick,/m/07j7r,1,0.4390625,0.571875,0.26458332,0.43541667,0,1,1,0,0
000062a39995e348,xclick,/m/015p6,1,0.20620842,0.849224,0.15463917,1,0,0,0,0,0
000062a39995e348,activemil,/m/05s2s,0.875,0.13747229,0.37694013,0,0.88365245,1,-1,0,1,0
0000c64e1253d68f,xclick,/m/0k4j,1,0,0.5132743,0.32079646,0.6902655,0,1,0,0,0
"""


@pytest.mark.parametrize("header", ["", "LabelName,DisplayName\n"])
def test_open_images(header: str, tmp_path: Path) -> None:
    """As version 6 and 7 publish it; the third image was not downloaded."""
    write_image(tmp_path / "train" / "000026e7ee790996.jpg", 640, 480)
    write_image(tmp_path / "train" / "000062a39995e348.jpg", 1024, 768)
    write_image(tmp_path / "train" / "0000ffffffffffff.jpg")
    (tmp_path / "oidv6-train-annotations-bbox.csv").write_text(OPEN_IMAGES)
    names = "/m/015p6,Bird\n/m/05s2s,Plant\n/m/07j7r,Tree\n/m/0k4j,Car\n"
    (tmp_path / "oidv7-class-descriptions-boxable.csv").write_text(header + names)
    dataset = read_annotations(tmp_path)
    assert (dataset.format, dataset.classes, list(dataset.splits)) == (
        "open-images",
        ("Bird", "Plant", "Tree"),
        ["train"],
    )
    assert dataset.warnings == ("1 rows refer to images that do not exist: left out",)
    trees, birds, unlabelled = dataset.images()
    assert unlabelled.objects is None
    first, second = trees.objects or ()
    assert np.allclose(first.box, (46, 99, 93, 188), atol=1e-3)  # 0.071875 · 640, 0.20625 · 480 …
    assert (first.label, first.truncated, first.crowd, first.occluded, first.score) == (2, True, True, False, None)
    assert second.box[0] == pytest.approx(281)
    bird, plant = birds.objects or ()
    assert (bird.label, bird.box[3], bird.attributes, bird.score) == (0, 768, {}, None)
    assert (plant.truncated, plant.occluded, plant.attributes, plant.score) == (False, True, {"depiction": True}, 0.875)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.20625,", "north,", "line 2: YMin is 'north', not a number of pixels"),
        ("000026e7ee790996,xclick", ",xclick", "line 2: ImageID is '', not a name"),
        ("/m/015p6", "", "line 4: LabelName is '', not a name"),
        ("0.26458332,0.43541667,0,1,1,0,0", "0.26458332", "line 3: 'YMax' is missing"),
    ],
)
def test_open_images_names_the_line(old: str, new: str, message: str, tmp_path: Path) -> None:
    write_image(tmp_path / "000026e7ee790996.jpg", 640, 480)
    write_image(tmp_path / "000062a39995e348.jpg", 1024, 768)
    (tmp_path / "boxes.csv").write_text(OPEN_IMAGES.replace(old, new, 1))
    with pytest.raises(DataError) as caught:
        read_annotations(tmp_path)
    assert f"boxes.csv, {message}" in caught.value.message
