"""Where labels and images lie: mirrored trees, names in other letters, lists of classes, what systems add."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest

from hubel.config import SplitFractions
from hubel.data.annotated_images import read_annotated_images
from hubel.data.annotations import read_annotations, write_annotations
from hubel.data.annotations.reader import LabelFileError
from hubel.data.splits import training_splits
from hubel.errors import DataError
from labelled_sets import write_image

BOX = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>30</ymax></bndbox>"
ROW = "0 0.5 0.5 0.3 0.3\n"
CAFE = "caf\u00e9"
CAFE_ON_A_MAC = unicodedata.normalize("NFD", CAFE)


def _voc(path: Path, name: str = "cat", filename: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"<annotation><filename>{filename}</filename><object><name>{name}</name>{BOX}</object></annotation>", "utf-8"
    )


def _text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")


def _objects(root: Path) -> dict[str, list[str] | None]:
    """Classes of the objects by image; ``None`` for unlabelled ones."""
    dataset = read_annotations(root)
    return {
        image.path.relative_to(root).as_posix(): None
        if image.objects is None
        else [dataset.classes[obj.label] for obj in image.objects]
        for image in dataset.images()
    }


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        ("images", "annotations"),
        ("train/images", "annotations/train"),
        ("images/train", "train/labels"),
        ("JPEGImages", "Annotations"),
        ("data/imgs", "data/xmls"),
        ("set/images/deep", "set/labels/deep"),
        (".", "xml"),
        ("Images", "labels"),
        ("a/b/c/d/e/f/g/h/images", "a/b/c/d/e/f/g/h/labels"),
    ],
)
@pytest.mark.parametrize("kind", ["voc", "yolo", "labelme"])
def test_labels_find_their_image_at_the_same_place_of_another_tree(
    images: str, labels: str, kind: str, tmp_path: Path
) -> None:
    for folder in ("x", "y/z"):
        write_image(tmp_path / images / folder / "1.jpg")
        name = folder[0]
        if kind == "voc":
            _voc(tmp_path / labels / folder / "1.xml", name, "1.jpg")
        elif kind == "yolo":
            _text(tmp_path / labels / folder / "1.txt", ROW.replace("0 ", f"{'xy'.index(name)} ", 1))
        else:
            shape = {"label": name, "points": [[1, 2], [20, 30]], "shape_type": "rectangle"}
            content = {"version": "5", "imagePath": "1.jpg", "shapes": [shape]}
            _text(tmp_path / labels / folder / "1.json", json.dumps(content))
    if kind == "yolo":
        _text(tmp_path / "classes.txt", "x\ny\n")
    assert {Path(path).parts[-2:]: found for path, found in _objects(tmp_path).items()} == {
        ("x", "1.jpg"): ["x"],
        ("z", "1.jpg"): ["y"],
    }


@pytest.mark.parametrize(("on_disk", "in_labels"), [(CAFE, CAFE_ON_A_MAC), (CAFE_ON_A_MAC, CAFE)])
@pytest.mark.parametrize("kind", ["coco", "voc", "voc stem", "yolo", "yolo list", "via", "createml", "supervisely"])
def test_a_letter_may_be_one_character_or_two(on_disk: str, in_labels: str, kind: str, tmp_path: Path) -> None:
    image = write_image(tmp_path / ("all/img" if kind == "supervisely" else on_disk) / f"{on_disk}.jpg")
    name = f"{in_labels}.jpg"
    if kind == "coco":
        content = {
            "images": [{"id": 1, "file_name": f"{in_labels}/{name}"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}],
            "categories": [{"id": 1, "name": "cat"}],
        }
        _text(tmp_path / "labels.json", json.dumps(content, ensure_ascii=False))
    elif kind == "voc":
        _voc(tmp_path / "annotations" / in_labels / "1.xml", filename=name)
    elif kind == "voc stem":
        _voc(tmp_path / in_labels / f"{in_labels}.xml")
    elif kind.startswith("yolo"):
        _text(tmp_path / "labels" / in_labels / f"{in_labels}.txt", ROW)
        listed = in_labels if kind == "yolo" else "list.txt"
        _text(tmp_path / "list.txt", f"{in_labels}/{name}\n")
        _text(tmp_path / "data.yaml", f"train: {listed}\nnames: [cat]\n")
    elif kind == "via":
        region = {"shape_attributes": {"name": "rect", "x": 1, "y": 2, "width": 30, "height": 40}}
        content = {name: {"filename": name, "regions": [{**region, "region_attributes": {"class": "cat"}}]}}
        _text(tmp_path / "v.json", json.dumps(content, ensure_ascii=False))
    elif kind == "createml":
        box = {"label": "cat", "coordinates": {"x": 20, "y": 20, "width": 10, "height": 10}}
        _text(tmp_path / "c.json", json.dumps([{"image": name, "annotations": [box]}], ensure_ascii=False))
    else:
        figure = {"classTitle": "cat", "geometryType": "rectangle", "points": {"exterior": [[1, 2], [20, 30]]}}
        content = {"size": {"width": 64, "height": 48}, "objects": [figure]}
        _text(tmp_path / "all" / "ann" / f"{name}.json", json.dumps(content))
    assert _objects(tmp_path) == {image.relative_to(tmp_path).as_posix(): ["cat"]}


def test_one_class_in_both_spellings_is_one_class(tmp_path: Path) -> None:
    for name, label in (("a", CAFE), ("b", CAFE_ON_A_MAC)):
        write_image(tmp_path / f"{name}.jpg")
        _voc(tmp_path / f"{name}.xml", label)
    assert read_annotations(tmp_path).classes == (CAFE,)


def test_the_name_in_the_file_comes_before_the_files_own(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg", 64, 48)
    write_image(tmp_path / "a.png", 32, 24)
    _voc(tmp_path / "a.xml", filename="a.png")
    assert _objects(tmp_path) == {"a.png": ["cat"], "a.jpg": None}


def test_labelme_s_image_path_comes_before_the_files_own(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "a.png")
    shape = {"label": "cat", "points": [[1, 2], [20, 30]], "shape_type": "rectangle"}
    _text(tmp_path / "a.json", json.dumps({"version": "5", "imagePath": "..\\x\\a.png", "shapes": [shape]}))
    assert _objects(tmp_path) == {"a.png": ["cat"], "a.jpg": None}


def test_two_images_of_a_name_are_ambiguous(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    write_image(tmp_path / "a.png")
    _voc(tmp_path / "a.xml")
    with pytest.raises(DataError, match=r"a.xml: is of a.jpg or of a.png: it does not say which"):
        read_annotations(tmp_path)
    write_image(tmp_path / "b.jpg")
    _voc(tmp_path / "b.xml")
    faults: list[LabelFileError] = []
    images = read_annotations(tmp_path, on_fault=faults.append).images()
    assert {image.path.name: bool(image.objects) for image in images} == {"a.jpg": False, "a.png": False, "b.jpg": True}


def test_images_that_were_renamed_with_their_labels(tmp_path: Path) -> None:
    """The old names inside are of files that are gone, or, from a careless tool, all the same."""
    for name in ("a", "b", "c"):
        write_image(tmp_path / f"{name}.jpg")
        _voc(tmp_path / f"{name}.xml", name, "a.jpg" if name != "c" else "IMG_0001.JPG")
    assert _objects(tmp_path) == {"a.jpg": ["a"], "b.jpg": ["b"], "c.jpg": ["c"]}


def test_yolo_labels_of_two_images_are_said(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png"):
        write_image(tmp_path / name)
    _text(tmp_path / "a.txt", ROW)
    _text(tmp_path / "classes.txt", "cat\n")
    assert read_annotations(tmp_path).warnings == (
        "1 images share their label file with another one of that name, a.jpg with a.png",
    )


@pytest.mark.parametrize("labels", ["{}", "{}/labels"])
def test_labelimg_writes_a_list_into_each_folder(labels: str, tmp_path: Path) -> None:
    """It adds classes while it labels, so one list may be longer."""
    for index, split in enumerate(("train", "val")):
        folder = tmp_path / labels.format(split)
        write_image(tmp_path / split / ("images" if "labels" in labels else ".") / f"{split}.jpg")
        _text(folder / f"{split}.txt", f"{index} 0.5 0.5 0.3 0.3\n")
        _text(folder / "classes.txt", "cat\n" if split == "train" else "cat\ndog\n")
    dataset = read_annotations(tmp_path)
    assert dataset.classes == ("cat", "dog")
    assert {split: [len(image.objects or ()) for image in images] for split, images in dataset.splits.items()} == {
        "train": [1],
        "val": [1],
    }


def test_lists_of_different_classes_are_named(tmp_path: Path) -> None:
    for split, names in (("train", "cat\ndog\n"), ("val", "dog\ncat\n")):
        write_image(tmp_path / split / f"{split}.jpg")
        _text(tmp_path / split / f"{split}.txt", ROW)
        _text(tmp_path / split / "classes.txt", names)
    with pytest.raises(DataError, match=r"train.classes.txt and .*val.classes.txt list different classes"):
        read_annotations(tmp_path)


DOUBLE = b"\0\5\26\7\0\2\0\0Mac OS X        " + bytes(60)


def test_what_systems_add_is_neither_image_nor_label(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg")
    _text(tmp_path / "labels" / "a.txt", ROW)
    _text(tmp_path / "data.yaml", "names: [cat]\ntrain: images\nval: images\n")
    for name in ("images/._a.jpg", "labels/._a.txt", "._data.yaml", "images/.DS_Store"):
        (tmp_path / name).write_bytes(DOUBLE)
    for folder in ("@eaDir/a.jpg", "__MACOSX", ".ipynb_checkpoints", "#recycle"):
        write_image(tmp_path / "images" / folder / "thumb.jpg")
        _text(tmp_path / "labels" / folder / "thumb.txt", "9 9 9 9 9\n")
    assert _objects(tmp_path) == {"images/a.jpg": ["cat"]}


def test_a_training_run_inside_the_data_set_is_not_data(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    _voc(tmp_path / "a.xml")
    run = tmp_path / "runs" / "first"
    write_image(run / "figures" / "loss.png")
    _text(run / "config.yaml", "train: 3\nnames: [x]\n")
    _text(run / "metrics.csv", "epoch\n")
    assert _objects(tmp_path) == {"a.jpg": ["cat"]}


def test_a_converted_copy_inside_the_data_set_is_not_read_again(tmp_path: Path) -> None:
    write_image(tmp_path / "set" / "a.jpg")
    _voc(tmp_path / "set" / "a.xml", filename="a.jpg")
    dataset = read_annotations(tmp_path / "set")
    for format in ("voc", "yolo"):
        write_annotations(dataset, format, tmp_path / "set" / "copies" / format)
    write_annotations(dataset, "coco", tmp_path / "set" / "coco")
    assert read_annotations(tmp_path / "set").images() == dataset.images()
    assert len(read_annotations(tmp_path / "set" / "coco").images()) == 1
    (tmp_path / "parent").mkdir()
    (tmp_path / "set" / "coco").rename(tmp_path / "parent" / "coco")
    (tmp_path / "parent" / "again").symlink_to(tmp_path / "parent")  # the last folder before the copies are looked at
    assert len(read_annotations(tmp_path / "parent").images()) == 1


def test_published_lists_apply_to_folders_inside_annotations(tmp_path: Path) -> None:
    for name, split in (("x/1", "train"), ("x/2", "val"), ("x/3", "")):
        write_image(tmp_path / "JPEGImages" / f"{name}.jpg")
        _voc(tmp_path / "Annotations" / f"{name}.xml", filename=f"{name[2:]}.jpg")
        if split:
            _text(tmp_path / "ImageSets" / "Main" / f"{split}.txt", f"{name[2:]}\n")
    dataset = read_annotations(tmp_path)
    found = {split: [image.path.stem for image in images] for split, images in dataset.splits.items()}
    assert found == {"train": ["1"], "val": ["2"]}


def test_folders_of_data_yaml_in_another_case(tmp_path: Path) -> None:
    write_image(tmp_path / "Train" / "Images" / "a.jpg")
    _text(tmp_path / "Train" / "Labels" / "a.txt", ROW)
    _text(tmp_path / "data.yaml", "train: ../train/images\nnames: [cat]\n")
    assert _objects(tmp_path) == {"Train/Images/a.jpg": ["cat"]}


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    write_image(tmp_path / "elsewhere" / "a.jpg")
    root = tmp_path / "set"
    _text(root / "labels" / "a.txt", ROW)
    _text(root / "classes.txt", "cat\n")
    (root / "images").symlink_to(tmp_path / "elsewhere")
    (root / "labels" / "again").symlink_to(root)
    assert _objects(root) == {"images/a.jpg": ["cat"]}


def test_label_files_in_capitals(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "A.JPG")
    _text(tmp_path / "labels" / "A.TXT", ROW)
    _text(tmp_path / "classes.txt", "cat\n")
    assert _objects(tmp_path) == {"images/A.JPG": ["cat"]}


def test_splits_by_other_names(tmp_path: Path) -> None:
    for split in ("Training", "Testing"):
        write_image(tmp_path / "images" / split / f"{split}.jpg")
        _text(tmp_path / "labels" / split / f"{split}.txt", ROW)
    found = read_annotations(tmp_path).splits
    assert {split: images[0].path.stem for split, images in found.items()} == {"train": "Training", "test": "Testing"}


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("birds_train", "birds_test"), ["train", "test"]),
        (("trainset", "valset"), ["train", "val"]),
        (("trainval", "test"), ["train", "test"]),
        (("coco_training", "coco_validation"), ["train", "val"]),
    ],
)
@pytest.mark.parametrize("layout", ["folders", "files"])
def test_splits_are_told_by_what_lies_beside_each_other(
    names: tuple[str, str], splits: list[str], layout: str, tmp_path: Path
) -> None:
    for name in names:
        write_image(tmp_path / "images" / (name if layout == "folders" else "") / f"{name}.jpg")
        table = f"filename,class,xmin,ymin,xmax,ymax\n{name}.jpg,cat,1,2,10,12\n"
        _text(tmp_path / (f"labels/{name}/a.csv" if layout == "folders" else f"{name}.csv"), table)
    found = {image.path.stem: split for split, images in read_annotations(tmp_path).splits.items() for image in images}
    assert [found[name] for name in names] == splits


@pytest.mark.parametrize(
    ("on_disk", "in_labels"),
    [
        ("a b&c.jpg", "a%20b%26c.jpg"), ("a b.jpg", "a%2520b.jpg"), ("a b.jpg", "a+b.jpg"), ("a&b.jpg", "a&amp;b.jpg"),
        ("100%25.jpg", "100%25.jpg"), ("a.jpeg", "a.jpg"), ("a.tif", "a.TIFF"), ("caf\udce9.jpg", "caf\u00e9.jpg"),
        ("\udcb9\udcb7.jpg", "狗.jpg"), ("\udc93\udcfa\udc96{.jpg", "日本.jpg"),
    ],
)  # fmt: skip
def test_names_that_were_written_for_urls_or_in_other_encodings(on_disk: str, in_labels: str, tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.jpg").rename(tmp_path / "images" / on_disk)
    _text(tmp_path / "l.csv", f"filename,class,xmin,ymin,xmax,ymax\n{in_labels},cat,1,2,10,12\n")
    (image,) = read_annotations(tmp_path).images()
    assert image.path == tmp_path / "images" / on_disk
    assert len(image.objects or ()) == 1


def test_images_in_no_split_are_for_training_where_nothing_else_is(tmp_path: Path) -> None:
    for name, folder in (("a", "images"), ("b", "test/images")):
        write_image(tmp_path / folder / f"{name}.jpg")
        _text(tmp_path / folder / f"{name}.txt", ROW)
    data = read_annotated_images(tmp_path)
    assert {split: [sample.path.stem for sample in samples] for split, samples in data.splits.items()} == {
        "train": ["a"], "test": ["b"],
    }  # fmt: skip
    assert "1 image is in no split, beside test: for training" in data.warnings
    for name, split in (("c", "train"), ("d", "val")):
        write_image(tmp_path / split / f"{name}.jpg")
        _text(tmp_path / split / f"{name}.txt", ROW)
    splits = training_splits(read_annotated_images(tmp_path), SplitFractions(), 0)
    assert [sample.path.stem for part in (splits.train, splits.val, splits.test) for sample in part] == ["c", "d", "b"]
    assert any("1 image is in no split, beside train: left out" in line for line in splits.warnings)


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo"])
def test_exports_of_labels_alone_are_named_before_training(kind: str, tmp_path: Path) -> None:
    """As CVAT writes them without "Save images"."""
    if kind == "coco":
        content = {
            "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}],
            "categories": [{"id": 1, "name": "cat"}],
        }
        _text(tmp_path / "annotations" / "instances_default.json", json.dumps(content))
    elif kind == "voc":
        _voc(tmp_path / "Annotations" / "a.xml", filename="a.jpg")
    else:
        _text(tmp_path / "labels" / "a.txt", ROW)
        _text(tmp_path / "data.yaml", "train: images/train\nnames: [cat]\n")
    with pytest.raises(DataError) as caught:
        read_annotated_images(tmp_path)
    assert "images" in caught.value.message
    assert "Save images" in caught.value.hint


def test_the_error_says_why_nothing_can_be_read(tmp_path: Path) -> None:
    write_image(tmp_path / "a.jpg")
    _text(tmp_path / "a.xml", "<annotation><filename>a&b.jpg</filename></annotation>")
    with pytest.raises(DataError, match=r"a.xml: is broken XML"):
        read_annotated_images(tmp_path)
    _text(tmp_path / "a.xml", "<annotation><object><name>cat</name></object></annotation>")
    with pytest.raises(DataError, match=r"no labelled objects that can be read. .*a.xml, object 1: has no <bndbox>"):
        read_annotated_images(tmp_path)
