"""Images with masks: trees of folders, names, kinds of mask files, and what is left out."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.data.checks.run import read_any
from hubel.data.checks.training_checks import check_masks
from hubel.data.mask_file import MaskFile, read_class_map
from hubel.data.mask_folder import is_mask_folder, read_mask_folder
from hubel.data.samples import ImageDataset
from hubel.errors import DataError, ImageError
from hubel.tasks.registry import guess_task
from labelled_sets import write_image

INDICES = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3


def mask(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(INDICES).save(file)
    return file


def data_set(root: Path, *pairs: tuple[str, str]) -> Path:
    for image, label in pairs:
        write_image(root / image, 4, 3)
        if label:
            mask(root / label)
    (root / "classes.txt").write_text("sky\nroad\ncar\n", encoding="utf-8")
    return root


def pairs(data: ImageDataset) -> dict[str, list[tuple[str, str]]]:
    return {
        split: [
            (str(sample.path.relative_to(data.root)), str(sample.class_map.path.relative_to(data.root)))
            for sample in samples
            if isinstance(sample.class_map, MaskFile)
        ]
        for split, samples in data.splits.items()
    }


@pytest.mark.parametrize(
    ("image", "label", "split"),
    [
        ("images/a.jpg", "masks/a.png", "all"),
        ("train/images/a.jpg", "train/masks/a.png", "train"),
        ("images/train/a.jpg", "masks/train/a.png", "train"),
        ("images/Training/a.jpg", "masks/train/a.png", "train"),
        ("images/val2017/city/a.jpg", "masks/val2017/city/a.png", "val"),
        ("train/images/city/day/a.jpg", "train/masks/city/day/a.png", "train"),
        ("streets/imgs/test/a.jpg", "streets/mask/test/a.png", "test"),
        ("train_images/a.jpg", "train_masks/a.png", "train"),
        ("train/a.jpg", "train_masks/a_mask.gif", "train"),
        ("a.jpg", "masks/a.png", "all"),
        ("Images/a.JPG", "Masks/a.PNG", "all"),
        ("images/a.jpg", "masks/a_mask.png", "all"),
        ("images/a.jpg", "masks/a-Label.tif", "all"),
        ("images/a.jpg", "masks/a.jpg.png", "all"),
        ("images/a.jpg", "masks/a.jpg_mask.bmp", "all"),
    ],
)
def test_masks_at_the_same_place_of_their_tree(tmp_path: Path, image: str, label: str, split: str) -> None:
    root = data_set(tmp_path, (image, label))
    assert is_mask_folder(root)
    assert guess_task(root) == "segment"
    data = read_mask_folder(root)
    assert pairs(data) == {split: [(image, label)]}
    assert not data.warnings


def test_splits_are_told_by_what_lies_beside_each_other(tmp_path: Path) -> None:
    names = ("cells_train", "cells_test")
    root = data_set(tmp_path, *((f"{name}/images/A.jpg", f"{name}/masks/a_mask.png") for name in names))
    assert pairs(read_mask_folder(root)) == {
        split: [(f"cells_{split}/images/A.jpg", f"cells_{split}/masks/a_mask.png")] for split in ("train", "test")
    }


def test_trees_of_other_names_need_the_task_to_be_told(tmp_path: Path) -> None:
    root = data_set(tmp_path, ("images/train/a.jpg", "labels/train/a.png"))
    assert not is_mask_folder(root)
    assert pairs(read_mask_folder(root)) == {"train": [("images/train/a.jpg", "labels/train/a.png")]}


def test_class_folders_called_mask_are_classes(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("mask", "no mask"):
            write_image(tmp_path / split / name / f"{split} {name}.png", 4, 3)
    assert not is_mask_folder(tmp_path)
    assert guess_task(tmp_path) == "classify"


def test_the_same_name_in_two_folders_is_two_images(tmp_path: Path) -> None:
    found = [(f"images/{place}/1.jpg", f"masks/{place}/1.png") for place in ("x", "y")]
    assert pairs(read_mask_folder(data_set(tmp_path, *found))) == {"all": found}


def test_what_is_ambiguous_or_missing_is_left_out_and_counted(tmp_path: Path) -> None:
    root = data_set(
        tmp_path,
        ("images/good.jpg", "masks/good.png"),
        ("images/both.jpg", "masks/both.png"),
        ("images/two.jpg", "masks/two_mask.png"),
        ("images/one.jpg", "masks/one.png"),
        ("images/one.png", ""),
        ("images/none.jpg", ""),
    )
    mask(root / "masks" / "both_mask.png")  # the name without a suffix is certain
    mask(root / "masks" / "two_label.png")
    data = read_mask_folder(root)
    assert pairs(data)["all"] == [("images/both.jpg", "masks/both.png"), ("images/good.jpg", "masks/good.png")]
    assert sorted(warning.partition(": ")[2] for warning in data.warnings) == [
        "1 image has no mask: left out: none.jpg",
        "1 image has several masks: left out: two.jpg (two_label.png, two_mask.png)",
        "2 images share the mask of another image: left out: one.jpg, one.png",
    ]


def test_composed_and_decomposed_names_and_hidden_files(tmp_path: Path) -> None:
    name = "stra\u00dfe_\u00e9"
    root = data_set(tmp_path, (f"images/{name}.jpg", f"masks/{unicodedata.normalize('NFD', name)}_mask.png"))
    for hidden in ("images/._a.jpg", "masks/._a.png", "__MACOSX/masks/._b.png"):
        (root / hidden).parent.mkdir(parents=True, exist_ok=True)
        (root / hidden).write_bytes(b"\x00\x05\x16\x07")
    data = read_mask_folder(root)
    assert len(data.splits["all"]) == 1 and not data.warnings


def test_images_beside_the_splits_are_counted(tmp_path: Path) -> None:
    root = data_set(tmp_path, ("images/train/a.jpg", "masks/train/a.png"), ("images/b.jpg", "masks/b.png"))
    data = read_mask_folder(root)
    assert list(data.splits) == ["train"]
    assert "1 image is beside the splits: left out" in data.warnings[0]


def test_masks_that_are_jpegs_are_refused(tmp_path: Path) -> None:
    root = data_set(tmp_path, ("images/a.jpg", ""))
    mask(root / "masks" / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg is a JPEG.*changes values"):
        read_mask_folder(root)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_class_names_in_other_encodings(tmp_path: Path, encoding: str) -> None:
    root = data_set(tmp_path, ("images/a.jpg", "masks/a.png"))
    (root / "classes.txt").write_text("0 Stra\u00dfe\n1 B\u00e4ume\n2 void (ignore)\n", encoding=encoding)
    assert read_mask_folder(root).classes == ("Stra\u00dfe", "B\u00e4ume")


def test_indices_of_every_lossless_kind(tmp_path: Path) -> None:
    palette = Image.fromarray(INDICES)
    palette.putpalette(bytes(range(9, 9 + 9)))
    coloured = Image.fromarray(np.repeat(INDICES[..., None], 3, 2))
    opaque = Image.fromarray(np.dstack([*[INDICES] * 3, np.full_like(INDICES, 255)]))
    grey_alpha = Image.fromarray(np.dstack([INDICES, np.full_like(INDICES, 255)]))
    kinds = {
        **{name: Image.fromarray(INDICES) for name in ("grey.png", "grey.bmp", "grey.tif")},
        "palette.png": palette, "palette.gif": palette, "rgb.png": coloured, "rgba.png": opaque, "la.png": grey_alpha,
        "sixteen.png": Image.fromarray(INDICES.astype(np.uint16)),
        "sixteen.tif": Image.fromarray(INDICES.astype(np.uint16)),
    }  # fmt: skip
    for name, image in kinds.items():
        image.save(tmp_path / name)
        assert np.array_equal(read_class_map(tmp_path / name), INDICES), name
    palette.save(tmp_path / "few bits.png", bits=2)
    assert np.array_equal(read_class_map(tmp_path / "few bits.png"), INDICES)
    Image.fromarray(INDICES > 0).save(tmp_path / "one bit.png")
    assert np.array_equal(read_class_map(tmp_path / "one bit.png"), INDICES > 0)
    void = np.where(INDICES == 2, 65535, INDICES).astype(np.uint16)
    Image.fromarray(void).save(tmp_path / "void.png")
    assert np.array_equal(read_class_map(tmp_path / "void.png"), np.where(INDICES == 2, 255, INDICES))


@pytest.mark.parametrize(("bits", "row"), [(2, b"\x00\x1b"), (4, b"\x00\x01\x23")])
def test_grey_values_of_few_bits_are_not_spread(tmp_path: Path, bits: int, row: bytes) -> None:
    """PNGs of four pixels, 0 1 2 3, in 2 or 4 bits each, as other programs pack them."""
    import struct
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 4, 1, bits, 0, 0, 0, 0)
    file = tmp_path / "a.png"
    file.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    )
    assert read_class_map(file).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.dstack([INDICES * 80, INDICES, INDICES]), "its mode is RGB, with colours"),
        (np.dstack([*[INDICES] * 3, INDICES * 100]), "transparent in places"),
        ((INDICES * 300.0).astype(np.uint16), "it has the value 600"),
    ],
)
def test_what_is_no_index_is_named(tmp_path: Path, pixels: np.ndarray, message: str) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=message):
        read_class_map(tmp_path / "a.png")


def test_masks_of_0_and_255_are_refused_and_other_values_noted(tmp_path: Path) -> None:
    root = data_set(tmp_path, ("train/images/a.jpg", "train/masks/a.png"))
    Image.fromarray(np.where(INDICES > 0, 255, 0).astype(np.uint8)).save(root / "train/masks/a.png")
    data = read_mask_folder(root)
    findings = check_masks(data.splits, data.classes)
    with pytest.raises(DataError, match="all labelled pixels of the train masks are of one class, sky"):
        findings.raise_if_unusable()
    Image.fromarray(INDICES * 38).save(root / "train/masks/a.png")
    notes = check_masks(data.splits, data.classes).notes
    assert (
        "masks have pixels of 38 (in 1 mask), 76 (in 1 mask), which are not classes: these pixels do not count" in notes
    )


def test_checks_of_data_say_that_they_read_no_masks(tmp_path: Path) -> None:
    root = data_set(tmp_path, ("train/images/a.jpg", "train/masks/a.png"))
    with pytest.raises(DataError, match="has images with masks") as caught:
        read_any(root)
    assert "--task segment" in caught.value.hint


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("classes.txt", "0 sky 10 20 30\n1 road 200 0 0\n2 void 0 0 0(ignore)\n"),
        ("classes.txt", "void (ignore), 0, 0, 0\nsky, 10, 20, 30\nroad, 200, 0, 0\n"),
        ("label_colors.txt", "0 0 0\t\tvoid (ignore)\n10 20 30\tsky\n200 0 0\troad\n"),
    ],
)
def test_masks_of_colours(tmp_path: Path, file: str, lines: str) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (3, 1)).save(tmp_path / "images" / "a.png")
    mask = Image.new("RGB", (3, 1))
    mask.putdata([(200, 0, 0), (10, 20, 30), (0, 0, 0)])
    mask.save(tmp_path / "masks" / "a.png")
    (tmp_path / file).write_text(lines.replace("0 0 0(ignore)", "(ignore) 0 0 0"))
    data = read_mask_folder(tmp_path)
    assert data.classes == ("sky", "road")
    (sample,) = data.splits["all"]
    assert isinstance(sample.class_map, MaskFile)
    assert sample.class_map.read().tolist() == [[1, 0, 255]]
    mask.putpixel((1, 0), (10, 20, 31))
    mask.save(sample.class_map.path)
    with pytest.raises(ImageError, match="colour 10 20 31, which no class has, in 1 pixels"):
        sample.class_map.read()
