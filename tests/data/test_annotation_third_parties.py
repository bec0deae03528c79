"""What the writers write, read by pycocotools, supervision and torchvision."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import supervision
from pycocotools.coco import COCO
from torchvision.datasets import VOCDetection

from hubel.data.annotations import AnnotatedDataset, read_annotations, write_annotations
from hubel.masks import decode, rasterize
from labelled_sets import HEIGHT, HOLE, SQUARE, TRIANGLE, WIDTH, disc, small_set


@pytest.fixture
def dataset(tmp_path: Path) -> AnnotatedDataset:
    return small_set(tmp_path / "source")


def test_pycocotools_reads_our_coco(dataset: AnnotatedDataset, tmp_path: Path) -> None:
    write_annotations(dataset, "coco", tmp_path / "coco")
    coco = COCO(tmp_path / "coco" / "annotations" / "instances_val.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["bus", "car", "ox"]
    image = next(image for image in coco.imgs.values() if image["file_name"] == "d e.jpg")
    triangle, both, holed, mask, crowd = coco.loadAnns(coco.getAnnIds(imgIds=image["id"]))
    assert np.array_equal(coco.annToMask(both), rasterize((TRIANGLE, SQUARE), (), HEIGHT, WIDTH))
    assert np.array_equal(coco.annToMask(holed), rasterize((SQUARE,), (HOLE,), HEIGHT, WIDTH))
    assert coco.annToMask(holed).sum() == 20 * 20 - 10 * 10
    assert np.array_equal(coco.annToMask(mask), decode(disc()))
    assert [a["iscrowd"] for a in (triangle, both, holed, mask, crowd)] == [0, 0, 0, 0, 1]
    assert triangle["bbox"] == [10, 5, 20.5, 35]
    assert mask["area"] == decode(disc()).sum()


def test_torchvision_reads_our_voc(dataset: AnnotatedDataset, tmp_path: Path) -> None:
    write_annotations(dataset, "voc", tmp_path / "voc")
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit" / "VOC2012").symlink_to(tmp_path / "voc")
    samples = VOCDetection(tmp_path, year="2012", image_set="val")
    assert len(samples) == 2
    _, target = samples[0]
    assert target["annotation"]["filename"] == "d e.jpg"
    first = target["annotation"]["object"][0]
    assert (first["name"], first["bndbox"]) == ("bus", {"xmin": "11", "ymin": "6", "xmax": "30.5", "ymax": "40"})


def _boxes_of(read: object) -> dict[str, tuple[list[str], np.ndarray]]:
    """Names and boxes by image, of a ``supervision.DetectionDataset``."""
    return {
        Path(path).name: ([read.classes[label] for label in found.class_id], found.xyxy)  # type: ignore[attr-defined]
        for path, _, found in read  # type: ignore[attr-defined]
    }


def _ours(dataset: AnnotatedDataset, split: str) -> dict[str, tuple[list[str], np.ndarray]]:
    return {
        image.path.name: (
            [dataset.classes[o.label] for o in image.objects or ()],
            np.array([o.box for o in image.objects or ()]),
        )
        for image in dataset.splits[split]
    }


def _boxes_only(dataset: AnnotatedDataset) -> AnnotatedDataset:
    """The training images that are labelled: supervision reads boxes alone or polygons alone."""
    images = tuple(image for image in dataset.splits["train"] if image.objects is not None)
    return AnnotatedDataset(dataset.root, dataset.classes, {"train": images})


@pytest.mark.parametrize("name", ["voc", "yolo", "coco"])
def test_supervision_reads_what_we_wrote(name: str, dataset: AnnotatedDataset, tmp_path: Path) -> None:
    boxes = _boxes_only(dataset)
    out = tmp_path / name
    write_annotations(boxes, name, out)
    detections = supervision.DetectionDataset
    if name == "voc":
        read = detections.from_pascal_voc(str(out / "JPEGImages"), str(out / "Annotations"))
    elif name == "yolo":
        # The data set has a box with a score, for which supervision has no room.
        for file in out.glob("labels/train/*.txt"):
            lines = [" ".join(line.split()[:5]) for line in file.read_text().splitlines()]
            file.write_text("\n".join(lines))
        read = detections.from_yolo(str(out / "images/train"), str(out / "labels/train"), str(out / "data.yaml"))
    else:
        read = detections.from_coco(str(out / "train"), str(out / "annotations/instances_train.json"))
    theirs, ours = _boxes_of(read), _ours(boxes, "train")
    assert theirs.keys() == ours.keys()
    for file_name, (names, expected) in ours.items():
        assert theirs[file_name][0] == names
        if names:
            assert np.allclose(theirs[file_name][1], expected, atol=1e-3)


@pytest.mark.data
def test_real_voc_is_read_as_supervision_reads_it(data_folder: Path) -> None:
    folder = data_folder / "raccoon" / "train"
    theirs = _boxes_of(
        supervision.DetectionDataset.from_pascal_voc(str(folder / "images"), str(folder / "annotations"))
    )
    ours = _ours(read_annotations(data_folder / "raccoon"), "train")
    assert theirs.keys() == ours.keys()
    for file_name, (names, expected) in ours.items():
        assert theirs[file_name][0] == names
        assert np.allclose(theirs[file_name][1], expected)


@pytest.mark.data
def test_yolo_and_coco_of_coco128_agree(data_folder: Path, tmp_path: Path) -> None:
    """The same labels as their publishers give them in both formats; images in the layout of `data.yaml`."""
    source = data_folder / "coco128"
    for name, target in (("images", "images"), ("labels", "labels_yolo")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "train2017").symlink_to(source / target)
    (tmp_path / "data.yaml").write_text((source / "yolo_classes.yaml").read_text())
    yolo = read_annotations(tmp_path)
    coco = read_annotations(source / "boxes128.json")
    assert set(yolo.splits) == {"train"}
    assert "images/val2017, which does not exist" in yolo.warnings[0]
    theirs, ours = _ours(coco, "all"), _ours(yolo, "train")
    assert theirs.keys() == ours.keys()
    for file_name, (names, expected) in theirs.items():
        assert sorted(ours[file_name][0]) == sorted(names)
        if names:
            assert np.allclose(np.sort(ours[file_name][1], axis=0), np.sort(expected, axis=0), atol=0.02)


@pytest.mark.data
def test_polygons_of_coco128_are_drawn_as_pycocotools_draws_them(data_folder: Path) -> None:
    file = data_folder / "coco128" / "instances_panoptic100.json"
    coco = COCO(file)
    ours = {image.id: image for image in read_annotations(file).images() if image.objects}
    for number in sorted(ours)[:20]:
        for annotation, obj in zip(coco.imgToAnns[number], ours[number].objects or (), strict=True):
            pixels = (
                decode(obj.mask) if obj.mask else rasterize(obj.polygons, (), ours[number].height, ours[number].width)
            )
            assert np.array_equal(pixels, coco.annToMask(annotation))


@pytest.mark.data
def test_coco_keeps_ids_areas_and_crowds(data_folder: Path, tmp_path: Path) -> None:
    file = data_folder / "coco128" / "instances_panoptic100.json"
    write_annotations(read_annotations(file), "coco", tmp_path / "out", "none")
    before = json.loads(file.read_text())
    after = json.loads((tmp_path / "out" / "annotations" / "instances_all.json").read_text())

    def rows(content: dict) -> list:
        keys = ("image_id", "category_id", "iscrowd")
        return sorted(
            [*(a[key] for key in keys), *np.round(a["bbox"], 2).tolist(), round(a["area"])]
            for a in content["annotations"]
        )

    for old, new in zip(rows(before), rows(after), strict=True):
        assert old[:7] == new[:7]
        assert abs(old[7] - new[7]) <= 1 + 2e-3 * old[7]
    assert sorted(i["id"] for i in before["images"]) == sorted(i["id"] for i in after["images"])
