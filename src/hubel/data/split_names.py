"""Which split a folder's name means: ``train``, and what published data sets write for it."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Folder names (and values of ``--split``) and the split that they mean."""

_BOTH = "train and val"  # as in trainval, which is a split only beside a test set
_WORDS = {
    **SPLIT_NAMES,
    "training": "train",
    "trn": "train",
    "dev": "val",
    "devel": "val",
    "development": "val",
    "eval": "val",
    "evaluation": "val",
    "testing": "test",
    "tst": "test",
    "validate": "val",
    "trainval": _BOTH,
}
# Words that say nothing beside a split's: train_images, seg_train, test set, val2017.
_GENERIC = frozenset(
    {
        "data",
        "dataset",
        "datasets",
        "folder",
        "image",
        "images",
        "img",
        "imgs",
        "photo",
        "photos",
        "picture",
        "pictures",
    }
    | {"sample", "samples", "seg", "set", "split", "subset", "the"}
)


def split_of(name: str) -> str | None:
    """The split that a folder's name means by itself, such as ``seg_train``, ``TrainingSet`` or ``val2017``."""
    split, rest = _parts(name)
    return split if not rest and split != _BOTH else None


def split_of_file(stem: str) -> str | None:
    """The split that the name of a file without its suffix means: ``instances_val2017``, ``coco_train_labels``."""
    split = _parts(stem)[0]
    return "train" if split == _BOTH else split


def splits_among(names: Sequence[str]) -> Mapping[str, str]:
    """Name → split of the folders in one folder that are named as splits of one data set.

    Beside a split's word each may have the same others: ``birds_train`` and ``birds_test``, but not ``train_station``
    and ``test_tube``.
    """
    by_rest: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        split, rest = _parts(name)
        if split is not None:
            by_rest.setdefault(rest, {})[name] = split
    for rest, group in by_rest.items():
        beside_test = set(group.values()) == {_BOTH, "test"}
        known = {name: "train" if split == _BOTH else split for name, split in group.items()}
        by_rest[rest] = {name: split for name, split in known.items() if beside_test or group[name] != _BOTH}
    alone = by_rest.pop((), {})
    groups = [group for group in by_rest.values() if len(set(group.values())) > 1]
    return alone or (groups[0] if len(groups) == 1 else {})


def split_folders(folders: Iterable[Path]) -> dict[Path, str]:
    """Folder → split of those among the folders that are splits beside each other, as :func:`splits_among`."""
    beside: dict[Path, list[str]] = defaultdict(list)
    for folder in folders:
        beside[folder.parent].append(folder.name)
    return {parent / name: split for parent, names in beside.items() for name, split in splits_among(names).items()}


@lru_cache(maxsize=4096)  # the same folders lead to each of many files
def _parts(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The split in a name, if one word of it is a split's, and the other words that mean something."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()  # TrainingSet
    words = [_shortened(word) for word in re.split(r"[\W\d_]+", apart) if word]
    splits = [_WORDS[word] for word in words if word in _WORDS]
    rest = tuple(word for word in words if word not in _WORDS and word not in _GENERIC)
    if splits in (["train", "val"], [_BOTH]):
        return _BOTH, rest
    return (splits[0] if len(splits) == 1 else None), rest


def _shortened(word: str) -> str:
    """A word without a generic one that is written together with a split's: ``trainset``, ``testdata``."""
    for generic in _GENERIC - {"the"}:
        for short in (word.removesuffix(generic), word.removeprefix(generic)):
            if short != word and short in _WORDS:
                return short
    return word
