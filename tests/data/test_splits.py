"""The rules of splitting, in a table; and the arithmetic of stratified splits."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest

from hubel.config import SplitFractions, parse_fractions
from hubel.data.image_folder import read_class_folders
from hubel.data.samples import ImageDataset, Sample
from hubel.data.splits import (
    Splits,
    evaluation_samples,
    read_splits,
    recorded_splits,
    stratified_split,
    training_splits,
    write_splits,
)
from hubel.errors import DataError

ROOT = Path("/data/flowers")
HALF = SplitFractions(0.5, 0.3, 0.2)


def samples(folder: str, *counts: int) -> tuple[Sample, ...]:
    """``counts[k]`` samples of class k below a folder."""
    return tuple(
        Sample(ROOT / folder / f"class{label}" / f"{number}.jpg", label)
        for label, count in enumerate(counts)
        for number in range(count)
    )


def folders(**splits: tuple[int, ...]) -> ImageDataset:
    found = {name: samples("" if name == "all" else name, *counts) for name, counts in splits.items()}
    return ImageDataset(ROOT, ("class0", "class1"), found)


def record(splits: Splits) -> dict[str, tuple[str, ...]]:
    return {
        name: tuple(sample.path.relative_to(ROOT).as_posix() for sample in part)
        for name, part in splits.by_name().items()
    }


def sizes(splits: Splits) -> tuple[int, int, int]:
    return len(splits.train), len(splits.val), len(splits.test)


# --- fractions ---


def test_fractions() -> None:
    assert parse_fractions("0.75,0.15,0.10") == (0.75, 0.15, 0.10) == SplitFractions()
    assert parse_fractions(" 0.8, 0.2 , 0") == (0.8, 0.2, 0.0)
    assert parse_fractions("0.3333333,0.3333333,0.3333333").train == 0.3333333


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.8,0.2", "not three numbers"),
        ("", "not three numbers"),
        ("a,b,c", "not three numbers"),
        ("nan,0.5,0.5", "not three numbers"),
        ("0.8,0.3,-0.1", "negative"),
        ("75,15,10", "sums to 100"),
        ("0.7,0.2,0.2", "sums to 1.1"),
        ("0,0.5,0.5", "nothing to train on"),
        ("0.9,0,0.1", "nothing to validate on"),
    ],
)
def test_fractions_that_are_none(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_fractions(text)


# --- stratified splits ---


def test_every_class_is_divided_by_the_fractions() -> None:
    parts = stratified_split(samples("", 100, 40, 200), (0.75, 0.15, 0.10), seed=0)
    assert [Counter(sample.label for sample in part) for part in parts] == [
        {0: 75, 1: 30, 2: 150},
        {0: 15, 1: 6, 2: 30},
        {0: 10, 1: 4, 2: 20},
    ]
    assert sorted(sample.path for part in parts for sample in part) == sorted(
        sample.path for sample in samples("", 100, 40, 200)
    )


@pytest.mark.parametrize("count", [2, 3, 4, 5, 7, 11])
def test_many_small_classes_fill_every_part(count: int) -> None:
    fractions = (0.75, 0.15, 0.10)
    parts = stratified_split(samples("", *[count] * 60), fractions, seed=3)
    for part, share in zip(parts, fractions, strict=True):
        assert abs(len(part) - share * count * 60) <= 1
    assert {sample.label for sample in parts[0]} == set(range(60))  # each class trains
    for label in range(60):
        for part, share in zip(parts, fractions, strict=True):
            assert abs(sum(sample.label == label for sample in part) - share * count) < 2


def test_single_images_train() -> None:
    train, val = stratified_split(samples("", 1, 1, 1, 20), (0.85, 0.15), seed=0)
    assert {0, 1, 2} <= {sample.label for sample in train}
    assert {sample.label for sample in val} == {3}
    assert len(val) in (3, 4)  # 15 % of 23 is 3.45


def test_seed_and_files_alone_decide() -> None:
    images = list(samples("", 30, 50))
    first = stratified_split(images, HALF, seed=1)
    random.Random(0).shuffle(images)
    assert stratified_split(images, HALF, seed=1) == first
    assert stratified_split(images, HALF, seed=2) != first
    state = random.getstate()
    stratified_split(images, HALF, seed=2)
    assert random.getstate() == state  # nobody else's random numbers are used up


def test_split_is_random_not_by_name() -> None:
    train, _ = stratified_split(samples("", 100), (0.5, 0.5), seed=0)
    numbers = [int(sample.path.stem) for sample in train]
    assert 35 < sum(numbers) / len(numbers) < 64  # the first half would give 24.5
    assert len({number % 2 for number in numbers}) == 2


def test_other_machines_split_alike() -> None:
    # Fixed once and for all: a run's split must be the same after an update of Python or of the project.
    _, val = stratified_split(samples("", 6, 6), (2 / 3, 1 / 3), seed=7)
    generator = random.Random("7:0")
    group = [f"{number}.jpg" for number in range(6)]
    generator.shuffle(group)
    # Dealt out by hand with shares 2/3 and 1/3: train, val, train, train, val, train.
    assert {sample.path.name for sample in val if sample.label == 0} == {group[1], group[4]}
    assert {group[1], group[4]} == {"0.jpg", "2.jpg"}


# --- the rules for training ---


def test_unsplit_data_are_split_by_fractions() -> None:
    assert sizes(training_splits(folders(all=(20, 40)), HALF, seed=0)) == (30, 18, 12)


def test_folders_are_used_as_they_are() -> None:
    data = folders(train=(20, 20), val=(3, 4), test=(5, 6))
    splits = training_splits(data, HALF, seed=0)
    assert (splits.train, splits.val, splits.test) == tuple(data.splits.values())


def test_without_val_15_percent_of_train_are_held_back_and_nothing_tests() -> None:
    splits = training_splits(folders(train=(20, 40)), HALF, seed=0)
    assert sizes(splits) == (51, 9, 0)
    assert Counter(sample.label for sample in splits.val) == {0: 3, 1: 6}
    with_test = training_splits(folders(train=(20, 40), test=(5, 5)), HALF, seed=0)
    assert sizes(with_test) == (51, 9, 10)
    assert with_test.val == splits.val


def test_nothing_to_train_on() -> None:
    with pytest.raises(DataError, match="it has val, test, but no train"):
        training_splits(folders(val=(2, 2), test=(2, 2)), HALF, seed=0)


def test_one_image_a_class_cannot_be_validated() -> None:
    for data in (folders(all=(1, 1)), folders(train=(1, 1))):
        with pytest.raises(DataError, match="too few images"):
            training_splits(data, HALF, seed=0)


def test_small_classes_are_reported() -> None:
    (warning,) = training_splits(folders(all=(2, 40)), HALF, seed=0).warnings
    assert "only one or two images of class0" in warning
    assert training_splits(folders(all=(3, 40)), HALF, seed=0).warnings == ()


# --- the record ---


def test_record_is_plain_json_of_relative_paths(tmp_path: Path) -> None:
    splits = Splits(samples("", 2), (Sample(ROOT / "class1" / "ä b.jpg", 1),))
    write_splits(tmp_path / "splits.json", splits, ROOT)
    text = (tmp_path / "splits.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"train": ["class0/0.jpg", "class0/1.jpg"], "val": ["class1/ä b.jpg"]}
    assert read_splits(tmp_path / "splits.json") == record(splits)
    assert [path.name for path in tmp_path.iterdir()] == ["splits.json"]  # nothing half-written is left


def test_record_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "splits.json"
    with pytest.raises(DataError, match=r"splits\.json does not exist"):
        read_splits(path)
    for text in ("{", "[1]", '{"train": 3}'):
        path.write_text(text)
        with pytest.raises(DataError, match="not a record of splits"):
            read_splits(path)


def test_record_gives_the_same_splits_elsewhere_and_after_additions() -> None:
    data = folders(all=(20, 20))
    splits = training_splits(data, HALF, seed=0)
    moved = ImageDataset(
        Path("/elsewhere"),
        data.classes,
        {"all": tuple(Sample(Path("/elsewhere") / s.path.relative_to(ROOT), s.label) for s in samples("", 25, 20))},
    )
    again = recorded_splits(moved, record(splits))
    for name, part in again.by_name().items():
        ours = getattr(splits, name)
        assert [s.path.relative_to("/elsewhere") for s in part] == [s.path.relative_to(ROOT) for s in ours]
        assert [s.label for s in part] == [s.label for s in ours]


def test_recorded_files_that_are_gone_are_named() -> None:
    kept = record(training_splits(folders(all=(20, 20)), HALF, seed=0))
    with pytest.raises(DataError, match=r"lacks images that the run used: class1/\d+\.jpg.* and \d+ more"):
        recorded_splits(folders(all=(20, 0)), kept)


# --- the rules for evaluation ---

TRAINED_ON_UNSPLIT = record(training_splits(folders(all=(20, 20)), HALF, seed=0))
TRAINED_WITHOUT_TEST = {name: TRAINED_ON_UNSPLIT[name] for name in ("train", "val")}
HELD_BACK = record(training_splits(folders(train=(20, 20)), HALF, seed=0))
OTHER_DATA = {"train": ("other/1.jpg",), "test": ("other/2.jpg",)}


@pytest.mark.parametrize(
    ("data", "recorded", "requested", "split", "count"),
    [
        # Folders: test, else val, unless asked.
        (folders(train=(9, 9), val=(3, 4), test=(5, 6)), None, None, "test", 11),
        (folders(train=(9, 9), val=(3, 4)), None, None, "val", 7),
        (folders(train=(9, 9), val=(3, 4), test=(5, 6)), None, "val", "val", 7),
        (folders(train=(9, 9), val=(3, 4), test=(5, 6)), None, "valid", "val", 7),
        (folders(train=(9, 9), val=(3, 4), test=(5, 6)), None, "train", "train", 18),
        (folders(train=(9, 9), val=(3, 4), test=(5, 6)), None, "all", "all", 36),
        # Only a test folder: scored whole, whatever the run was trained on.
        (folders(test=(5, 6)), None, None, "test", 11),
        (folders(test=(5, 6)), TRAINED_ON_UNSPLIT, None, "test", 11),
        # Unsplit: as recorded, or whole if asked.
        (folders(all=(20, 20)), TRAINED_ON_UNSPLIT, None, "test", 8),
        (folders(all=(20, 20)), TRAINED_ON_UNSPLIT, "val", "val", 12),
        (folders(all=(20, 20)), TRAINED_ON_UNSPLIT, "all", "all", 40),
        (folders(all=(20, 20)), TRAINED_WITHOUT_TEST, None, "val", 12),
        (folders(all=(20, 20)), None, "all", "all", 40),
        (folders(all=(20, 20)), OTHER_DATA, "all", "all", 40),
        # A train folder of which the run held a part back.
        (folders(train=(20, 20)), HELD_BACK, None, "val", 6),
        (folders(train=(20, 20)), HELD_BACK, "train", "train", 34),
        (folders(train=(20, 20), test=(2, 2)), HELD_BACK, None, "test", 4),
        (folders(train=(20, 20), test=(2, 2)), HELD_BACK, "val", "val", 6),
    ],
)
def test_what_is_evaluated(
    data: ImageDataset, recorded: dict | None, requested: str | None, split: str, count: int
) -> None:
    name, found = evaluation_samples(data, recorded, requested)
    assert (name, len(found)) == (split, count)


def test_evaluated_samples_are_those_held_back_in_training() -> None:
    data = folders(all=(20, 20))
    splits = training_splits(data, HALF, seed=0)
    assert evaluation_samples(data, TRAINED_ON_UNSPLIT)[1] == splits.test
    held = training_splits(folders(train=(20, 20)), HALF, seed=0)
    assert evaluation_samples(folders(train=(20, 20)), HELD_BACK)[1] == held.val


@pytest.mark.parametrize(
    ("data", "recorded", "requested", "message", "hint"),
    [
        (folders(train=(9, 9), val=(3, 4)), None, "test", "no test split", "--split train or --split val"),
        (folders(test=(3, 4)), None, "val", "no val split", "--split test"),
        (folders(all=(9, 9)), None, None, "no test or val split", r"--split all"),
        (folders(all=(9, 9)), OTHER_DATA, None, "no test or val split", r"--split all"),
        (folders(train=(9, 9)), None, None, "no test or val split", "--split train"),
        (folders(all=(20, 20)), TRAINED_WITHOUT_TEST, "test", "no test split", "--split train or --split val"),
        (folders(train=(9, 9), val=(3, 4)), None, "dev", "no dev split", "--split train or --split val"),
        (folders(all=(20, 0)), TRAINED_ON_UNSPLIT, None, "lacks images that the run used", "--split all"),
    ],
)
def test_splits_that_are_not_there(
    data: ImageDataset, recorded: dict | None, requested: str | None, message: str, hint: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        evaluation_samples(data, recorded, requested)
    assert hint in caught.value.hint


@pytest.mark.data
def test_real_folders(data_folder: Path) -> None:
    data = read_class_folders(data_folder / "flowers5" / "train")
    splits = training_splits(data, SplitFractions(), seed=0)
    for part, count in ((splits.train, 135), (splits.val, 27), (splits.test, 18)):  # of 180 a class
        assert Counter(sample.label for sample in part) == dict.fromkeys(range(5), count)
