"""Split a labelled data set, in any annotation format or as class folders, into train, val and test."""

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
from hubel.data.checks.images import ImageInfo, identical_files, scan_images, similar_pairs
from hubel.data.checks.run import read_any
from hubel.data.file_listing import listing
from hubel.data.samples import ImageDataset, Sample
from hubel.data.splits import HELD_BACK
from hubel.errors import DataError, UsageError

_Image = Sample | AnnotatedImage
_NAMES = ("train", "val", "test")
_LARGE_GROUP = 0.05
"""Fraction of the images in one group of near duplicates from which it is reported."""


def iterative_stratification(
    counts: np.ndarray, sizes: np.ndarray, fractions: Sequence[float], seed: int
) -> np.ndarray:
    """Distribute groups so that each part gets its fraction of every label.

    Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011, "On the Stratification of Multi-Label Data", figure
    1): the rarest label is distributed first, each of its groups to the part that lacks most of it; among equals to the
    part that lacks most images. There a group is a single sample; here it may be several that must stay together, and
    those with most of the label come first, while there is room for them.

    Args:
        counts: (N, K), number of images of each group with each label; every group has some.
        sizes: (N,), number of images in each group.
        fractions: one per part; they sum to 1. A part with 0 gets nothing.
        seed: determines the result, with the order of the groups.

    Returns:
        The part of each group, (N,).
    """
    rng = random.Random(seed)
    order = np.array(rng.sample(range(len(counts)), len(counts)), int)
    wanted = np.outer(fractions, counts.sum(0))
    room = np.array(fractions) * sizes.sum()
    part_of = np.full(len(counts), -1)
    while (part_of < 0).any():
        left = order[part_of[order] < 0]
        remaining = (counts[left] > 0).sum(0)
        label = min(np.flatnonzero(remaining).tolist(), key=lambda label: (remaining[label], label))
        having = left[counts[left, label] > 0]
        for group in having[np.argsort(-counts[having, label], kind="stable")].tolist():
            lacking = [(round(wanted[part, label], 9), round(room[part], 9), -part) for part in range(len(fractions))]
            part = -max(lacking)[2]
            part_of[group] = part
            wanted[part] -= counts[group]
            room[part] -= sizes[group]
    return part_of


def near_duplicate_groups(paths: Sequence[Path], infos: Mapping[Path, ImageInfo]) -> list[list[int]]:
    """Groups of images that are identical or look alike, as indices into ``paths``; most have one member.

    Two images that resemble a third are in one group with it, so a film of slow changes is one group. Unreadable images
    stay alone.
    """
    readable = [index for index, path in enumerate(paths) if not infos[path].message]
    component = np.arange(len(paths))
    edges = [(first, other) for first, *others in identical_files(readable, lambda i: paths[i]) for other in others]
    component = _merge(component, *np.array(edges, int).reshape(-1, 2).T)
    prints = {index: print_ for index in readable if (print_ := infos[paths[index]].fingerprint) is not None}
    indices = np.array(list(prints), int)
    for firsts, seconds, _ in similar_pairs(list(prints.values())):
        component = _merge(component, indices[firsts], indices[seconds])
    groups: dict[int, list[int]] = {}
    for index, group in enumerate(component.tolist()):
        groups.setdefault(group, []).append(index)
    return list(groups.values())


def _merge(component: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Components (N,) after the indices ``one`` have been connected with ``other``."""
    size = len(component)
    graph = coo_array((np.ones(len(one), bool), (component[one], component[other])), (size, size))
    merged: np.ndarray = connected_components(graph, directed=False)[1][component]
    return merged


@dataclass(frozen=True)
class SplitResult:
    """A data set with its new splits, and notes of one line each.

    ``together`` is the number of groups of similar images that were kept together, and the number of images in them.
    """

    dataset: AnnotatedDataset | ImageDataset
    together: tuple[int, int]
    notes: tuple[str, ...]


def split_data(
    path: str | Path,
    format: str | None,
    fractions: SplitFractions,
    seed: int,
    anew: bool,
    progress: Callable[[int, int], None],
) -> SplitResult:
    """Split a data set by the rules of training, keeping similar images in one split.

    An unsplit data set is split by fractions, and so is any if its splits are ignored (``anew``). From one with
    ``train`` but no ``val``, 15 % of ``train`` is held back, and its test set stays as it is. The same seed gives the
    same splits of the same files. ``progress`` is called with the number of images opened and of all.

    Raises:
        DataError: the data set is split already, has too few images, or cannot be read.
    """
    dataset = read_any(path, format)
    old: Mapping[str, Sequence[_Image]] = dataset.splits
    if anew:
        old = {"all": [image for images in old.values() for image in images]}
    parts, pool = _parts(dataset.root, old, fractions)
    paths = [image.path for image in old[pool]]
    groups = near_duplicate_groups(paths, scan_images(paths, progress))
    counts = np.zeros((len(groups), len(dataset.classes) + 2), int)
    for row, group in zip(counts, groups, strict=True):
        for index in group:
            row[_labels(old[pool][index], len(dataset.classes))] += 1
    part_of = iterative_stratification(counts, np.array([len(group) for group in groups]), parts, seed)
    split_of = {paths[index]: _NAMES[part] for group, part in zip(groups, part_of, strict=True) for index in group}
    wanted = [name for name, fraction in zip(_NAMES, parts, strict=True) if fraction]
    if empty := [name for name in wanted if name not in split_of.values()]:
        message = f"{dataset.root} has too few different images: nothing is left for {', '.join(empty)}"
        raise DataError(message, "add images, or use fewer splits: --split 0.8,0.2,0")
    several = [group for group in groups if len(group) > 1]
    notes = [*dataset.warnings, *_large_group(several, paths), *_absent(dataset.classes, counts, part_of, parts)]
    splits: Any = _new_splits(dataset.splits, split_of)
    return SplitResult(replace(dataset, splits=splits), (len(several), sum(map(len, several))), tuple(notes))


def _parts(
    root: Path, splits: Mapping[str, Sequence[object]], fractions: SplitFractions
) -> tuple[tuple[float, ...], str]:
    """Fractions of train, val and test, and the name of the split that is divided."""
    if "all" in splits:
        return tuple(fractions), "all"
    if "val" in splits or "train" not in splits:
        message = f"{root} is already split: {', '.join(splits)}"
        raise DataError(message, "use it as it is, or merge its splits first with --anew")
    return (1 - HELD_BACK, HELD_BACK, 0.0), "train"


def _labels(image: _Image, classes: int) -> list[int]:
    """The classes in an image; labelled as empty and unlabelled are two more."""
    if isinstance(image, Sample):
        return [image.label]
    if image.objects is None:
        return [classes + 1]
    return sorted({obj.label for obj in image.objects}) or [classes]


def _new_splits(old: Mapping[str, Sequence[_Image]], split_of: Mapping[Path, str]) -> dict[str, tuple[_Image, ...]]:
    """The images in their new splits, in their old order."""
    new: dict[str, list[_Image]] = {name: [] for name in _NAMES}
    for split, images in old.items():
        for image in images:
            new[split_of.get(image.path, split)].append(image)
    return {name: tuple(images) for name, images in new.items() if images}


def _large_group(several: Sequence[Sequence[int]], paths: Sequence[Path]) -> list[str]:
    """A note about the largest group, if it is a large one."""
    largest = max(several, key=len, default=())
    if len(largest) < max(3, _LARGE_GROUP * len(paths)):
        return []
    names = listing([paths[index].name for index in largest], 3)
    return [f"{len(largest):,} of {len(paths):,} images look alike and are kept in one split: {names}"]


def _absent(classes: Sequence[str], counts: np.ndarray, part_of: np.ndarray, fractions: Sequence[float]) -> list[str]:
    """Notes about classes that exist, but not in one of the splits."""
    notes = []
    counted = counts.sum(0)
    for part, fraction in enumerate(fractions):
        here = counts[part_of == part].sum(0)
        absent = [name for label, name in enumerate(classes) if counted[label] and not here[label]]
        if fraction and absent:
            notes.append(f"{_NAMES[part]} has no {listing(absent)}: too few images contain it")
    return notes


def write_split(result: SplitResult, out: str | Path, images: ImageMode) -> tuple[str, ...]:
    """Write the data set with its new splits as a new folder, in its own format.

    Images are copied or linked into it, or (unless they are class folders) left out. Returns one line with a count for
    each kind of label that the format cannot hold. Raises :class:`DataError` if ``out`` is not empty, or cannot be
    written.
    """
    dataset = result.dataset
    if isinstance(dataset, AnnotatedDataset):
        return write_annotations(dataset, dataset.format, out, images)
    if images == "none":
        raise UsageError("class folders cannot be written without images", "use --images link")
    splits = {
        split: [(sample.path, dataset.classes[sample.label]) for sample in samples]
        for split, samples in dataset.splits.items()
    }
    return write_class_folders(splits, Path(out), images)
