"""Folds for cross-validation: as alike in their classes as they can be, images of a group never in two of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hubel.console import count_of
from hubel.data.file_listing import listing
from hubel.data.loader import seed_for
from hubel.data.resplit import iterative_stratification
from hubel.data.samples import UNLABELLED, Sample
from hubel.data.splits import read_splits
from hubel.errors import DataError
from hubel.fileio import write_text

FOLDS_FILE = "folds.json"
_MORE_GROUPS = "add images of other groups (images that look alike are one){}"


@dataclass(frozen=True)
class Folds:
    """Disjoint parts of a data set; each is scored once by a network that was trained on all others.

    Attributes:
        parts: those of a first division, then as many of each further one.
        repeats: number of divisions of the same images.
        together: the number of groups of images that stay together, and the number of images in them.
        notes: what to know of the division, a line each.
    """

    parts: tuple[tuple[Sample, ...], ...]
    repeats: int = 1
    together: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def count(self) -> int:
        """Folds of one division."""
        return len(self.parts) // self.repeats

    @property
    def images(self) -> int:
        """Number of images."""
        return sum(map(len, self.parts[: self.count]))

    def name(self, index: int) -> str:
        """``fold 3``, or ``repetition 2, fold 3`` where there are several."""
        repetition, fold = divmod(index, self.count)
        return f"repetition {repetition + 1}, fold {fold + 1}" if self.repeats > 1 else f"fold {fold + 1}"

    def split(self, index: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        """The images to train on, and those of the fold at ``index``, to score."""
        start = index - index % self.count
        others = [at for at in range(start, start + self.count) if at != index]
        return tuple(sample for at in others for sample in self.parts[at]), self.parts[index]


def make_folds(
    samples: Sequence[Sample], classes: Sequence[str], groups: np.ndarray, count: int, seed: int, repeats: int = 1
) -> Folds:
    """Divide images into folds of nearly the same size and the same shares of every class.

    Images of one class each are divided by scikit-learn's ``StratifiedGroupKFold``, images with several objects by
    iterative stratification (:func:`~hubel.data.resplit.iterative_stratification`). The seed and the paths decide,
    whatever order the images come in.

    Args:
        samples: N images.
        classes: names of their labels.
        groups: (N,), numbers; the images of a group stay together.
        count: number of folds, at least 2.
        seed: determines the folds.
        repeats: number of divisions, each by a seed of its own.

    Raises:
        DataError: there are fewer groups than folds, in all or, of images with one class each, in a class.
    """
    order = sorted(range(len(samples)), key=lambda index: samples[index].path.as_posix())
    samples = [samples[index] for index in order]
    # Numbered by their first image, so that the numbers do not depend on the order either.
    first: dict[int, int] = {}
    group_of = np.array([first.setdefault(int(groups[index]), len(first)) for index in order], int)
    _require_groups(len(samples), len(first), count, "the data set")
    parts: list[tuple[Sample, ...]] = []
    notes: dict[str, None] = {}
    for repetition in range(repeats):
        of_repetition = seed_for(seed, "repetition", repetition) % 2**32 if repetition else seed
        fold_of, found = _divided(samples, classes, group_of, count, of_repetition)
        parts += [tuple(samples[index] for index in np.flatnonzero(fold_of == fold)) for fold in range(count)]
        notes |= dict.fromkeys(found)
    if not all(parts):
        message = f"too many of the {count_of(len(samples), 'image')} are in few groups for {count} folds"
        raise DataError(f"{message}: one would be empty", _MORE_GROUPS.format(", or use fewer folds (--folds)"))
    sizes = Counter(group_of.tolist()).values()
    several = [size for size in sizes if size > 1]
    return Folds(tuple(parts), repeats, (len(several), sum(several)), tuple(notes))


def _divided(
    samples: Sequence[Sample], classes: Sequence[str], group_of: np.ndarray, count: int, seed: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The fold of each image (N,), and notes."""
    if all(sample.label != UNLABELLED for sample in samples):
        return _by_class(samples, classes, group_of, count, seed), ()
    fold_of = _by_objects(samples, len(classes), group_of, count, seed)
    return fold_of, _absent(samples, classes, fold_of, count)


def _require_groups(images: int, different: int, count: int, where: str) -> None:
    """Raise :class:`DataError` unless there is a group for each fold."""
    if different >= count:
        return
    fewer = f", or use --folds {different}" if different > 1 else ""
    if different == images:
        message = f"{where} has {count_of(images, 'image')}, fewer than the {count} folds"
        raise DataError(message, f"add images{fewer}")
    few = f"only {count_of(different, 'group')} of images that stay together, fewer than the {count} folds"
    raise DataError(f"{where} has {count_of(images, 'image')} in {few}", _MORE_GROUPS.format(fewer))


def _by_class(
    samples: Sequence[Sample], classes: Sequence[str], group_of: np.ndarray, count: int, seed: int
) -> np.ndarray:
    """The fold of each image (N,), by its class."""
    from sklearn.model_selection import StratifiedGroupKFold

    labels = np.array([sample.label for sample in samples])
    for label in np.unique(labels).tolist():
        of_class = group_of[labels == label]
        _require_groups(len(of_class), len(np.unique(of_class)), count, f"class {classes[label]}")
    folds = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    fold_of = np.zeros(len(samples), int)
    for fold, (_, held_out) in enumerate(folds.split(labels, labels, group_of)):
        fold_of[held_out] = fold
    return fold_of


def _by_objects(samples: Sequence[Sample], classes: int, group_of: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The fold of each image (N,), by the classes of its objects; images without any are one class more."""
    groups = int(group_of.max()) + 1
    labels = np.zeros((groups, classes + 1), int)
    for sample, group in zip(samples, group_of.tolist(), strict=True):
        labels[group, list(sample.class_ids) or [classes]] += 1
    sizes = np.bincount(group_of, minlength=groups)
    fold_of_group = iterative_stratification(labels, sizes, [1 / count] * count, seed)
    fold_of: np.ndarray = fold_of_group[group_of]
    return fold_of


def _absent(samples: Sequence[Sample], classes: Sequence[str], fold_of: np.ndarray, count: int) -> tuple[str, ...]:
    """A note about classes that are not in every fold."""
    present: list[set[int]] = [set() for _ in range(count)]
    for sample, fold in zip(samples, fold_of.tolist(), strict=True):
        present[fold] |= set(sample.class_ids)
    everywhere = set[int].intersection(*present)
    rare = set[int]().union(*present) - everywhere
    names = listing([classes[label] for label in sorted(rare)])
    return (f"not every fold has {names}: too few images contain it",) if rare else ()


def write_folds(folder: Path, folds: Folds, root: Path) -> None:
    """Write ``folds.json``: the images of each fold, relative to the data set's folder."""
    record = {
        folds.name(index): [sample.path.relative_to(root).as_posix() for sample in part]
        for index, part in enumerate(folds.parts)
    }
    write_text(folder / FOLDS_FILE, json.dumps(record, ensure_ascii=False, indent=1) + "\n")


def read_folds(folder: Path, samples: Sequence[Sample], root: Path) -> Folds:
    """The folds that ``folds.json`` records, of images among ``samples``; images added since are left out.

    Raises:
        DataError: there is no such record, or images of it are missing.
    """
    recorded = list(read_splits(folder / FOLDS_FILE).values())
    times = Counter(name for part in recorded for name in part)
    repeats = max(times.values(), default=1)
    count = len(recorded) // repeats
    divisions = [recorded[at : at + count] for at in range(0, len(recorded), max(1, count))]
    is_whole = all(sorted(name for part in each for name in part) == sorted(times) for each in divisions)
    if count < 2 or count * repeats != len(recorded) or not all(recorded) or not is_whole:
        message = f"{folder / FOLDS_FILE} is damaged: it does not have every image in one of two folds or more"
        raise DataError(message, "start a new search without --resume")
    here = {sample.path.relative_to(root).as_posix(): sample for sample in samples}
    if missing := [name for name in times if name not in here]:
        message = f"{root} lacks images that the search uses: {listing(missing)}"
        raise DataError(message, "restore them, or start a new search without --resume")
    return Folds(tuple(tuple(here[name] for name in names) for names in recorded), repeats)
