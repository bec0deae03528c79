"""Groups that a user has put together: their file, its faults, and their union with images that look alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from hubel.data.samples import ImageDataset, Sample
from hubel.errors import DataError
from hubel.tuning.folds import make_folds
from hubel.tuning.groups import GivenGroups

ROOT = Path("/set")
POOL = tuple(Sample(ROOT / f"{'ab'[number % 2]}/{number}.png", number % 2) for number in range(12))
TEST = (Sample(ROOT / "a/test.png", 0),)
DATA = ImageDataset(ROOT, ("a", "b"), {"train": POOL, "test": TEST})
NAMES = [sample.path.relative_to(ROOT).as_posix() for sample in POOL]
PATIENTS = dict(zip(NAMES, "kkkllmmnno  ", strict=True))


def partition(groups: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(groups == group).tolist()) for group in np.unique(groups)}


@pytest.mark.parametrize("form", ["file", "semicolons of a spreadsheet", "mapping"])
def test_groups_of_both_kinds_stay_whole(tmp_path: Path, form: str) -> None:
    """Images 2 and 3 look alike, so two patients are one group; the last two images, of no patient, stand alone."""
    source: Path | Mapping[str, str] = PATIENTS
    if form != "mapping":
        source = tmp_path / "groups.csv"
        mark, start = (",", "") if form == "file" else (";", "\ufeff")
        rows = [mark.join(("0", name, group)) for name, group in PATIENTS.items()]
        text = start + "\n".join([mark.join(("age", "image", "group")), *rows])
        source.write_text(text, encoding="utf-8", newline="\r\n" if start else "\n")
    alike = np.array([0, 1, 2, 2, *range(4, 12)])
    found = GivenGroups(source).united(alike, POOL, DATA)
    assert partition(found) == {
        frozenset(group) for group in ({0, 1, 2, 3, 4}, {5, 6}, {7, 8}, {9}, {10}, {11})
    }  # fmt: skip
    folds = make_folds(POOL, "ab", found, 3, 0)
    assert len({fold for fold, part in enumerate(folds.parts) for sample in part if sample in POOL[:5]}) == 1


def test_a_group_that_is_in_the_test_set_too_is_named() -> None:
    groups = GivenGroups({**PATIENTS, "a/test.png": "m"})
    assert groups.notes(POOL, TEST, ROOT) == ("1 group has images in the test set too, whose score may be too high: m",)
    assert GivenGroups({**PATIENTS, "a/test.png": None}).notes(POOL, TEST, ROOT) == ()


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("a/0.png,k", "has no columns image and group: its first line is 'a/0.png,k'", "begin it with the line"),
        ("", "has no columns image and group: its first line is ''", "begin it with the line"),
        ("image,group\na/0.png", "line 2 has no group", "end it with a comma if it stands alone"),
        ("image,group\na/0.png,k\n./a/0.png,l", "puts a/0.png into two groups, 'k' and 'l'", "leave one"),
        ('image,group\n"a,k', "is not a CSV file: unexpected end of data", "begin it with the line"),
        ("image,group\nc/9.png,k", "names 1 image that /set does not have: c/9.png", "relative to /set, such as a/0"),
        ("image,group\na/0.png,k", "lacks 11 images of /set: b/1.png", "an image with an empty group stands alone"),
    ],
)
def test_faults_of_the_file_are_a_sentence(tmp_path: Path, text: str, message: str, hint: str) -> None:
    path = tmp_path / "groups.csv"
    path.write_text(text)
    with pytest.raises(DataError) as raised:
        GivenGroups(path).united(np.arange(12), POOL, DATA)
    assert raised.value.message.startswith(f"--groups {path}")
    assert message in raised.value.message and hint in raised.value.hint


def test_a_file_that_cannot_be_read_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="groups.csv cannot be read: No such file"):
        GivenGroups(tmp_path / "groups.csv")
    (tmp_path / "groups.csv").write_bytes(b"image,group\n\xff,k")
    with pytest.raises(DataError, match="groups.csv is not UTF-8") as raised:
        GivenGroups(tmp_path / "groups.csv")
    assert "in UTF-8" in raised.value.hint


def test_a_single_group_is_a_sentence() -> None:
    groups = GivenGroups(dict.fromkeys(NAMES, "k")).united(np.arange(12), POOL, DATA)
    with pytest.raises(DataError) as raised:
        make_folds(POOL, "ab", groups, 3, 0)
    few = "only 1 group of images that stay together, fewer than the 3 folds"
    assert raised.value.message == f"the data set has 12 images in {few}"
    assert raised.value.hint == "add images of other groups (images that look alike are one)"
