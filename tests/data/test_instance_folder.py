"""Masks that tell objects apart, laid out as PennFudanPed, Pascal VOC, Cityscapes and the nuclei of 2018 are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as reference

from hubel.data.annotations import write_annotations
from hubel.data.checks import check_data
from hubel.data.checks.run import read_any
from hubel.data.checks.statistics import statistics
from hubel.data.instances import read_instances, read_labels
from hubel.data.samples import ImageDataset, Sample
from hubel.errors import DataError
from hubel.tasks.registry import guess_task
from labelled_sets import write_image

ONE, TWO = (slice(2, 9), slice(3, 8)), (slice(5, 18), slice(12, 20))


def save(file: Path, values: np.ndarray) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(file)
    return file


def numbered(first: int, second: int, dtype: type = np.uint8) -> np.ndarray:
    """Two objects of these values in 24 × 20 pixels; the first has a hole and a second part."""
    values = np.zeros((20, 24), dtype)
    values[ONE], values[TWO] = first, second
    values[4:6, 4:6] = 0
    values[19, 23] = first
    return values


def sample_of(data: ImageDataset, split: str = "all") -> Sample:
    (sample,) = data.splits[split]
    return sample


def check(sample: Sample, values: np.ndarray, of: dict[int, int]) -> None:
    """The objects are the pixels of the values, each with its class, with boxes and areas by pycocotools."""
    assert sample.labels.tolist() == list(of.values())
    for index, (value, mask) in enumerate(zip(of, sample.masks(), strict=True)):
        assert np.array_equal(reference.decode(mask.to_coco()).astype(bool), values == value)
        x, y, w, h = reference.toBbox(mask.to_coco())
        assert sample.boxes[index].tolist() == [x, y, x + w, y + h]
        assert sample.areas[index] == reference.area(mask.to_coco())


def test_a_mask_numbers_the_objects_as_in_pennfudanped(tmp_path: Path) -> None:
    write_image(tmp_path / "PNGImages" / "FudanPed00001.png", 24, 20)
    write_image(tmp_path / "PNGImages" / "FudanPed00002.png", 24, 20)
    values = numbered(1, 2)
    save(tmp_path / "PedMasks" / "FudanPed00001_mask.png", values)
    save(tmp_path / "PedMasks" / "FudanPed00002_mask.png", values * 0)
    (tmp_path / "Annotation").mkdir()
    (tmp_path / "Annotation" / "FudanPed00001.txt").write_text("# Compatible with PASCAL Annotation Version 1.00\n")
    data = read_instances(tmp_path)
    first, second = data.splits["all"]
    assert data.classes == ("object",) and not data.warnings and guess_task(tmp_path) == "instances"
    check(first, values, {1: 0, 2: 0})
    assert check_data(tmp_path).errors == 0 and statistics(read_any(tmp_path)).splits["all"].objects == 2
    write_annotations(read_labels(tmp_path), "coco", tmp_path / "coco")
    (copy,) = (each for each in read_instances(tmp_path / "coco").splits["all"] if len(each.labels))
    check(copy, values, {1: 0, 2: 0})
    assert len(second.labels) == 0 and second.shapes == ()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_splits_and_a_named_class(tmp_path: Path, dtype: type) -> None:
    (tmp_path / "classes.txt").write_text("cell\n")
    values = numbered(7, 250 if dtype is np.uint8 else 4000, dtype)
    for split in ("train", "val"):
        write_image(tmp_path / split / "images" / "a.jpg", 24, 20)
        save(tmp_path / split / "masks" / "a.png", values)
    data = read_instances(tmp_path)
    assert data.classes == ("cell",) and set(data.splits) == {"train", "val"}
    check(sample_of(data, "val"), values, dict.fromkeys(np.unique(values)[1:].tolist(), 0))


@pytest.mark.parametrize("layout", ["masks/a/{}.png", "a/masks/{}.png"])
def test_a_file_for_each_object_which_may_overlap(tmp_path: Path, layout: str) -> None:
    write_image(tmp_path / ("images/a.jpg" if layout.startswith("masks") else "a/images/a.png"), 24, 20)
    one, two = np.zeros((2, 20, 24), np.uint8)
    one[2:9, 3:14], two[5:18, 12:20] = 255, 255
    for name, mask in (("1", one), ("2", two)):
        save(tmp_path / layout.format(name), mask)
    sample = sample_of(read_instances(tmp_path))
    found = [reference.decode(mask.to_coco()) for mask in sample.masks()]
    assert np.array_equal(np.stack(found), np.stack([one, two]) > 0)
    assert sample.boxes.tolist() == [[3, 2, 14, 9], [12, 5, 20, 18]]


def test_pascal_vocs_objects_have_the_classes_of_its_other_masks(tmp_path: Path) -> None:
    values = numbered(1, 2)
    values[0] = 255
    classes = np.choose(np.minimum(values, 3), (0, 15, 8, 255)).astype(np.uint8)
    classes[6:8, 3:5] = 255  # a rim inside
    for name, split in (("a", "train"), ("b", "val")):
        write_image(tmp_path / "JPEGImages" / f"{name}.jpg", 24, 20)
        save(tmp_path / "SegmentationObject" / f"{name}.png", values)
        save(tmp_path / "SegmentationClass" / f"{name}.png", classes)
        (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
        (tmp_path / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(f"{name}\n")
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Annotations" / "a.xml").write_text(
        "<annotation><filename>a.jpg</filename><object><name>cat</name><bndbox><xmin>1</xmin><ymin>1</ymin>"
        "<xmax>4</xmax><ymax>2</ymax></bndbox></object></annotation>"
    )
    data = read_instances(tmp_path)
    assert set(data.splits) == {"train", "val"} and len(data.classes) == 20 and not data.warnings
    check(sample_of(data, "val"), values, {1: data.classes.index("person"), 2: data.classes.index("cat")})


def test_cityscapes_values_are_class_and_number_and_groups_are_crowds(tmp_path: Path) -> None:
    values = numbered(24001, 26, np.uint16)
    values[10:12, :5] = 33000
    values[13:16, :5] = 7  # road
    write_image(tmp_path / "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png", 24, 20)
    for kind, pixels in (("instanceIds", values), ("labelIds", values.astype(np.uint8))):
        save(tmp_path / f"gtFine/train/ulm/ulm_000000_000019_gtFine_{kind}.png", pixels)
    data = read_instances(tmp_path)
    names = ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    assert data.classes == names and not data.warnings
    sample = sample_of(data, "train")
    check(sample, values, {26: 2, 24001: 0, 33000: 7})
    assert sample.crowd.tolist() == [True, False, False]


def test_a_class_may_be_called_mask(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for number, name in enumerate(("mask", "no_mask")):
            for index in range(2):
                folder = tmp_path / split / name
                save(folder / f"{index}.png", np.full((9, 9, 3), 40 * number + index, np.uint8))
    dataset = read_any(tmp_path)
    assert dataset.classes == ("mask", "no_mask") and guess_task(tmp_path) == "classify"


def test_what_cannot_be_used_is_left_out_or_refused(tmp_path: Path) -> None:
    for name in "abc":
        write_image(tmp_path / "images" / f"{name}.png", 24, 20)
    save(tmp_path / "masks" / "a.png", numbered(1, 2))
    save(tmp_path / "masks" / "b.png", numbered(1, 2)[:10])
    save(tmp_path / "masks" / "c.png", np.random.default_rng(0).integers(0, 9, (20, 24, 3), np.uint8))
    data = read_instances(tmp_path)
    assert len(sample_of(data).labels) == 2
    (warning,) = data.warnings
    assert "2 images left out, as the masks cannot be used" in warning
    assert "b.png is 24 × 10, its image 24 × 20" in warning and "c.png is not a mask of objects" in warning
    with pytest.raises(DataError, match="b.png is 24 × 10"):
        read_instances(tmp_path, strict=True)
    (tmp_path / "classes.txt").write_text("background\ncat\n")
    with pytest.raises(DataError, match="classes.txt names 2 classes: masks of objects have one"):
        read_instances(tmp_path)
    (tmp_path / "classes.txt").unlink()
    for name in "abc":
        save(tmp_path / "masks" / f"{name}.png", np.zeros((20, 24), np.uint8))
    with pytest.raises(DataError, match="masks without any object: all values are 0"):
        read_instances(tmp_path)
