"""Checks of a data set before training: class folders, and images with labelled objects.

Images are opened as :func:`~hubel.data.checks.image_scan.verify_images` does; the loader leaves out, batch by
batch, images that turn out to be unreadable later. Copies are files of identical bytes; re-encoded ones are not found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubel.data.checks.duplicates import identical_files
from hubel.data.checks.image_scan import left_out, refuse_unreadable, verify_images
from hubel.data.file_listing import listing
from hubel.data.samples import Sample
from hubel.errors import DataError

SKEWED = 3.0
"""Ratio of the largest to the smallest class from which on classes are balanced by default."""

_SHOWN = 5


@dataclass(frozen=True)
class Unreadable:
    """An image that cannot be read; ``reason`` is a sentence that names it."""

    split: str
    sample: Sample
    reason: str


@dataclass(frozen=True)
class DuplicatePair:
    """Two files with the same bytes, and their splits."""

    first: Sample
    first_split: str
    second: Sample
    second_split: str


@dataclass(frozen=True)
class Findings:
    """Findings in class folders.

    Attributes:
        classes: names.
        counts: by split, the number of readable images of each class.
        unreadable: in the order of the samples.
        contradictions: the same image in two classes.
        leaks: the same image, in one class, in two splits.
    """

    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    unreadable: tuple[Unreadable, ...]
    contradictions: tuple[DuplicatePair, ...]
    leaks: tuple[DuplicatePair, ...]

    @property
    def skew(self) -> float:
        """Images of the largest training class over those of the smallest that has any."""
        there = [count for count in self.counts.get("train", ()) if count]
        return max(there) / min(there) if there else 1.0

    def usable(self, samples: Iterable[Sample]) -> tuple[Sample, ...]:
        """The samples without those that cannot be read."""
        bad = {found.sample.path for found in self.unreadable}
        return tuple(sample for sample in samples if sample.path not in bad)

    def warnings(self) -> list[str]:
        """Notes for the user, one line each."""
        lines = left_out([found.reason for found in self.unreadable])
        if self.leaks:
            pairs = _pairs(self.leaks)
            lines.append(f"the same image in two splits makes scores look better than they are: {pairs}.")
        train = self.counts.get("train", ())
        if single := self._classes_where(train, lambda count: count == 1):
            lines.append(f"one training image only of {listing(single)}: too few to learn from.")
        unseen = self._classes_where(self.counts.get("val", ()), lambda count: count == 0)
        if any(self.counts.get("val", ())) and unseen:
            lines.append(f"no validation image of {listing(unseen)}: they are not validated.")
        if self.skew >= SKEWED:
            most, least = max(train), min(count for count in train if count)
            lines.append(
                f"classes are skewed: {most} training images of {self.classes[train.index(most)]}, "
                f"{least} of {self.classes[train.index(least)]}."
            )
        return lines

    def raise_if_unusable(self, strict: bool = False) -> None:
        """Stop if training cannot give anything sensible.

        Args:
            strict: unreadable images stop too, instead of being left out.

        Raises:
            DataError: fewer than two classes, a class without readable training images, no readable
                validation image, the same image in two classes, or, if ``strict``, an unreadable one.
        """
        if strict:
            refuse_unreadable([found.reason for found in self.unreadable])
        if len(self.classes) < 2:
            message = f"there is one class only ({listing(self.classes)}): at least two are needed."
            raise DataError(message, "Name the folder that holds the class folders, or add a class.")
        if untrained := self._classes_where(self.counts.get("train", ()), lambda count: count == 0):
            message = f"no readable training image of {listing(untrained)}."
            raise DataError(message, "Add images to the class in the training data, or remove its folders.")
        if "val" in self.counts and not any(self.counts["val"]):
            raise DataError("no validation image is readable.", "Replace the images of the val split.")
        if self.contradictions:
            message = f"the same image is in two classes: {_pairs(self.contradictions)}."
            raise DataError(message, "Keep each image in the class that it belongs to and delete the other copy.")

    def _classes_where(self, counts: Sequence[int], wanted: Callable[[int], bool]) -> list[str]:
        return [name for name, count in zip(self.classes, counts, strict=False) if wanted(count)]


def check_class_folders(
    splits: Mapping[str, Sequence[Sample]],
    classes: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> Findings:
    """Open every image and compare them; raises nothing for findings.

    Args:
        splits: samples by the name of their split.
        classes: names.
        progress: called now and then with the number of images opened and of all.
        threads: that decode; the number of cores, at most 8, by default.
    """
    placed = [(split, sample) for split, samples in splits.items() for sample in samples]
    tried = verify_images([sample.path for _, sample in placed], progress, threads)
    reasons = {path: found for path, found in tried.items() if isinstance(found, str)}
    unreadable = tuple(
        Unreadable(split, sample, reasons[sample.path]) for split, sample in placed if sample.path in reasons
    )
    good = [(split, sample) for split, sample in placed if sample.path not in reasons]
    counts = {split: [0] * len(classes) for split in splits}
    for split, sample in good:
        counts[split][sample.label] += 1
    contradictions, leaks = _duplicates(good)
    return Findings(
        tuple(classes),
        {split: tuple(numbers) for split, numbers in counts.items()},
        unreadable,
        contradictions,
        leaks,
    )


def _duplicates(
    placed: Iterable[tuple[str, Sample]],
) -> tuple[tuple[DuplicatePair, ...], tuple[DuplicatePair, ...]]:
    """Copies across classes, and copies in one class across splits; one pair per group."""
    contradictions, leaks = [], []
    for group in identical_files(placed, lambda each: each[1].path):
        # A placeholder that a thousand downloads share would make half a million pairs.
        first_of: dict[int, dict[str, Sample]] = defaultdict(dict)
        for split, sample in group:
            first_of[sample.label].setdefault(split, sample)
        (split, sample), *others = [next(iter(found.items())) for found in first_of.values()]
        contradictions += [DuplicatePair(sample, split, other, where) for where, other in others]
        for found in first_of.values():
            (split, sample), *others = found.items()
            leaks += [DuplicatePair(sample, split, other, where) for where, other in others]
    return tuple(contradictions), tuple(leaks)


def _pairs(same: Sequence[DuplicatePair]) -> str:
    shown = "; ".join(f"{pair.first.path} = {pair.second.path}" for pair in same[:_SHOWN])
    return shown + (f" and {len(same) - _SHOWN} more pairs" if len(same) > _SHOWN else "")


@dataclass(frozen=True)
class ObjectFindings:
    """Findings in images with labelled objects.

    Attributes:
        classes: names.
        counts: by split, the objects of each class in readable images.
        sizes: of the readable images, by path: real width and height.
        unreadable: by path, the sentence that names an image and says why it cannot be read.
        resized: images of another size than their label files say.
        leaks: the same bytes in two splits.
    """

    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    sizes: dict[Path, tuple[int, int]]
    unreadable: dict[Path, str]
    resized: tuple[Path, ...]
    leaks: tuple[tuple[Path, Path], ...]

    def usable(self, samples: Iterable[Sample]) -> tuple[Sample, ...]:
        """The samples whose images can be read, with boxes in pixels of the images as they are."""
        kept = []
        for sample in samples:
            size = self.sizes.get(sample.path)
            if size is not None:
                kept.append(sample if size == (sample.width, sample.height) else sample.rescale(*size))
        return tuple(kept)

    def warnings(self) -> list[str]:
        """Notes for the user, one line each."""
        lines = left_out(list(self.unreadable.values()))
        if self.resized:
            lines.append(
                f"{len(self.resized)} images have another size than their label files say, the first is "
                f"{self.resized[0]}: their boxes are scaled to it. hubel data check tells whether that is right."
            )
        if self.leaks:
            pairs = listing([f"{one} = {other}" for one, other in self.leaks])
            lines.append(f"the same image in two splits makes scores look better than they are: {pairs}.")
        for split, what in (("train", "learns"), ("val", "validates")):
            counts = self.counts.get(split, ())
            absent = [name for name, count in zip(self.classes, counts, strict=False) if not count]
            if any(counts) and absent:
                lines.append(f"nothing {what} {listing(absent)}: no object in the {split} images.")
        return lines

    def raise_if_unusable(self, strict: bool = False) -> None:
        """Stop if training cannot give anything sensible.

        Args:
            strict: unreadable images stop too, instead of being left out.

        Raises:
            DataError: no object in a readable image to train on, or to validate on; or, if ``strict``, an image
                cannot be read.
        """
        if strict:
            refuse_unreadable(list(self.unreadable.values()))
        for split, verb in (("train", "train on"), ("val", "validate on")):
            if split in self.counts and not any(self.counts[split]):
                raise DataError(f"there is no object in a readable image to {verb}.", f"Label some for {split}.")


def check_object_set(
    splits: Mapping[str, Sequence[Sample]],
    classes: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> ObjectFindings:
    """Open every image and compare it with its labels; raises nothing for findings.

    Args:
        splits: samples by the name of their split.
        classes: names.
        progress: called now and then with the number of images opened and of all.
        threads: that decode; the number of cores, at most 8, by default.
    """
    placed = [(split, sample) for split, samples in splits.items() for sample in samples]
    tried = verify_images([sample.path for _, sample in placed], progress, threads)
    sizes = {path: found for path, found in tried.items() if not isinstance(found, str)}
    good = [(split, sample) for split, sample in placed if sample.path in sizes]
    counts = {split: [0] * len(classes) for split in splits}
    for split, sample in good:
        for label in sample.labels.tolist():
            counts[split][label] += 1
    resized = [sample.path for _, sample in good if sizes[sample.path] != (sample.width, sample.height)]
    return ObjectFindings(
        tuple(classes),
        {split: tuple(numbers) for split, numbers in counts.items()},
        sizes,
        {path: found for path, found in tried.items() if isinstance(found, str)},
        tuple(resized),
        tuple(_leaks(good)),
    )


def _leaks(placed: Sequence[tuple[str, Sample]]) -> list[tuple[Path, Path]]:
    leaks = []
    for group in identical_files(placed, lambda each: each[1].path):
        first_of: dict[str, Path] = {}
        for split, sample in group:
            first_of.setdefault(split, sample.path)
        (first, *others) = first_of.values()
        leaks += [(first, other) for other in others]
    return leaks
