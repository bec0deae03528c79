"""ImageNet's class names against lists that others keep."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubel.errors import WeightsError
from hubel.weights import class_names

# Names that WordNet's first words leave alike (for a file system or a reader), told apart.
TOLD_APART = {
    134: "crane (bird)",
    264: "Cardigan (dog)",
    517: "crane (machine)",
    638: "maillot (tights)",
    639: "maillot (tank suit)",
}


def _without_remark(name: str) -> str:
    return name.partition(" (")[0]


def test_a_thousand_names_no_two_alike() -> None:
    names = class_names("imagenet1k")
    assert len(names) == 1000
    assert len({name.casefold() for name in names}) == 1000
    assert all(name == name.strip() and name for name in names)
    assert names[698] == "palace"
    assert {index: names[index] for index in TOLD_APART} == TOLD_APART


def test_order_and_words_are_timms() -> None:
    info = pytest.importorskip("timm.data").ImageNetInfo("imagenet-1k")
    theirs = [info.index_to_description(index).split(", ")[0] for index in range(1000)]
    assert [_without_remark(name) for name in class_names()] == theirs


@pytest.mark.data
def test_order_and_words_are_the_data_sets(data_folder: Path) -> None:
    rows = json.loads((data_folder / "imagenet_samples" / "imagenet_classes.json").read_text())
    names = class_names()
    assert [row["index"] for row in rows] == list(range(1000))
    differing = [
        (row["index"], row["name"], name)
        for row, name in zip(rows, names, strict=True)
        if row["name"].split(", ")[0] != name
    ]
    assert {index for index, _, _ in differing} == set(TOLD_APART), differing
    for _, theirs, ours in differing:
        assert theirs.split(", ")[0] == _without_remark(ours)


def test_unknown_list_is_refused_with_the_known() -> None:
    with pytest.raises(WeightsError, match="imagenet22k") as caught:
        class_names("imagenet22k")
    assert "imagenet1k" in caught.value.hint
