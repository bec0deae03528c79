"""New splits of a data set: labelled pictures in any annotation format, or class folders."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hubel.config import SplitFractions
from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, write_annotations
from hubel.data.annotations.writer import ImageMode, write_class_folders
from hubel.data.checks.duplicates import identical
from hubel.data.checks.image_scan import ImageInfo, scan_images
from hubel.data.checks.perceptual_hash import close_pairs
from hubel.data.checks.run import read_any
from hubel.data.file_listing import listing
from hubel.data.samples import ImageDataset, Sample
from hubel.data.splits import HELD_BACK
from hubel.errors import DataError, UsageError


def iterative_stratification(counts: np.ndarray, sizes: np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """Deal groups out so that each part has its share of every label.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data", figure
    1): the rarest label is dealt out first, each of its groups to the part that lacks most of it; among equals to the
    part that lacks most pictures. There a group is a single thing; here it may be several that must stay together, and
    those with most of the label come first, while there is room for them.

    Args:
        counts: (N, K), how many pictures of each group have each label; every group has some.
        sizes: (N,), how many pictures a group has.
        shares: one a part; they sum to 1. A part whose share is 0 gets nothing.
        seed: with the order of the groups it alone decides.

    Returns:
        (N,) the part of each group.
    """
    dice = random.Random(seed)
    order = np.array(dice.sample(range(len(counts)), len(counts)), int)
    wanted = np.outer(shares, counts.sum(0))
    room = np.array(shares) * sizes.sum()
    part_of = np.full(len(counts), -1)
    while (part_of < 0).any():
        left = order[part_of[order] < 0]
        having = (counts[left] > 0).sum(0)
        label = min(np.flatnonzero(having).tolist(), key=lambda at: (having[at], at))
        dealt = left[counts[left, label] > 0]
        for group in dealt[np.argsort(-counts[dealt, label], kind="stable")].tolist():
            part = max(range(len(shares)), key=lambda at: (round(wanted[at, label], 9), round(room[at], 9), -at))
            part_of[group] = part
            wanted[part] -= counts[group]
            room[part] -= sizes[group]
    return part_of


def alike(paths: Sequence[Path], looks: Mapping[Path, ImageInfo]) -> list[list[int]]:
    """Groups of pictures, as places in ``paths``; most have one.

    Two pictures that resemble a third are in one group with it, so a film of slow changes is one.

    Args:
        paths: of the pictures; those that cannot be read stay alone.
        looks: at them.
    """
    readable = [at for at, path in enumerate(paths) if not looks[path].message]
    copies = identical(readable, lambda at: paths[at])
    component = np.arange(len(paths))
    component = _joined(component, *_edges([(first, other) for first, *others in copies for other in others]))
    able = np.array([at for at in readable if looks[paths[at]].print is not None], int)
    for firsts, seconds, _ in close_pairs([print_ for at in able if (print_ := looks[paths[at]].print) is not None]):
        component = _joined(component, able[firsts], able[seconds])
    groups: dict[int, list[int]] = {}
    for at, group in enumerate(component.tolist()):
        groups.setdefault(group, []).append(at)
    return list(groups.values())


def _edges(pairs: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.array(pairs, int).reshape(-1, 2)
    return ends[:, 0], ends[:, 1]


def _joined(component: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Components (N,) after places ``one`` have been joined with places ``other``."""
    size = len(component)
    graph = coo_array((np.ones(len(one), bool), (component[one], component[other])), (size, size))
    _, new = connected_components(graph, directed=False)
    joined: np.ndarray = new[component]
    return joined


ImageSource = Sample | AnnotatedImage

_NAMES = ("train", "val", "test")
_LARGE = 0.05
"""Share of the pictures that look alike from which on a person should know."""


@dataclass(frozen=True)
class SplitResult:
    """A data set with its new splits.

    Attributes:
        dataset: as it was read, but for the splits.
        together: how many groups of pictures that look alike were kept together, and how many pictures are in them.
        notes: what a person should know, one line each.
    """

    dataset: AnnotatedDataset | ImageDataset
    together: tuple[int, int]
    notes: tuple[str, ...]


def split_data(
    path: str | Path,
    format: str | None = None,
    fractions: SplitFractions = SplitFractions(),  # noqa: B008 – immutable
    seed: int = 0,
    anew: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> SplitResult:
    """Divide a data set by the rules that training goes by, and keep pictures that look alike in one split.

    One that is not split yet is divided by fractions. One that has ``train`` but no ``val`` has 15 % of ``train`` held
    back, and what it has to test with stays so.

    Args:
        path: as for :func:`~hubel.data.checks.check_data`, and so is ``format``.
        format: of label files, where a folder has several.
        fractions: of an unsplit data set.
        seed: the same seed gives the same splits of the same files.
        anew: forget the splits that there are.
        progress: called now and then with the number of pictures looked at and of all.

    Raises:
        DataError: it has the splits already; or it has too few pictures, or cannot be read.
        UsageError: ``format`` is none.
    """
    dataset = read_any(path, format)
    old: Mapping[str, Sequence[ImageSource]] = dataset.splits
    if anew:
        old = {"all": [picture for pictures in old.values() for picture in pictures]}
    shares, pool = _shares(dataset.root, old, fractions)
    paths = [picture.path for picture in old[pool]]
    groups = alike(paths, scan_images(paths, progress))
    counts = np.zeros((len(groups), len(dataset.classes) + 2), int)
    for at, group in enumerate(groups):
        for place in group:
            counts[at, _labels(old[pool][place], len(dataset.classes))] += 1
    part_of = iterative_stratification(counts, np.array(list(map(len, groups))), shares, seed)
    split_of = {paths[place]: _NAMES[part] for group, part in zip(groups, part_of, strict=True) for place in group}
    if empty := [name for name, share in zip(_NAMES, shares, strict=True) if share and name not in split_of.values()]:
        message = f"{dataset.root} has too few pictures that do not look alike: nothing is left for {', '.join(empty)}."
        raise DataError(message, "Add pictures, or ask for fewer splits: --split 0.8,0.2,0")
    several = [group for group in groups if len(group) > 1]
    notes = [*dataset.warnings, *_large(several, paths), *_without(dataset.classes, counts, part_of, shares)]
    together = (len(several), sum(map(len, several)))
    splits: Any = _placed(dataset.splits, split_of)
    return SplitResult(replace(dataset, splits=splits), together, tuple(notes))


def _shares(
    root: Path, splits: Mapping[str, Sequence[object]], fractions: SplitFractions
) -> tuple[tuple[float, ...], str]:
    """What is divided, and into which shares of train, val and test."""
    if "all" in splits:
        return tuple(fractions), "all"
    if "val" in splits or "train" not in splits:
        message = f"{root} is split already: {', '.join(splits)}."
        raise DataError(message, "Use it as it is, or put its splits together first with --anew.")
    return (1 - HELD_BACK, HELD_BACK, 0.0), "train"


def _labels(picture: ImageSource, classes: int) -> list[int]:
    """The classes that a picture shows; labelled as empty and not labelled at all are two more."""
    if isinstance(picture, Sample):
        return [picture.label]
    if picture.objects is None:
        return [classes + 1]
    return sorted({thing.label for thing in picture.objects}) or [classes]


def _placed(
    old: Mapping[str, Sequence[ImageSource]], split_of: Mapping[Path, str]
) -> dict[str, tuple[ImageSource, ...]]:
    """The pictures in their new splits, in the order in which they were."""
    new: dict[str, list[ImageSource]] = {name: [] for name in _NAMES}
    for split, pictures in old.items():
        for picture in pictures:
            new[split_of.get(picture.path, split)].append(picture)
    return {name: tuple(pictures) for name, pictures in new.items() if pictures}


def _large(several: Sequence[Sequence[int]], paths: Sequence[Path]) -> list[str]:
    most = max(several, key=len, default=())
    if len(most) < max(3, _LARGE * len(paths)):
        return []
    names = listing([paths[place].name for place in most], 3)
    return [f"{len(most):,} of {len(paths):,} pictures look alike and stay in one split: {names}"]


def _without(classes: Sequence[str], counts: np.ndarray, part_of: np.ndarray, shares: Sequence[float]) -> list[str]:
    """What a split has none of though there is some."""
    notes = []
    for part, share in enumerate(shares):
        lacking = [
            name
            for label, name in enumerate(classes)
            if counts[:, label].any() and not counts[part_of == part, label].any()
        ]
        if share and lacking:
            notes.append(f"{_NAMES[part]} has none of {listing(lacking)}: too few pictures show it")
    return notes


def write_split(divided: SplitResult, out: str | Path, pictures: ImageMode = "copy") -> tuple[str, ...]:
    """Write the data set with its new splits as a new folder, in its own format.

    Args:
        divided: the data set.
        out: the folder; it must not exist, or be empty.
        pictures: copy or link them into the folder, or (of labelled pictures) leave them out.

    Returns:
        What the format cannot hold, one line each with a number.

    Raises:
        DataError: ``out`` holds something, or cannot be written.
        UsageError: class folders without pictures were asked for.
    """
    dataset = divided.dataset
    if isinstance(dataset, AnnotatedDataset):
        return write_annotations(dataset, dataset.format, out, pictures)
    if pictures == "none":
        raise UsageError("Class folders are nothing without their pictures.", "Use --images link.")
    splits = {
        split: [(sample.path, dataset.classes[sample.label]) for sample in samples]
        for split, samples in dataset.splits.items()
    }
    return write_class_folders(splits, Path(out), pictures)
