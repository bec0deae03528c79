"""Which split a folder's name means: ``train``, and what published data sets write for it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
"""Folder names (and values of ``--split``) and the split that they mean."""

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
    return split if not rest else None


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
    alone = by_rest.pop((), {})
    groups = [group for group in by_rest.values() if len(set(group.values())) > 1]
    return alone or (groups[0] if len(groups) == 1 else {})


def _parts(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The split in a name, if one word of it is a split's, and the other words that mean something."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).casefold()  # TrainingSet
    words = [word for word in re.split(r"[\W\d_]+", apart) if word]
    splits = [word for word in words if word in _WORDS]
    rest = tuple(word for word in words if word not in _WORDS and word not in _GENERIC)
    return (_WORDS[splits[0]] if len(splits) == 1 else None), rest
