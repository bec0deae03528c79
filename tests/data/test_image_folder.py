"""Class folders as people have them, good and bad, and the check before training."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.data.annotations.writer import write_class_folders
from hubel.data.checks import images
from hubel.data.checks.training_checks import Findings, check_class_folders, skew
from hubel.data.image_folder import read_class_folders
from hubel.data.splits import read_splits, training_splits, write_splits
from hubel.errors import DataError
from hubel.inference.outputs import AnnotatedFiles


def make(root: Path, *names: str) -> Path:
    """Files that are different images if their suffix says so, else text."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            colours = np.random.default_rng(list(os.fsencode(path))).integers(0, 256, (4, 4, 3), np.uint8)
            Image.fromarray(colours).save(path)
        else:
            path.write_text(name)
    return root


def listed(root: Path, split: str = "all") -> list[tuple[str, str]]:
    folders = read_class_folders(root)
    return [(s.path.relative_to(root).as_posix(), folders.classes[s.label]) for s in folders.splits[split]]


def fault_of(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_class_folders(root)
    assert "flowers/daisy/1.jpg" in caught.value.hint or "one folder" in caught.value.hint
    return caught.value.message


# --- layouts ---


def test_unsplit(tmp_path: Path) -> None:
    make(tmp_path, "b/10.png", "b/9.png", "a/deep/er/1.png", "Z/2.png", "b/.hidden.png", ".git/3.png", "LICENSE.txt")
    folders = read_class_folders(tmp_path)
    assert folders.classes == ("Z", "a", "b")  # by code point, as ``sorted``
    assert listed(tmp_path) == [("Z/2.png", "Z"), ("a/deep/er/1.png", "a"), ("b/9.png", "b"), ("b/10.png", "b")]
    assert folders.warnings == ()  # a licence beside the class folders is nobody's business


def test_split_folders_under_their_usual_names(tmp_path: Path) -> None:
    make(tmp_path, "Train/b/1.png", "Train/a/2.png", "validation/a/3.png", "TEST/c/4.png")
    folders = read_class_folders(tmp_path)
    assert folders.classes == ("a", "b", "c")  # the union
    assert list(folders.splits) == ["train", "val", "test"]
    assert [[sample.label for sample in samples] for samples in folders.splits.values()] == [[0, 1], [0], [2]]
    assert list(read_class_folders(make(tmp_path / "x", "valid/a/1.png")).splits) == ["val"]
    assert list(read_class_folders(make(tmp_path / "y", "test/a/1.png", "test/b/1.png")).splits) == ["test"]


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make(tmp_path, "train/1.png", "bus/2.png", "tram/3.png")
    assert read_class_folders(tmp_path).classes == ("bus", "train", "tram")


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("Training", "Testing"), ("train", "test")),
        (("Training", "Validation", "Testing"), ("train", "val", "test")),
        (("training_set", "test_set"), ("train", "test")),
        (("TrainingSet", "TestSet"), ("train", "test")),
        (("seg_train/seg_train", "seg_test/seg_test"), ("train", "test")),
        (("train/train", "val/val"), ("train", "val")),
        (("train_images", "val_images"), ("train", "val")),
        (("images train", "images dev"), ("train", "val")),
        (("train2017", "val2017"), ("train", "val")),
        (("TRAIN", "DEV"), ("train", "val")),
        (("birds-train", "birds-eval", "birds-tst"), ("train", "val", "test")),
        (("set/train", "set/valid"), ("train", "val")),
        (("a/b/c/train", "a/b/c/Testing"), ("train", "test")),
        (("training",), ("train",)),
        (("trainset", "testset"), ("train", "test")),
        (("traindata", "validationdata"), ("train", "val")),
        (("trainval", "test"), ("train", "test")),
        (("Train_Val", "Test"), ("train", "test")),
        (("trainval/train", "trainval/val"), ("train", "val")),
    ],
)
def test_splits_as_published_data_sets_name_them(tmp_path: Path, names: tuple, splits: tuple) -> None:
    make(tmp_path, *(f"{name}/{animal}/{n}.png" for name in names for animal in ("cat", "dog") for n in (1, 2)))
    make(tmp_path, "README.txt", f"{names[0]}/notes.txt")
    folders = read_class_folders(tmp_path)
    assert folders.classes == ("cat", "dog")
    assert tuple(folders.splits) == splits
    assert {len(samples) for samples in folders.splits.values()} == {4}


@pytest.mark.parametrize(
    "names",
    [
        ("train_station", "test_tube"),
        ("training", "running"),
        ("dev", "ops"),
        ("test_a", "test_b"),
        ("val", "bus"),
        ("trainset", "bus"),
    ],
)
def test_classes_that_are_named_like_splits(tmp_path: Path, names: tuple) -> None:
    make(tmp_path, *(f"{name}/{n}.png" for name in names for n in (1, 2)))
    assert read_class_folders(tmp_path).classes == tuple(sorted(names))


def test_a_copy_that_hubel_wrote_into_the_data_set_is_no_class(tmp_path: Path) -> None:
    make(tmp_path / "set", "cat/1.png", "dog/1.png")
    data = read_class_folders(tmp_path / "set")
    samples = [(sample.path, data.classes[sample.label]) for sample in data.splits["all"]]
    write_class_folders({"train": samples}, tmp_path / "set" / "again")
    write_class_folders({"train": samples}, tmp_path / "set" / "copies" / "one")
    assert read_class_folders(tmp_path / "set") == data
    assert read_class_folders(tmp_path / "set" / "copies" / "one").classes == ("cat", "dog")
    assert read_class_folders(tmp_path / "set" / "copies").classes == ("cat", "dog")


def test_folders_beside_splits_by_other_names_are_reported(tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}/{name}/{c}/1.png" for name in ("seg_train", "seg_test") for c in ("sea", "street")))
    make(tmp_path, "seg_pred/seg_pred/1.png")
    folders = read_class_folders(tmp_path)
    assert (folders.classes, list(folders.splits)) == (("sea", "street"), ["train", "test"])
    assert folders.warnings == (f"{tmp_path}: ignored folders beside train, test: seg_pred",)


def test_classes_with_the_same_folders_in_them_are_doubted(tmp_path: Path) -> None:
    """Splits under names that nobody can know, or classes with the same parts: only a person can tell."""
    make(tmp_path, *(f"{fold}/{animal}/1.png" for fold in ("fold1", "fold2") for animal in ("cat", "dog")))
    folders = read_class_folders(tmp_path)
    assert folders.classes == ("fold1", "fold2")
    (warning,) = folders.warnings
    assert "fold1, fold2 are taken for classes, but all have the folders cat, dog" in warning
    assert "name the folders around them train, val and test" in warning
    make(tmp_path / "clear", "cat/indoor/1.png", "dog/outdoor/1.png")
    assert read_class_folders(tmp_path / "clear").warnings == ()


def test_one_folder_too_high(tmp_path: Path) -> None:
    make(tmp_path, "flowers/daisy/1.png", "flowers/rose/2.png")
    folders = read_class_folders(tmp_path)
    assert folders.classes == ("daisy", "rose")
    assert folders.warnings == (f"{tmp_path}: all there is lies in flowers, which is taken for the data set",)


def test_what_hubel_wrote_is_no_data(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "dog/2.png")
    make(tmp_path, "runs/cats/config.yaml", "runs/cats/metrics.csv", "runs/cats/figures/confusion.png")
    make(tmp_path, "runs/cats-tune/config.yaml", "runs/cats-tune/study.db", "runs/cats-tune/figures/search.png")
    make(tmp_path, "runs/cats-2/config.yaml", "runs/cats-2/splits.json", "runs/cats-2/figures/a/b.png")  # broken off
    make(tmp_path, "exports/cats-onnx/model.json", "exports/cats-onnx/photo.png")
    make(tmp_path, "found/.hubel", "found/1.png")
    make(tmp_path, "cat/run/config.yaml", "cat/run/best/model.json", "cat/run/figures/roc.png")
    folders = read_class_folders(tmp_path)
    assert folders.classes == ("cat", "dog")
    assert listed(tmp_path) == [("cat/1.png", "cat"), ("dog/2.png", "dog")]
    assert folders.warnings == ()


def test_annotated_images_are_no_class(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "dog/2.png")
    AnnotatedFiles(tmp_path / "out")
    make(tmp_path, "out/1.png", "mine/3.png")
    AnnotatedFiles(tmp_path / "mine")  # where a person's own images already are
    assert read_class_folders(tmp_path).classes == ("cat", "dog", "mine")


def test_folders_of_systems_are_no_classes(tmp_path: Path) -> None:
    make(tmp_path, "cat/1.png", "cat/@eaDir/1.png/thumb.png", "dog/2.png", "dog/._2.png", "dog/Thumbs.db")
    make(tmp_path, *(f"{name}/x.png" for name in ("@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX/cat")))
    folders = read_class_folders(tmp_path)
    assert (folders.classes, folders.warnings) == (("cat", "dog"), ())
    assert len(folders.splits["all"]) == 2


def test_names_that_differ_only_in_their_encoding_are_one_class(tmp_path: Path) -> None:
    """Composed on one machine, decomposed on a Mac, and Windows-1252 from an old archive."""
    make(tmp_path, "train/caf\u00e9/1.png", "val/cafe\u0301/2.png", "train/the/3.png")
    for split, data in (("test", b"caf\xe9"), ("val", b"\x81\xff")):
        folder = os.fsencode(tmp_path / split) + b"/" + data
        Path(os.fsdecode(folder)).mkdir(parents=True)
        Path(os.fsdecode(folder), "4.png").write_bytes((tmp_path / "train/the/3.png").read_bytes())
    folders = read_class_folders(tmp_path)
    assert folders.classes == ("\\x81\u00ff", "caf\u00e9", "the")
    assert [folders.classes[sample.label] for sample in folders.splits["test"]] == ["caf\u00e9"]
    assert all(sample.path.exists() for samples in folders.splits.values() for sample in samples)


def test_paths_that_are_not_text_are_recorded(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    make(tmp_path, f"a/{name}", "a/1.png", "b/2.png", "b/3.png")
    splits = training_splits(read_class_folders(tmp_path), (0.5, 0.5, 0.0), 0)
    write_splits(tmp_path / "splits.json", splits, tmp_path)
    (tmp_path / "splits.json").read_text(encoding="utf-8")  # which is strict
    recorded = read_splits(tmp_path / "splits.json")
    assert f"a/{name}" in {path for paths in recorded.values() for path in paths}


def test_images_without_suffixes(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a/1.png").rename(tmp_path / "a/0001")
    assert listed(tmp_path) == [("a/0001", "a"), ("b/2.png", "b")]


def test_what_is_left_out_is_reported(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.png", "train/b/2.png", "train/b/notes.txt", "train/3.png", "docs/c/4.png")
    (tmp_path / "train" / "empty").mkdir()
    folders = read_class_folders(tmp_path)
    assert folders.classes == ("a", "b")
    assert folders.warnings == (
        f"{tmp_path}: ignored folders beside train: docs",
        f"{tmp_path / 'train'}: ignored 1 image beside the class folders",
        f"{tmp_path / 'train'}: ignored, not images: b/notes.txt",
        f"{tmp_path}: no images in empty: left out of the classes",
    )


def test_layouts_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone does not exist\ncheck the spelling and the folder"):
        read_class_folders(tmp_path / "gone")
    file = make(tmp_path / "f", "file.txt") / "file.txt"
    assert fault_of(file) == f"{file} is a file, not a folder of images"
    (tmp_path / "empty").mkdir()
    assert fault_of(tmp_path / "empty") == f"{tmp_path / 'empty'} has neither class folders nor images"
    loose = make(tmp_path / "loose", "1.png", "2.png")
    assert fault_of(loose) == f"{loose} has 2 images, but no class folders: their classes are unknown"
    in_train = make(tmp_path / "in_train", "train/1.png")
    assert fault_of(in_train).startswith(f"{in_train / 'train'} has 1 images, but no class folders")
    texts = make(tmp_path / "texts", "a/1.txt", "b/2.txt")
    assert fault_of(texts) == f"{texts} has no images in its folders"
    twice = make(tmp_path / "twice", "val/a/1.png", "valid/a/2.png")
    assert fault_of(twice) == f"{twice} has the val split twice: val and valid"


def test_labels_in_a_models_order(tmp_path: Path) -> None:
    folders = read_class_folders(make(tmp_path, "a/1.png", "b/2.png"))
    relabelled = folders.remap_classes(["c", "b", "a"])
    assert [(s.path.parent.name, s.label) for s in relabelled.splits["all"]] == [("a", 2), ("b", 1)]
    with pytest.raises(DataError, match="does not know: b") as caught:
        folders.remap_classes(["a", "c"])
    assert "the model knows a, c" in caught.value.hint


@pytest.mark.data
def test_flowers(data_folder: Path) -> None:
    folders = read_class_folders(data_folder / "flowers5")
    assert folders.classes == ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    assert {split: len(samples) for split, samples in folders.splits.items()} == {"train": 900, "val": 250}
    expected = Counter(path.parent.name for path in data_folder.glob("flowers5/train/*/*.jpg"))
    assert Counter(folders.classes[sample.label] for sample in folders.splits["train"]) == expected


# --- the check before training ---


def check(root: Path) -> Findings:
    folders = read_class_folders(root)
    return check_class_folders(folders.splits, folders.classes)


def unusable(findings: Findings, strict: bool = False) -> str:
    with pytest.raises(DataError) as caught:
        findings.raise_if_unusable(strict)
    assert caught.value.hint
    return caught.value.message


def four(root: Path) -> Path:
    return make(root, "train/a/1.png", "train/a/2.png", "train/b/3.png", "train/b/4.png", "val/a/5.png", "val/b/6.png")


def test_nothing_wrong(tmp_path: Path) -> None:
    findings = check(four(tmp_path))
    findings.raise_if_unusable(strict=True)
    assert findings.warnings() == []
    assert findings.counts == {"train": (2, 2), "val": (1, 1)}
    assert skew(findings.counts["train"]) == 1.0


def test_unreadable_images_are_left_out_and_named(tmp_path: Path) -> None:
    four(tmp_path)
    half, text = tmp_path / "train/a/2.png", tmp_path / "train/b/9.png"
    half.write_bytes(half.read_bytes()[:70])  # a whole header, half the pixels
    text.write_text("not an image")
    findings = check(tmp_path)
    assert list(findings.unusable) == [half, text]
    first, second, third = findings.warnings()
    assert first.startswith(f"{half} is truncated") and first.endswith(": left out")
    assert second == f"{text} is not an image (or its format is not supported): left out"
    assert third == "only one training image of a: too few to learn from"
    samples = read_class_folders(tmp_path).splits["train"]
    assert [s.path.name for s in findings.usable(samples)] == ["1.png", "3.png", "4.png"]
    findings.raise_if_unusable()
    message = unusable(findings, strict=True)
    assert message.startswith(f"{half} is truncated") and message.endswith("1 more cannot be read either")


def test_many_unreadable_images_take_few_lines(tmp_path: Path) -> None:
    four(tmp_path)
    for number in range(20, 28):
        (tmp_path / f"train/a/{number}.png").touch()
    lines = check(tmp_path).warnings()
    assert len(lines) == 6
    assert lines[-1] == "3 more images cannot be read and are left out"


def test_class_without_a_readable_training_image(tmp_path: Path) -> None:
    four(tmp_path)
    make(tmp_path, "val/c/7.png")
    assert unusable(check(tmp_path)) == "no readable training image of c"
    make(tmp_path, "train/c/8.png")
    (tmp_path / "train/c/8.png").write_bytes(b"")
    assert unusable(check(tmp_path)) == "no readable training image of c"


def test_one_class_only(tmp_path: Path) -> None:
    make(tmp_path, "flowers/1.png", "flowers/2.png")
    assert unusable(check(tmp_path)).startswith("there is only one class (flowers)")


def test_class_that_is_never_validated(tmp_path: Path) -> None:
    four(tmp_path)
    make(tmp_path, "train/c/7.png", "train/c/8.png")
    assert check(tmp_path).warnings() == ["no validation image of c: they are not validated"]
    for path in (tmp_path / "val").glob("*/*.png"):
        path.write_text("")
    assert unusable(check(tmp_path)) == "no validation image is readable"


def test_same_image_in_two_classes(tmp_path: Path) -> None:
    four(tmp_path)
    first, copy = tmp_path / "train/a/1.png", tmp_path / "val/b/copy.png"
    shutil.copy(first, copy)
    findings = check(tmp_path)
    assert [(p.image, p.other) for p in findings.contradictions] == [(first, copy)]
    assert unusable(findings) == f"the same image is in two classes: {first} = {copy}"
    assert findings.leaks == ()


def test_five_of_many_contradictions_are_named(tmp_path: Path) -> None:
    four(tmp_path)
    for number in range(10, 18):
        make(tmp_path, f"train/a/{number}.png")
        shutil.copy(tmp_path / f"train/a/{number}.png", tmp_path / f"train/b/{number}.png")
    message = unusable(check(tmp_path))
    assert message.count(" = ") == 5 and message.endswith("and 3 more pairs")


def test_same_image_in_train_and_val_is_a_leak(tmp_path: Path) -> None:
    four(tmp_path)
    first, copy = tmp_path / "train/a/1.png", tmp_path / "val/a/copy.png"
    shutil.copy(first, copy)
    shutil.copy(first, tmp_path / "train/a/again.png")  # twice in one split is not a leak
    findings = check(tmp_path)
    findings.raise_if_unusable()
    assert [(p.split, p.other_split) for p in findings.leaks] == [("train", "val")]
    assert findings.warnings()[0].endswith(f"{first} = {copy}")


def test_same_size_and_beginning_is_not_the_same_image(tmp_path: Path) -> None:
    four(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    for name in ("train/a/7.bmp", "train/b/8.bmp"):
        Image.fromarray(pixels).save(tmp_path / name)
        pixels[0, 0] += 1  # BMP writes the top row last, beyond the first 16 KB
    assert (tmp_path / "train/a/7.bmp").stat().st_size == (tmp_path / "train/b/8.bmp").stat().st_size > 16384
    assert check(tmp_path).contradictions == ()


def test_a_thousand_copies_of_a_placeholder_are_few_pairs(tmp_path: Path) -> None:
    four(tmp_path)
    for number in range(30):
        for split in ("train", "val"):
            shutil.copy(tmp_path / "train/a/1.png", tmp_path / split / "a" / f"copy{number}.png")
    assert len(check(tmp_path).leaks) == 1


def test_skewed_classes(tmp_path: Path) -> None:
    make(tmp_path, *(f"big/{n}.png" for n in range(9)), *(f"small/{n}.png" for n in range(3)))
    folders = read_class_folders(tmp_path)
    findings = check_class_folders({"train": folders.splits["all"]}, folders.classes)
    assert skew(findings.counts["train"]) == 3.0
    assert findings.warnings() == ["classes are imbalanced: 9 training images of big, 3 of small"]


def test_large_sets_are_decoded_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, *(f"{name}/{n}.png" for name in "ab" for n in range(4)))
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(path.read_bytes()[:70])  # the header is whole: only decoding tells
    monkeypatch.setattr(images, "DECODED_WHOLE", 3)
    assert len(check(tmp_path).unusable) == 3  # 8 images, at most 3 decoded: every third
    for path in tmp_path.glob("*/*.png"):
        path.write_bytes(b"no header")
    assert len(check(tmp_path).unusable) == 8


def test_progress(tmp_path: Path) -> None:
    folders = read_class_folders(make(tmp_path, *(f"a/{n}.png" for n in range(120))))
    calls: list[tuple[int, int]] = []
    check_class_folders(folders.splits, folders.classes, lambda done, total: calls.append((done, total)))
    assert calls == [(100, 120), (120, 120)]


def test_classes_whose_names_look_alike_are_told(tmp_path: Path) -> None:
    root = make(tmp_path, "Cat/1.png", "cat/2.png", "cat /3.png", "dog/4.png")
    folders = read_class_folders(root)
    assert folders.classes == ("Cat", "cat", "cat ", "dog")
    assert folders.warnings == (f"{root}: 'Cat' and 'cat' and 'cat ' are different classes: rename one if not",)
