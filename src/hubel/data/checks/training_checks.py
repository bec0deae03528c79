"""Checks of a data set before training: class folders, images with labelled objects, images with masks.

Images are opened as :func:`~hubel.data.checks.images.verify_images` does; the loader leaves out, batch by
batch, images that turn out to be unreadable later. Copies are files of identical bytes; re-encoded ones are not found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hubel.data.checks.images import Progress, identical_files, verify_images
from hubel.data.file_listing import listing
from hubel.data.image_folder import read_class_map
from hubel.data.samples import Sample
from hubel.errors import DataError, ImageError

SKEWED = 3.0
"""Ratio of the largest to the smallest class from which on classes are balanced by default."""

_SHOWN = 5


@dataclass(frozen=True)
class DuplicatePair:
    """Two files with the same bytes, and their splits."""

    first: Sample
    first_split: str
    second: Sample
    second_split: str

    def __str__(self) -> str:
        return f"{self.first.path} = {self.second.path}"


@dataclass(frozen=True)
class _TrainingFindings:
    """Findings of any check before training.

    Attributes:
        counts: by split, the images, objects or pixels of each class in usable images.
        unusable: by path of an image, the sentence that names it and says why it cannot be used.
    """

    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    unusable: dict[Path, str]

    def usable(self, samples: Iterable[Sample]) -> tuple[Sample, ...]:
        """The samples without those that cannot be used."""
        return tuple(sample for sample in samples if sample.path not in self.unusable)

    def warnings(self) -> list[str]:
        """Notes for the user, one line each; of the images that are left out the first, and how many more."""
        reasons = list(self.unusable.values())
        lines = [f"{reason} Left out." for reason in reasons[:_SHOWN]]
        if len(reasons) > _SHOWN:
            lines.append(f"{len(reasons) - _SHOWN} more images cannot be read and are left out.")
        return [*lines, *self._notes()]

    def raise_if_unusable(self, strict: bool = False) -> None:
        """Stop if training cannot give anything sensible.

        Raises:
            DataError: nothing in usable images to train on, or to validate on; of class folders also fewer than two
                classes, or the same image in two classes; or, if ``strict``, an image cannot be used.
        """
        if strict and self.unusable:
            reason, more = next(iter(self.unusable.values())), len(self.unusable) - 1
            message = reason + (f" {more} more cannot be read either." if more else "")
            raise DataError(message, "Repair or remove the images, or run without --strict.")
        self._refuse()

    def _notes(self) -> list[str]:
        raise NotImplementedError

    def _refuse(self) -> None:
        raise NotImplementedError

    def _classes_with(self, count: int, split: str) -> list[str]:
        """Classes with that count in a split; none if there is no such split."""
        return [name for name, each in zip(self.classes, self.counts.get(split, ()), strict=False) if each == count]

    def _absent(self, split: str) -> list[str]:
        """Classes that a split lacks, unless it lacks all."""
        return self._classes_with(0, split) if any(self.counts.get(split, ())) else []


@dataclass(frozen=True)
class Findings(_TrainingFindings):
    """Findings in class folders.

    Attributes:
        contradictions: the same image in two classes.
        leaks: the same image, in one class, in two splits.
    """

    contradictions: tuple[DuplicatePair, ...]
    leaks: tuple[DuplicatePair, ...]

    @property
    def skew(self) -> float:
        """Images of the largest training class over those of the smallest that has any."""
        present = [count for count in self.counts.get("train", ()) if count]
        return max(present) / min(present) if present else 1.0

    def _notes(self) -> list[str]:
        lines = []
        if self.leaks:
            lines.append(f"the same image in two splits makes scores look better than they are: {_pairs(self.leaks)}.")
        if single := self._classes_with(1, "train"):
            lines.append(f"one training image only of {listing(single)}: too few to learn from.")
        if unseen := self._absent("val"):
            lines.append(f"no validation image of {listing(unseen)}: they are not validated.")
        if self.skew >= SKEWED:
            train = self.counts["train"]
            most, least = max(train), min(count for count in train if count)
            lines.append(
                f"classes are skewed: {most} training images of {self.classes[train.index(most)]}, "
                f"{least} of {self.classes[train.index(least)]}."
            )
        return lines

    def _refuse(self) -> None:
        if len(self.classes) < 2:
            message = f"there is one class only ({listing(self.classes)}): at least two are needed."
            raise DataError(message, "Name the folder that holds the class folders, or add a class.")
        if untrained := self._classes_with(0, "train"):
            message = f"no readable training image of {listing(untrained)}."
            raise DataError(message, "Add images to the class in the training data, or remove its folders.")
        if "val" in self.counts and not any(self.counts["val"]):
            raise DataError("no validation image is readable.", "Replace the images of the val split.")
        if self.contradictions:
            message = f"the same image is in two classes: {_pairs(self.contradictions)}."
            raise DataError(message, "Keep each image in the class that it belongs to and delete the other copy.")


@dataclass(frozen=True)
class ObjectFindings(_TrainingFindings):
    """Findings in images with labelled objects.

    Attributes:
        sizes: real width and height of the readable images.
        resized: images of another size than their label files say.
        leaks: the same image in two splits.
    """

    sizes: dict[Path, tuple[int, int]]
    resized: tuple[Path, ...]
    leaks: tuple[DuplicatePair, ...]

    def usable(self, samples: Iterable[Sample]) -> tuple[Sample, ...]:
        """The samples whose images can be read, with boxes in pixels of the images as they are."""
        readable = [(sample, self.sizes[sample.path]) for sample in samples if sample.path in self.sizes]
        return tuple(
            sample if size == (sample.width, sample.height) else sample.rescale(*size) for sample, size in readable
        )

    def _notes(self) -> list[str]:
        lines = []
        if self.resized:
            lines.append(
                f"{len(self.resized)} images have another size than their label files say, the first is "
                f"{self.resized[0]}: their boxes are scaled to it. hubel data check tells whether that is right."
            )
        if self.leaks:
            pairs = listing(list(map(str, self.leaks)))
            lines.append(f"the same image in two splits makes scores look better than they are: {pairs}.")
        for split, verb in (("train", "learns"), ("val", "validates")):
            if absent := self._absent(split):
                lines.append(f"nothing {verb} {listing(absent)}: no object in the {split} images.")
        return lines

    def _refuse(self) -> None:
        for split, verb in (("train", "train on"), ("val", "validate on")):
            if split in self.counts and not any(self.counts[split]):
                raise DataError(f"there is no object in a readable image to {verb}.", f"Label some for {split}.")


@dataclass(frozen=True)
class MaskFindings(_TrainingFindings):
    """Findings in images with masks; ``counts`` are of pixels."""

    def _notes(self) -> list[str]:
        absent = {split: self._absent(split) for split in self.counts}
        return [f"no pixel of {', '.join(names)} in the {split} masks." for split, names in absent.items() if names]

    def _refuse(self) -> None:
        for split in ("train", "val"):
            if split in self.counts and not any(self.counts[split]):
                raise DataError(f"no {split} image has a mask with labelled pixels.", "Label some.")


def check_class_folders(
    splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: Progress | None = None
) -> Findings:
    """Open every image and compare them; raises nothing for findings."""
    readable, _, unreadable = _open(splits, progress)
    counts = _count(splits, classes, ((split, np.array([sample.label])) for split, sample in readable))
    return Findings(tuple(classes), counts, unreadable, *_duplicates(readable))


def check_object_set(
    splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: Progress | None = None
) -> ObjectFindings:
    """Open every image and compare it with its labels; raises nothing for findings."""
    readable, sizes, unreadable = _open(splits, progress)
    counts = _count(splits, classes, ((split, sample.labels) for split, sample in readable))
    resized = [sample.path for _, sample in readable if sizes[sample.path] != (sample.width, sample.height)]
    _, leaks = _duplicates(readable)
    return ObjectFindings(tuple(classes), counts, unreadable, sizes, tuple(resized), leaks)


def check_masks(
    splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: Progress | None = None
) -> MaskFindings:
    """Open every image and its mask; raises nothing for findings."""
    readable, _, unusable = _open(splits, progress)

    def class_maps() -> Iterator[tuple[str, np.ndarray]]:
        for split, sample in readable:
            assert sample.class_map is not None
            try:
                class_map = read_class_map(sample.class_map)
            except ImageError as error:
                unusable[sample.path] = error.message
                continue
            if class_map.shape == (sample.height, sample.width):
                yield split, class_map.ravel()
            else:
                size = f"{class_map.shape[1]} × {class_map.shape[0]}"
                unusable[sample.path] = f"{sample.class_map} is {size}, its image {sample.width} × {sample.height}."

    return MaskFindings(tuple(classes), _count(splits, classes, class_maps()), unusable)


def _open(
    splits: Mapping[str, Sequence[Sample]], progress: Progress | None
) -> tuple[list[tuple[str, Sample]], dict[Path, tuple[int, int]], dict[Path, str]]:
    """The readable samples with their splits; the sizes of their images; why the other images cannot be read."""
    placed = [(split, sample) for split, samples in splits.items() for sample in samples]
    found = verify_images([sample.path for _, sample in placed], progress)
    sizes = {path: size for path, size in found.items() if not isinstance(size, str)}
    unreadable = {path: reason for path, reason in found.items() if isinstance(reason, str)}
    return [(split, sample) for split, sample in placed if sample.path in sizes], sizes, unreadable


def _count(
    splits: Iterable[str], classes: Sequence[str], labels: Iterable[tuple[str, np.ndarray]]
) -> dict[str, tuple[int, ...]]:
    """Number of labels of each class by split; indices that are no class, such as a mask's 255, are left out."""
    counts = {split: np.zeros(len(classes), np.int64) for split in splits}
    for split, values in labels:
        counts[split] += np.bincount(values, minlength=len(classes))[: len(classes)]
    return {split: tuple(numbers.tolist()) for split, numbers in counts.items()}


def _duplicates(placed: Iterable[tuple[str, Sample]]) -> tuple[tuple[DuplicatePair, ...], tuple[DuplicatePair, ...]]:
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
    shown = "; ".join(map(str, same[:_SHOWN]))
    return shown + (f" and {len(same) - _SHOWN} more pairs" if len(same) > _SHOWN else "")
