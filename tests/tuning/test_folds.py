"""Folds: equal to scikit-learn's, near-duplicates together, rare classes refused or named."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from drawn_shapes import write_shapes
from hubel.data.image_folder import read_class_folders
from hubel.data.samples import Sample
from hubel.errors import DataError
from hubel.tuning.folds import Folds, make_folds, read_folds, write_folds
from hubel.tuning.groups import duplicate_groups

COUNTS = {0: 83, 1: 41, 2: 26}


def labelled(counts: dict[int, int]) -> list[Sample]:
    return [Sample(Path(f"/set/{label}/{number:03}.png"), label) for label, n in counts.items() for number in range(n)]


def shares(folds: Folds) -> list[Counter[int]]:
    return [Counter(sample.label for sample in part) for part in folds.parts]


@pytest.mark.parametrize("seed", range(4))
def test_without_groups_the_classes_are_divided_as_scikit_learn_divides_them(seed: int) -> None:
    samples = labelled(COUNTS)
    folds = make_folds(samples, "abc", np.arange(150), 5, seed)
    labels = np.array([sample.label for sample in samples])
    parts = [held_out for _, held_out in StratifiedKFold(5, shuffle=True, random_state=seed).split(labels, labels)]
    assert sorted(sample.path for part in folds.parts for sample in part) == [sample.path for sample in samples]
    assert [len(part) for part in folds.parts] == pytest.approx([len(part) for part in parts], abs=1)
    for label in COUNTS:
        theirs = sorted(int((labels[part] == label).sum()) for part in parts)
        assert sorted(share[label] for share in shares(folds)) == pytest.approx(theirs, abs=1)


@pytest.mark.parametrize("seed", range(4))
def test_groups_stay_together_as_with_scikit_learn(seed: int) -> None:
    samples = labelled(COUNTS)
    groups = np.random.default_rng(seed).integers(0, 60, 150)
    folds = make_folds(samples, "abc", groups, 4, seed)
    fold_of = {sample.path: fold for fold, part in enumerate(folds.parts) for sample in part}
    ours = np.array([fold_of[sample.path] for sample in samples])
    assert all(len(set(ours[groups == group])) == 1 for group in np.unique(groups))
    labels = np.array([sample.label for sample in samples])
    numbers = np.unique(groups, return_inverse=True)[1]
    theirs = StratifiedGroupKFold(4, shuffle=True, random_state=seed).split(labels, labels, numbers)
    sizes = sorted(len(held_out) for _, held_out in theirs)
    assert sorted(map(len, folds.parts)) == pytest.approx(sizes, abs=3)  # groups are numbered otherwise there
    assert folds.together[1] == sum(n for n in Counter(groups.tolist()).values() if n > 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("count", [3, 5])
def test_the_folds_are_scikit_learns_of_the_same_seed(count: int, seed: int) -> None:
    """Image by image, where the groups have the same numbers, which there depend on nothing but the order."""
    samples = labelled(COUNTS)
    drawn = np.random.default_rng(seed).integers(0, 70, 150).tolist()
    numbers = {group: number for number, group in enumerate(dict.fromkeys(drawn))}
    groups, labels = np.array([numbers[group] for group in drawn]), np.array([sample.label for sample in samples])
    folds = make_folds(samples, "abc", groups, count, seed)
    theirs = StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups)
    expected = [{samples[index].path for index in held_out} for _, held_out in theirs]
    assert [{sample.path for sample in part} for part in folds.parts] == expected
    # So sizes and shares of classes are theirs, too, which are as even as groups of up to seven images allow.
    assert max(map(len, folds.parts)) - min(map(len, folds.parts)) <= 7


def test_neither_the_order_of_the_images_nor_the_numbers_of_groups_matter() -> None:
    samples = labelled(COUNTS)
    groups = np.arange(150) // 2
    folds = make_folds(samples, "abc", groups, 5, 0)
    assert make_folds(samples[::-1], "abc", 1000 - groups[::-1], 5, 0) == folds
    assert make_folds(samples, "abc", groups, 5, 1) != folds
    train, held_out = folds.split(2)
    assert held_out == folds.parts[2] and len(train) == 150 - len(held_out) and not {*train} & {*held_out}


def test_copies_of_an_image_are_in_its_fold(tmp_path: Path) -> None:
    root = write_shapes(tmp_path / "set", {"cross": 12, "disc": 12})
    for number in range(4):
        shutil.copy(root / "disc" / f"{number}.png", root / "disc" / f"{number}-again.png")
    data = read_class_folders(root)
    samples = data.splits["all"]
    folds = make_folds(samples, data.classes, duplicate_groups(samples), 3, 0)
    fold_of = {sample.path.name: fold for fold, part in enumerate(folds.parts) for sample in part if sample.label == 1}
    assert all(fold_of[f"{number}.png"] == fold_of[f"{number}-again.png"] for number in range(4))
    assert folds.together == (4, 8)
    write_folds(tmp_path, folds, data.root)
    assert read_folds(tmp_path, samples, data.root).parts == folds.parts
    with pytest.raises(DataError, match="lacks images that the search uses: "):
        read_folds(tmp_path, samples[:-1], data.root)
    name = samples[0].path.relative_to(data.root).as_posix()
    for parts in ([[name]], [[name], []], [[name], [name]]):
        (tmp_path / "folds.json").write_text(json.dumps({str(number): part for number, part in enumerate(parts)}))
        with pytest.raises(DataError, match=r"folds\.json is damaged"):
            read_folds(tmp_path, samples, data.root)


def test_each_repetition_divides_all_images_otherwise(tmp_path: Path) -> None:
    samples = labelled(COUNTS)
    groups = np.arange(150) // 2
    folds = make_folds(samples, "abc", groups, 5, 0, repeats=3)
    assert (len(folds), folds.count, folds.images, folds.together) == (15, 5, 150, (75, 150))
    assert folds.parts[:5] == make_folds(samples, "abc", groups, 5, 0).parts, "the first is that without repetitions"
    divisions = [{frozenset(sample.path for sample in part) for part in folds.parts[at : at + 5]} for at in (0, 5, 10)]
    assert all(frozenset.union(*each) == {sample.path for sample in samples} for each in divisions)
    assert not divisions[0] & divisions[1] and not divisions[1] & divisions[2]
    train, held_out = folds.split(7)
    assert held_out == folds.parts[7] and {*train} == {*samples} - {*held_out}
    write_folds(tmp_path, folds, Path("/set"))
    recorded = json.loads((tmp_path / "folds.json").read_text())
    assert list(recorded)[:2] == ["repetition 1, fold 1", "repetition 1, fold 2"] and len(recorded) == 15
    assert read_folds(tmp_path, samples, Path("/set")) == Folds(folds.parts, 3)
    recorded["repetition 3, fold 5"].pop()
    (tmp_path / "folds.json").write_text(json.dumps(recorded))
    with pytest.raises(DataError, match=r"folds\.json is damaged"):
        read_folds(tmp_path, samples, Path("/set"))


def with_objects(images: int) -> list[Sample]:
    rng = np.random.default_rng(0)
    present = rng.random((images, 4)) < (0.7, 0.3, 0.2, 0.1)
    return [
        Sample(Path(f"/set/{n:03}.png"), width=8, height=8, boxes=np.zeros((len(labels), 4), np.float32), labels=labels)
        for n, labels in enumerate(map(np.flatnonzero, present))
    ]


def test_every_fold_gets_its_share_of_every_object_class() -> None:
    samples = with_objects(200)
    folds = make_folds(samples, "abcd", np.arange(200), 5, 0)
    counts = np.array([[sum(c in s.class_ids for s in part) for c in range(4)] for part in folds.parts])
    np.testing.assert_allclose(counts, np.tile(counts.sum(0) / 5, (5, 1)), atol=1.5)
    assert [len(part) for part in folds.parts] == pytest.approx([40] * 5, abs=5)
    assert folds.notes == ()


def test_an_object_class_in_too_few_images_is_named() -> None:
    rare = Sample(Path("/set/rare.png"), width=8, height=8, boxes=np.zeros((1, 4), np.float32), labels=np.array([4]))
    folds = make_folds([*with_objects(30), rare], ["a", "b", "c", "d", "owl"], np.arange(31), 3, 0)
    assert folds.notes == ("not every fold has owl: too few images contain it",)


@pytest.mark.parametrize(
    ("counts", "groups", "message", "hint"),
    [
        ({0: 9, 1: 3}, range(12), "class b has 3 images, fewer than the 4 folds", "or use --folds 3"),
        (
            {0: 9, 1: 5},
            [*range(9), 9, 9, 9, 9, 10],
            "class b has 5 images in only 2 groups of images",
            "--folds 2",
        ),
        (
            {0: 9, 1: 5},
            [0] * 14,
            "the data set has 14 images in only 1 group",
            "add images of other groups",
        ),
        ({0: 1, 1: 1}, range(2), "the data set has 2 images, fewer than the 4 folds", "--folds 2"),
    ],
)
def test_too_few_images_are_a_sentence(counts: dict[int, int], groups: list[int], message: str, hint: str) -> None:
    with pytest.raises(DataError) as raised:
        make_folds(labelled(counts), "ab", np.array(groups), 4, 0)
    assert message in raised.value.message and hint in raised.value.hint
