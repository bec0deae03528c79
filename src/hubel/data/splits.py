"""The split of a data set into training, validation and test samples, and its record in the run folder.

Folders named as splits are used as they are; where any of them exists nothing becomes a test set by itself, and without
``val`` 15 % of ``train`` is held back. An unsplit data set is split by fractions, stratified and seeded.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from hubel.bounded import read_json
from hubel.config import SplitFractions
from hubel.console import count_of
from hubel.data.file_listing import listing
from hubel.data.samples import ImageDataset, Sample
from hubel.data.split_names import SPLIT_NAMES
from hubel.errors import DataError
from hubel.fileio import write_text

HELD_BACK = 0.15
"""Fraction of ``train`` that is held out for validation if there is no ``val`` folder."""

_MAX_BYTES = 1 << 30  # of a record of splits, which names every image


@dataclass(frozen=True)
class Splits:
    """The samples that a training run uses; ``val`` is never empty."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...] = ()
    warnings: tuple[str, ...] = ()

    def by_name(self) -> dict[str, tuple[Sample, ...]]:
        """The splits that have samples, by name."""
        named = {"train": self.train, "val": self.val, "test": self.test}
        return {name: samples for name, samples in named.items() if samples}


def training_splits(data: ImageDataset, fractions: SplitFractions, seed: int) -> Splits:
    """The splits for training on a data set, by the rules above; ``fractions`` count only if it is unsplit.

    Raises :class:`DataError` if it is split, but not into ``train``, or no sample is left to validate on.
    """
    warnings: tuple[str, ...] = ()
    if list(data.splits) == ["all"]:
        train, val, test = stratified_split(data.splits["all"], fractions, seed)
        warnings = _small_classes(data, data.splits["all"])
    elif not data.splits.get("train"):
        message = f"{data.root} has no training images: it has {', '.join(data.splits)}, but no train"
        raise DataError(message, "add a train folder, or pass one of these folders itself")
    else:
        train, val, test = (data.splits.get(name, ()) for name in ("train", "val", "test"))
        if not val:
            warnings = _small_classes(data, train)
            train, val = stratified_split(train, (1.0 - HELD_BACK, HELD_BACK), seed)
    if len(data.splits) > 1 and data.splits.get("all"):
        warnings += (
            f"{data.root}: {count_of(len(data.splits['all']), 'image', 'are')} in no split, beside train: left out.",
        )
    if not val:
        message = f"{data.root} has too few images to hold any out for validation"
        raise DataError(message, "add images (about ten per class to begin with), or put some into a val folder")
    return Splits(train, val, test, warnings)


def stratified_split(
    samples: Iterable[Sample], fractions: Sequence[float], seed: int
) -> tuple[tuple[Sample, ...], ...]:
    """Distribute the samples of each stratum (class) by fractions that sum to 1.

    Each sample goes to the part that is furthest behind its fraction, and remainders carry over to the next class. So
    sizes of the parts are right to one sample, within classes too as far as these can be divided, and many classes of
    few samples still fill every part. The first of each class goes to the first part.

    The seed and the paths alone decide, whatever order the samples come in; a class is shuffled the same whatever the
    other classes hold. Each part is sorted by stratum and path.
    """

    def order(sample: Sample) -> tuple[int, str]:
        return sample.stratum, sample.path.as_posix()

    parts: tuple[list[Sample], ...] = tuple([] for _ in fractions)
    owed = [0.0] * len(fractions)
    for stratum, group in groupby(sorted(samples, key=order), key=lambda sample: sample.stratum):
        shuffled = list(group)
        random.Random(f"{seed}:{stratum}").shuffle(shuffled)
        for index, sample in enumerate(shuffled):
            owed = [debt + share for debt, share in zip(owed, fractions, strict=True)]
            part = 0 if index == 0 else owed.index(max(owed))
            owed[part] -= 1.0
            parts[part].append(sample)
    return tuple(tuple(sorted(part, key=order)) for part in parts)


def _small_classes(data: ImageDataset, samples: Iterable[Sample]) -> tuple[str, ...]:
    counts = Counter(label for sample in samples for label in sample.class_ids)
    few = [name for label, name in enumerate(data.classes) if 0 < counts[label] <= 2]
    message = f"{data.root}: only one or two images of {listing(few)}: too few to validate them"
    return (message,) if few else ()


def to_record(splits: Splits, root: Path) -> dict[str, list[str]]:
    """The files of each split: paths relative to the data set's folder."""
    named = splits.by_name().items()
    return {name: [sample.path.relative_to(root).as_posix() for sample in samples] for name, samples in named}


def write_splits(path: Path, splits: Splits, root: Path) -> None:
    """Write the record of splits as JSON."""
    write_text(path, json.dumps(to_record(splits, root), ensure_ascii=False, indent=1) + "\n")


def read_splits(path: Path) -> dict[str, tuple[str, ...]]:
    """Read a record of :func:`write_splits`: relative paths by split; raises :class:`DataError` if it is not one."""
    try:
        record = read_json(path, _MAX_BYTES)
        for names in record.values():
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise TypeError("its values are not lists of files")
        return {name: tuple(names) for name, names in record.items()}
    except FileNotFoundError as error:
        message = f"{path} does not exist: the run's split is unknown"
        raise DataError(message, "pass a complete run folder") from error
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path} is not a record of splits: {error}", "train again") from error


def recorded_splits(data: ImageDataset, recorded: Mapping[str, Sequence[str]]) -> Splits:
    """The splits of a run on its own data set as recorded, without files added since; missing ones raise an error."""
    here = _by_relative_path(data)
    if missing := [name for names in recorded.values() for name in names if name not in here]:
        message = f"{data.root} lacks images that the run used: {listing(missing)}"
        raise DataError(message, "restore them, train again, or score another data set with --split all")
    parts = {name: tuple(here[path] for path in names) for name, names in recorded.items()}
    return Splits(parts.get("train", ()), parts.get("val", ()), parts.get("test", ()))


def evaluation_samples(
    data: ImageDataset, recorded: Mapping[str, Sequence[str]] | None = None, wanted: str | None = None
) -> tuple[str, tuple[Sample, ...]]:
    """Name and samples of the split to evaluate: ``test``, else ``val``, unless one is asked for by name.

    Args:
        data: its folders count as they are.
        recorded: from the run's record: which part of an unsplit data set, or of a ``train`` folder without ``val``,
            was held back. A record of other data (no file of it is here) is passed over.
        wanted: ``train``, ``val`` (``valid``, ``validation``), ``test``, or ``all`` for everything.

    Raises:
        DataError: the split is not there; the hint names those that are.
    """
    if wanted == "all":
        return "all", tuple(sample for samples in data.splits.values() for sample in samples)
    there = {name: samples for name, samples in data.splits.items() if name != "all" and samples}
    if "val" not in there and recorded and belongs_to(data, recorded):
        ours = recorded_splits(data, recorded).by_name()
        if "all" in data.splits:
            there = ours
        elif "train" in there:
            there |= {name: ours[name] for name in ("train", "val") if name in ours}
    names = [SPLIT_NAMES.get(wanted.casefold(), wanted)] if wanted else ["test", "val"]
    for name in names:
        if name in there:
            return name, there[name]
    ask = " or ".join([*(f"--split {name}" for name in there), "--split all (everything)"])
    raise DataError(f"{data.root} has no {' or '.join(names)} split", f"choose from {ask}")


def belongs_to(data: ImageDataset, recorded: Mapping[str, Sequence[str]]) -> bool:
    """True if any recorded file is in this data set."""
    return not _by_relative_path(data).keys().isdisjoint(name for names in recorded.values() for name in names)


def _by_relative_path(data: ImageDataset) -> dict[str, Sample]:
    return {
        sample.path.relative_to(data.root).as_posix(): sample for samples in data.splits.values() for sample in samples
    }
