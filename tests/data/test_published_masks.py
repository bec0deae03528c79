"""Masks as Pascal VOC, Cityscapes and CVAT lay them out, and files of colours; values by their documentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.data.checks.training_checks import check_masks
from hubel.data.class_maps import read_class_maps
from hubel.data.mask_file import MaskFile
from hubel.data.samples import ImageDataset, Sample
from hubel.errors import DataError, ImageError
from hubel.tasks.registry import guess_task
from labelled_sets import write_image

VOC_COLOURS = {0: (0, 0, 0), 1: (128, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
VOC_XML = """<annotation><filename>{0}.jpg</filename><size><width>5</width><height>2</height></size><object>
<name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>4</xmax><ymax>2</ymax></bndbox></object></annotation>"""
# Ids of the classes that are trained on, in their order, as cityscapesscripts/helpers/labels.py has them.
CITYSCAPES = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def save(file: Path, values: np.ndarray, palette: dict[int, tuple[int, int, int]] | None = None) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette([channel for index in range(256) for channel in palette.get(index, (1, 2, 3))])
    image.save(file)
    return file


def maps(data: ImageDataset) -> dict[str, list[list[int]]]:
    """The first row of each class map, by split."""
    return {split: [read(sample)[0].tolist() for sample in samples] for split, samples in data.splits.items()}


def read(sample: Sample) -> np.ndarray:
    assert sample.class_map is not None
    return sample.class_map.read()


def voc(root: Path) -> Path:
    for name in ("a", "b", "c", "d"):
        write_image(root / "JPEGImages" / f"{name}.jpg", 5, 2)
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{name}.xml").write_text(VOC_XML.format(name))
        if name != "d":
            row = np.array([0, 1, 15, 20, 255], np.uint8)
            for folder in ("SegmentationClass", "SegmentationObject"):
                save(root / folder / f"{name}.png", np.stack([row, row]), VOC_COLOURS)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, names in (("train", "a"), ("val", "b"), ("trainval", "a\nb")):
        (lists / f"{split}.txt").write_text(f"{names}\n")
    return root


@pytest.mark.parametrize("inside", ["", "VOC2012"])
def test_pascal_voc(tmp_path: Path, inside: str) -> None:
    root = voc(tmp_path / inside)
    assert guess_task(tmp_path) == "detect"  # it has boxes for more images
    data = read_class_maps(tmp_path)
    assert len(data.classes) == 21 and data.classes[0] == "background" and data.classes[20] == "tvmonitor"
    assert maps(data) == {"train": [[0, 1, 15, 20, 255]], "val": [[0, 1, 15, 20, 255]]}
    assert any("1 image has no mask: left out: d.jpg" in line for line in data.warnings)
    assert any("in no list of ImageSets/Segmentation: left out: c.jpg" in line for line in data.warnings)
    assert not any("255" in line for line in check_masks(data.splits, data.classes).notes)
    colours = np.array([[VOC_COLOURS[index] for index in (15, 255, 20, 0, 1)]] * 2, np.uint8)
    save(root / "SegmentationClass" / "a.png", colours)
    assert maps(data)["train"] == [[15, 255, 20, 0, 1]]


def city(root: Path, *kinds: str, nested: str = "") -> Path:
    """A city in two splits; masks of the ``kinds`` with all ids, or all indices."""
    for number, split in enumerate(("train", "val")):
        folders = {
            tree: root / f"{tree}{nested}" / (tree if nested else "") / split / "ulm"
            for tree in ("leftImg8bit", "gtFine")
        }
        stem = f"ulm_00000{number}_000019"
        write_image(folders["leftImg8bit"] / f"{stem}_leftImg8bit.png", 40, 1)
        values = {"labelIds": np.arange(40), "labelTrainIds": np.where(np.arange(40) < 19, np.arange(40), 255)}
        values["labelIds"][34:] = 255
        for kind in kinds:
            save(folders["gtFine"] / f"{stem}_gtFine_{kind}.png", values[kind].astype(np.uint8)[None])
        save(folders["gtFine"] / f"{stem}_gtFine_instanceIds.png", np.full((1, 40), 26001, np.uint16))
        save(folders["gtFine"] / f"{stem}_gtFine_color.png", np.full((1, 40, 4), 70, np.uint8))
        (folders["gtFine"] / f"{stem}_gtFine_polygons.json").write_text(
            '{"imgHeight": 1, "imgWidth": 40, "objects": [{"label": "car", "polygon": [[0, 0], [3, 0], [3, 1]]}]}'
        )
    return root


@pytest.mark.parametrize("nested", ["", "_trainvaltest"])
def test_cityscapes_ids(tmp_path: Path, nested: str) -> None:
    root = city(tmp_path, "labelIds", nested=nested)
    assert guess_task(root) == "segment"
    data = read_class_maps(root)
    assert len(data.classes) == 19 and data.classes[0] == "road" and data.classes[-1] == "bicycle"
    expected = [CITYSCAPES.index(id_) if id_ in CITYSCAPES else 255 for id_ in range(40)]
    assert maps(data) == {"train": [expected], "val": [expected]} and not data.warnings
    assert not check_masks(data.splits, data.classes).warnings()


@pytest.mark.parametrize("kinds", [("labelTrainIds",), ("labelIds", "labelTrainIds")])
def test_cityscapes_training_ids(tmp_path: Path, kinds: tuple[str, ...]) -> None:
    data = read_class_maps(city(tmp_path, *kinds))
    expected = [index if index < 19 else 255 for index in range(40)]
    assert maps(data) == {"train": [expected], "val": [expected]} and not data.warnings


def test_a_file_of_names_comes_before_published_ones(tmp_path: Path) -> None:
    root = city(tmp_path, "labelTrainIds")
    (root / "classes.txt").write_text("".join(f"class {index}\n" for index in range(19)))
    assert read_class_maps(root).classes[0] == "class 0"


def test_cvat_masks_with_their_palette(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbig cat:250,50,83::\ndog:51,221,255:head,body:run\n"
    )
    write_image(tmp_path / "JPEGImages" / "a.jpg", 3, 1)
    for folder in ("SegmentationClass", "SegmentationObject"):
        save(tmp_path / folder / "a.png", np.array([[(51, 221, 255), (0, 0, 0), (250, 50, 83)]], np.uint8))
    assert guess_task(tmp_path) == "segment"
    data = read_class_maps(tmp_path)
    assert data.classes == ("background", "big cat", "dog")
    assert maps(data) == {"all": [[2, 0, 1]]}


def test_camvid_with_a_table_of_colours(tmp_path: Path) -> None:
    """Folders and names as they are widely shared: train, train_labels, class_dict.csv."""
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nAnimal,64,128,64\nArchway,192,0,128\nVoid (ignore),0,0,0\n")
    for split in ("train", "val"):
        write_image(tmp_path / split / "0001TP_006690.png", 3, 1)
        mask = np.array([[(192, 0, 128), (0, 0, 0), (64, 128, 64)]], np.uint8)
        save(tmp_path / f"{split}_labels" / "0001TP_006690_L.png", mask)
    data = read_class_maps(tmp_path)
    assert data.classes == ("Animal", "Archway")
    assert maps(data) == {"train": [[1, 255, 0]], "val": [[1, 255, 0]]}


def coloured(root: Path, lines: str) -> MaskFile:
    """The one mask, still without pixels, of a data set whose classes.txt has these lines."""
    write_image(root / "images" / "a.png", 3, 1)
    save(root / "masks" / "a.png", np.zeros((1, 3), np.uint8))
    (root / "classes.txt").write_text(lines)
    ((sample,),) = read_class_maps(root).splits.values()
    assert isinstance(sample.class_map, MaskFile)
    return sample.class_map


COLOURS = "sky 10 20 30\nroad 200 0 0\nmud (ignore) 0 0 9\ncar 0 90 0\n"


def test_the_colours_of_a_palette_tell_the_classes_not_its_order(tmp_path: Path) -> None:
    mask = coloured(tmp_path, COLOURS)
    palette = {0: (0, 90, 0), 1: (10, 20, 30), 2: (0, 0, 9)}
    save(mask.path, np.array([[0, 1, 2]], np.uint8), palette)
    assert mask.read().tolist() == [[2, 0, 255]]
    save(mask.path, np.array([[0, 1, 255]], np.uint8), palette)
    assert mask.read().tolist() == [[2, 0, 255]]
    save(mask.path, np.array([[0, 0, 1]], np.uint8), {0: (10, 20, 30), 1: (10, 20, 31)})
    with pytest.raises(ImageError, match="colour 10 20 31, which no class has, in 1 pixels"):
        mask.read()
    save(mask.path, np.array([[0, 1, 3]], np.uint8), {index: (index,) * 3 for index in range(256)})
    assert mask.read().tolist() == [[0, 1, 2]], "shades of grey are indices"


def test_a_line_in_the_middle_may_be_ignored(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", 5, 1)
    save(tmp_path / "masks" / "a.png", np.array([[0, 1, 2, 3, 255]], np.uint8))
    (tmp_path / "classes.txt").write_text("0 unlabelled (ignore)\n1 road\n2 mud (ignore)\n3 sky\n")
    data = read_class_maps(tmp_path)
    assert data.classes == ("road", "sky")
    assert maps(data) == {"all": [[255, 0, 255, 1, 255]]}
    assert not check_masks(data.splits, data.classes).warnings()
    moved = data.remap_classes(("sky", "grass", "road"))
    assert maps(moved) == {"all": [[255, 2, 255, 0, 255]]}
    with pytest.raises(DataError, match="classes that the model does not know: sky"):
        data.remap_classes(("road", "grass"))


def test_values_that_no_line_names_are_noted(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", 4, 1)
    save(tmp_path / "masks" / "a.png", np.array([[0, 1, 2, 255]], np.uint8))
    (tmp_path / "classes.txt").write_text("road\nsky\n")
    data = read_class_maps(tmp_path)
    notes = check_masks(data.splits, data.classes).notes
    assert notes == [
        "masks have pixels of 2 (in 1 mask), 255 (in 1 mask), which are not classes: these pixels do not count"
    ]


def test_one_class_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "images" / "a.png", 4, 1)
    save(tmp_path / "masks" / "a.png", np.array([[0, 1, 0, 255]], np.uint8))
    (tmp_path / "classes.txt").write_text("road\n")
    data = read_class_maps(tmp_path)
    with pytest.raises(DataError, match=r"only one class \(road\)"):
        check_masks(data.splits, data.classes).raise_if_unusable()
    (tmp_path / "classes.txt").write_text("".join(f"class {index}\n" for index in range(256)))
    with pytest.raises(DataError, match="has 256 lines"):
        read_class_maps(tmp_path)
