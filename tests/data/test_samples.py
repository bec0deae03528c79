"""Data sets of labelled objects: their samples, splits and the check before training, against others' readers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.data.annotated_images import largest_only, read_annotated_images
from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation, write_annotations
from hubel.data.annotations.registry import FORMAT_NAMES
from hubel.data.checks.training_checks import check_object_set
from hubel.data.samples import ImageDataset, Sample
from hubel.data.splits import (
    SplitFractions,
    evaluation_samples,
    read_splits,
    recorded_splits,
    stratified_split,
    training_splits,
    write_splits,
)
from hubel.errors import DataError
from labelled_sets import small_set, write_image


def written(root: Path, *images: AnnotatedImage, classes: tuple[str, ...] = ("bus", "car")) -> Path:
    """The images and their labels as a COCO file beside them."""
    dataset = AnnotatedDataset(root / "made", classes, {"all": images})
    write_annotations(dataset, "coco", root / "out")
    return root / "out"


def boxed(path: Path, *boxes: tuple[float, float, float, float], label: int = 0) -> AnnotatedImage:
    """An image of 64 × 48 with boxes."""
    return AnnotatedImage(write_image(path), 64, 48, tuple(Annotation(label, box) for box in boxes))


@pytest.mark.parametrize(("name", "split"), [("bccd", "train"), ("bccd", "val"), ("raccoon", "train")])
def test_pascal_voc_as_supervision_reads_it(data_folder: Path, name: str, split: str) -> None:
    supervision = pytest.importorskip("supervision")
    folder = data_folder / name
    found = read_annotated_images(folder)
    theirs = supervision.DetectionDataset.from_pascal_voc(
        str(folder / split / "images"), str(folder / split / "annotations")
    )
    assert len(found.splits[split]) == len(theirs)
    assert found.classes == tuple(sorted(theirs.classes))
    for sample in found.splits[split]:
        expected = theirs.annotations[str(sample.path)]
        assert [found.classes[label] for label in sample.labels] == [theirs.classes[i] for i in expected.class_id]
        # It does not cut at the edge, nor take one from coordinates that count from 1.
        np.testing.assert_allclose(sample.boxes, expected.xyxy, atol=1)


def test_coco_as_pycocotools_reads_it_and_yolo_alike(data_folder: Path, tmp_path: Path) -> None:
    pycocotools = pytest.importorskip("pycocotools.coco")
    theirs = pycocotools.COCO(str(data_folder / "coco128" / "boxes128.json"))
    coco = read_annotated_images(data_folder / "coco128" / "boxes128.json")
    assert len(coco.splits["all"]) == 128
    ids = {row["file_name"]: key for key, row in theirs.imgs.items()}
    for sample in coco.splits["all"]:
        rows = theirs.loadAnns(theirs.getAnnIds(ids[sample.path.name]))
        assert [coco.classes[label] for label in sample.labels] == [
            theirs.cats[row["category_id"]]["name"] for row in rows
        ]
        expected = np.array([row["bbox"] for row in rows]).reshape(-1, 4)
        expected[:, 2:] += expected[:, :2]
        np.testing.assert_allclose(sample.boxes, expected, atol=1e-3)
        np.testing.assert_allclose(sample.areas, [row["area"] for row in rows], rtol=1e-4, atol=0.05)
        assert sample.crowd.tolist() == [bool(row["iscrowd"]) for row in rows]

    for name, folder in (("images", "images"), ("labels", "labels_yolo")):
        (tmp_path / name).mkdir()
        for file in (data_folder / "coco128" / folder).iterdir():
            (tmp_path / name / file.name).symlink_to(file)
    yolo = read_annotated_images(tmp_path)
    assert len(yolo.splits["all"]) == 126
    assert any("2 images have no labels: left out" in line for line in yolo.warnings)
    by_name = {sample.path.name: sample for sample in coco.splits["all"]}
    for sample in yolo.splits["all"]:
        np.testing.assert_allclose(sample.boxes, by_name[sample.path.name].boxes, atol=0.02)


@pytest.mark.parametrize("format", FORMAT_NAMES)
def test_every_format_trains(tmp_path: Path, format: str) -> None:
    write_annotations(small_set(tmp_path / "made"), format, tmp_path / "out")
    found = read_annotated_images(tmp_path / "out")
    assert found.classes == ("bus", "car", "ox")
    boxes = {split: {s.path.name: s.boxes for s in samples} for split, samples in found.splits.items()}
    assert {split: list(rows) for split, rows in boxes.items()} == {
        "train": ["a.jpg", "b.png"],  # nobody labelled c.jpg
        "val": ["d e.jpg", "turned.jpg"],
    }
    assert len(boxes["train"]["b.png"]) == 0
    # Formats of whole pixels, and those that count from 1, round.
    expected = [[0, 0, 64, 48], [3, 4, 10, 20], [1.25, 2.5, 33.75, 40.5], [5, 5, 9, 9], [7, 8, 17, 28]]
    np.testing.assert_allclose(boxes["train"]["a.jpg"], expected, atol=0.51)
    np.testing.assert_allclose(boxes["val"]["turned.jpg"], [[2, 4, 22, 14]], atol=0.01)  # of the upright image


def test_every_flag_and_every_kind_of_object(tmp_path: Path) -> None:
    write_annotations(small_set(tmp_path / "made"), "coco", tmp_path / "out")
    found = read_annotated_images(tmp_path / "out")
    boxes, empty = found.splits["train"]
    assert boxes.path.name == "a.jpg"
    assert boxes.labels.tolist() == [1, 0, 2, 2, 0]
    assert boxes.crowd.tolist() == [False, False, False, True, False]  # ignored: neither right nor wrong
    assert (len(empty.labels), empty.stratum) == (0, -1)  # labelled as empty: background
    assert any("1 image has no labels" in line for line in found.warnings)  # c.jpg
    shapes = next(sample for sample in found.splits["val"] if sample.path.name == "d e.jpg")
    disc = sum((x + 0.5 - 20) ** 2 + (y + 0.5 - 20) ** 2 <= 64 for x in range(64) for y in range(48))
    triangle = abs((30.5 - 10) * (40 - 5) - (20 - 10) * (8.25 - 5)) / 2
    np.testing.assert_allclose(shapes.areas, [triangle, triangle + 400, 300, disc, disc], rtol=1e-6)


def test_unusable_boxes_are_dropped_and_reported(tmp_path: Path) -> None:
    boxes = (
        (10.0, 10.0, 20.0, 20.0),
        (-6.0, 30.0, 80.0, 50.0),
        (5.0, 5.0, 5.0, 9.0),
        (70.0, 1.0, 90.0, 9.0),
        (9.0, 9.0, 2.0, 2.0),
    )
    found = read_annotated_images(written(tmp_path, boxed(tmp_path / "made" / "a.png", *boxes)))
    (sample,) = found.splits["all"]
    assert sample.boxes.tolist() == [[10, 10, 20, 20], [0, 30, 64, 48]]
    assert sample.areas.tolist() == [100, 64 * 18]
    (warning,) = [line for line in found.warnings if "without area" in line]
    assert "3 boxes" in warning
    assert "object 3 of a.png, object 4 of a.png, object 5 of a.png" in warning


def test_faults_of_label_files_are_reported_or_raised(tmp_path: Path) -> None:
    folder = written(tmp_path, boxed(tmp_path / "made" / "a.png", (1, 1, 9, 9)))
    file = next(folder.rglob("*.json"))
    content = json.loads(file.read_text())
    content["annotations"].append({**content["annotations"][0], "id": 7, "category_id": 99})
    file.write_text(json.dumps(content))
    assert any("99" in line and line.endswith(": left out") for line in read_annotated_images(folder).warnings)
    with pytest.raises(DataError, match="99"):
        read_annotated_images(folder, strict=True)


def test_nothing_labelled(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no labelled objects in any image"):
        read_annotated_images(written(tmp_path, boxed(tmp_path / "made" / "a.png")))


def test_a_train_folder_alone_holds_back_and_the_record_brings_it_again(data_folder: Path, tmp_path: Path) -> None:
    raccoons = read_annotated_images(data_folder / "raccoon")
    splits = training_splits(raccoons, SplitFractions(), seed=0)
    assert (len(splits.train), len(splits.val), len(splits.test)) == (127, 22, 0)  # 15 % of 149
    write_splits(tmp_path / "splits.json", splits, raccoons.root)
    recorded = read_splits(tmp_path / "splits.json")
    again = recorded_splits(read_annotated_images(data_folder / "raccoon"), recorded)
    assert [sample.path for sample in again.val] == [sample.path for sample in splits.val]
    name, samples = evaluation_samples(raccoons, recorded)
    assert (name, [s.path for s in samples]) == ("val", [s.path for s in splits.val])
    cells = training_splits(read_annotated_images(data_folder / "bccd"), SplitFractions(), seed=0)
    assert (len(cells.train), len(cells.val)) == (205, 87)  # folders as they are


def test_images_are_dealt_out_by_their_rarest_class(tmp_path: Path) -> None:
    images = [boxed(tmp_path / "made" / f"{n:02}.png", (1, 1, 9, 9)) for n in range(60)]
    for n in range(0, 60, 3):  # of twenty images, each with cars too, half show a bus
        label = n // 3 % 2
        images[n] = replace(images[n], objects=(*images[n].objects, Annotation(1 + label, (2, 2, 20, 20))))
    images += [boxed(tmp_path / "made" / f"empty{n}.png") for n in range(20)]
    found = read_annotated_images(written(tmp_path, *images, classes=("car", "ox", "bus")))
    parts = stratified_split(found.splits["all"], (0.5, 0.3, 0.2), seed=1)
    of_class = [[sum(label in sample.class_ids for sample in part) for part in parts] for label in range(3)]
    assert of_class == [[30, 18, 12], [5, 3, 2], [5, 3, 2]]
    assert [sum(len(sample.labels) == 0 for sample in part) for part in parts] == [10, 6, 4]


def test_the_largest_box_for_localization(data_folder: Path) -> None:
    cells = read_annotated_images(data_folder / "bccd")
    single = largest_only(cells)
    several = 0
    every = [sample for split in cells.splits.values() for sample in split]
    chosen = [sample for split in single.splits.values() for sample in split]
    for before, after in zip(every, chosen, strict=True):
        sizes = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in before.boxes.tolist()]
        several += len(sizes) > 1
        assert len(after.labels) == min(1, len(sizes))
        if sizes:
            assert after.boxes.tolist() == [before.boxes[sizes.index(max(sizes))].tolist()]
    (warning,) = single.warnings
    assert f"{several} images have several boxes: the largest" in warning


def test_crowds_are_not_localized(tmp_path: Path) -> None:
    image = boxed(tmp_path / "made" / "a.png", (1, 1, 9, 9), (0, 0, 60, 40))
    crowd = replace(image, objects=(image.objects[0], replace(image.objects[1], crowd=True)))
    (sample,) = largest_only(read_annotated_images(written(tmp_path, crowd))).splits["all"]
    assert sample.boxes.tolist() == [[1, 1, 9, 9]]


def test_labels_count_in_the_models_classes(tmp_path: Path) -> None:
    images = [boxed(tmp_path / "made" / f"{label}.png", (1, 1, 9, 9), label=label) for label in (0, 1)]
    found = read_annotated_images(written(tmp_path, *images))
    other = found.remap_classes(["dog", "car", "bus"])
    assert [sample.labels.tolist() for sample in other.splits["all"]] == [[2], [1]]
    with pytest.raises(DataError, match="does not know: bus"):
        found.remap_classes(["car"])


def checked(found: ImageDataset) -> list[str]:
    findings = check_object_set(found.splits, found.classes)
    findings.raise_if_unusable()
    return findings.warnings()


def test_the_check_before_training(tmp_path: Path) -> None:
    made = tmp_path / "made"
    images = [boxed(made / f"{n}.png", (8, 8, 16, 16), label=n % 2) for n in range(4)]
    for image in images:  # no two alike
        Image.fromarray(np.random.default_rng(int(image.path.stem)).integers(0, 255, (48, 64, 3), np.uint8)).save(
            image.path
        )
    dataset = AnnotatedDataset(made, ("bus", "car", "ox"), {"train": tuple(images[:3]), "val": tuple(images[3:])})
    write_annotations(dataset, "voc", tmp_path / "out")
    found = read_annotated_images(tmp_path / "out")
    assert checked(replace(found, classes=("bus", "car"))) == ["no val image contains an object of bus"]

    first, second, third = (sample.path for sample in found.splits["train"])
    first.write_bytes(first.read_bytes()[:500])
    Image.new("RGB", (128, 48)).save(second)  # twice as wide as when it was labelled
    third.write_bytes(found.splits["val"][0].path.read_bytes())
    findings = check_object_set(found.splits, found.classes)
    lines = findings.warnings()
    assert f"{first} is truncated" in lines[0]
    assert lines[0].endswith(": left out")
    assert f"1 image has another size than the label file states, the first is {second}" in lines[1]
    assert f"{third} = {found.splits['val'][0].path}" in lines[2]
    usable = findings.usable(found.splits["train"])
    assert [sample.path for sample in usable] == [second, third]
    assert usable[0].boxes.tolist() == [[16, 8, 32, 16]]
    assert usable[0].areas.tolist() == [128]
    with pytest.raises(DataError, match="truncated"):
        findings.raise_if_unusable(strict=True)


def test_nothing_to_learn_from(tmp_path: Path) -> None:
    found = read_annotated_images(written(tmp_path, boxed(tmp_path / "made" / "a.png", (1, 1, 9, 9))))
    empty: tuple[Sample, ...] = tuple(sample.select(np.zeros(1, bool)) for sample in found.splits["all"])
    with pytest.raises(DataError, match="no readable image contains an object to validate on"):
        check_object_set({"train": found.splits["all"], "val": empty}, found.classes).raise_if_unusable()
