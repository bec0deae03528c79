"""Checks of a data set before training: class folders, images with labelled objects, images with masks.

Images are opened as :func:`~hubel.data.checks.images.verify_images` does; the loader leaves out, batch by
batch, images that turn out to be unreadable later. Copies are files of identical bytes; re-encoded ones are not found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hubel.console import count_of
from hubel.data.checks.findings import Finding
from hubel.data.checks.images import Progress, copy_finding, identical_files, verify_images
from hubel.data.class_maps import size_fault
from hubel.data.file_listing import listing
from hubel.data.samples import IGNORE_INDEX, Sample
from hubel.errors import DataError, ImageError

SKEWED = 3.0
"""Ratio of the largest to the smallest class from which on classes are balanced by default."""

_SHOWN = 5


@dataclass(frozen=True)
class Findings:
    """Findings of a check before training.

    Attributes:
        counts: by split, the images, objects or pixels of each class in usable images.
        unusable: by path of an image, the sentence that names it and says why it cannot be used.
        notes: for the user, one line each, beside those on unusable images.
        refusal: message and hint, if training cannot give anything sensible.
        sizes: real width and height of images with objects, to which their boxes are scaled.
        contradictions: the same image in two classes.
        leaks: the same image in two splits.
    """

    counts: dict[str, tuple[int, ...]]
    unusable: dict[Path, str]
    notes: Sequence[str]
    refusal: tuple[str, str] | None
    sizes: Mapping[Path, tuple[int, int]] = field(default_factory=dict)
    contradictions: tuple[Finding, ...] = ()
    leaks: tuple[Finding, ...] = ()

    def usable(self, samples: Iterable[Sample]) -> tuple[Sample, ...]:
        """The samples that can be used, with boxes in pixels of the images as they are."""
        usable = [sample for sample in samples if sample.path not in self.unusable]
        sizes = [self.sizes.get(sample.path, (sample.width, sample.height)) for sample in usable]
        return tuple(
            sample if size == (sample.width, sample.height) else sample.rescale(*size)
            for sample, size in zip(usable, sizes, strict=True)
        )

    def warnings(self) -> list[str]:
        """Notes for the user, one line each; of the images that are left out the first, and how many more."""
        reasons = list(self.unusable.values())
        lines = [f"{reason}: left out" for reason in reasons[:_SHOWN]]
        if len(reasons) > _SHOWN:
            lines.append(f"{len(reasons) - _SHOWN} more images cannot be read and are left out")
        return [*lines, *self.notes]

    def raise_if_unusable(self, strict: bool = False) -> None:
        """Stop if training cannot give anything sensible.

        Raises:
            DataError: nothing in usable images to train on, or to validate on; of class folders also fewer than two
                classes, or the same image in two classes; or, if ``strict``, an image cannot be used.
        """
        if strict and self.unusable:
            reason, more = next(iter(self.unusable.values())), len(self.unusable) - 1
            message = reason + (f", and {more} more cannot be read either" if more else "")
            raise DataError(message, "repair or remove the images, or run without --strict")
        if self.refusal:
            raise DataError(*self.refusal)


def check_class_folders(
    splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: Progress | None = None
) -> Findings:
    """Open every image and compare them; raises nothing for findings."""
    readable, _, unreadable = _open(splits, progress)
    counts = _count(splits, classes, ((split, np.array([sample.label])) for split, sample in readable))
    contradictions, leaks = _duplicates(readable, classes)
    train = counts.get("train", ())
    notes = []
    if leaks:
        notes.append(f"the same image in two splits makes the scores too optimistic: {_pairs(leaks)}")
    if single := [name for name, count in zip(classes, train, strict=False) if count == 1]:
        notes.append(f"only one training image of {listing(single)}: too few to learn from")
    if unseen := _absent(classes, counts.get("val", ())):
        notes.append(f"no validation image of {listing(unseen)}: they are not validated")
    if skew(train) >= SKEWED:
        most, least = max(train), min(count for count in train if count)
        notes.append(
            f"classes are imbalanced: {most} training images of {classes[train.index(most)]}, "
            f"{least} of {classes[train.index(least)]}"
        )
    refusal = None
    if len(classes) < 2:
        message = f"there is only one class ({listing(classes)}): at least two are required"
        refusal = message, "pass the folder that contains the class folders, or add a class"
    elif untrained := [name for name, count in zip(classes, train, strict=False) if not count]:
        message = f"no readable training image of {listing(untrained)}"
        refusal = message, "add images to the class in the training data, or remove its folders"
    elif "val" in counts and not any(counts["val"]):
        refusal = "no validation image is readable", "replace the images of the val split"
    elif contradictions:
        message = f"the same image is in two classes: {_pairs(contradictions)}"
        refusal = message, "keep each image in the class it belongs to and delete the other copy"
    return Findings(counts, unreadable, notes, refusal, contradictions=contradictions, leaks=leaks)


def check_object_set(
    splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: Progress | None = None
) -> Findings:
    """Open every image and compare it with its labels; raises nothing for findings."""
    readable, sizes, unreadable = _open(splits, progress)
    counts = _count(splits, classes, ((split, sample.labels) for split, sample in readable))
    resized = [sample.path for _, sample in readable if sizes[sample.path] != (sample.width, sample.height)]
    _, leaks = _duplicates(readable, classes)
    notes = []
    if resized:
        notes.append(
            f"{count_of(len(resized), 'image', 'have')} another size than the label file states, the first is "
            f"{resized[0]}: boxes are scaled to the image; hubel data check shows them"
        )
    if leaks:
        pairs = listing(list(map(_names, leaks)))
        notes.append(f"the same image in two splits makes the scores too optimistic: {pairs}")
    refusals = []
    for split, use in (("train", "train on"), ("val", "validate on")):
        if split in counts and not any(counts[split]):
            refusals.append((f"no readable image contains an object to {use}", f"label some for {split}"))
        elif absent := _absent(classes, counts.get(split, ())):
            notes.append(f"no {split} image contains an object of {listing(absent)}")
    return Findings(counts, unreadable, notes, next(iter(refusals), None), sizes, leaks=leaks)


def check_masks(
    splits: Mapping[str, Sequence[Sample]], classes: Sequence[str], progress: Progress | None = None
) -> Findings:
    """Open every image and its mask, whose pixels are counted; raises nothing for findings."""
    readable, sizes, unusable = _open(splits, progress)
    unknown: Counter[int] = Counter()  # masks by a value that is not a class, and that the data set does not name

    def class_maps() -> Iterator[tuple[str, np.ndarray]]:
        for split, sample in readable:
            assert sample.class_map is not None
            try:
                class_map = sample.class_map.read()
            except ImageError as error:
                unusable[sample.path] = error.message
                continue
            if message := size_fault(sample, class_map.shape, sizes[sample.path]):
                unusable[sample.path] = message
                continue
            values = np.unique(class_map).tolist()
            if values[0] >= len(classes):
                unusable[sample.path] = f"{sample.class_map} has no labelled pixel"
                continue
            named = {IGNORE_INDEX} if sample.class_map.names_ignored else set()
            unknown.update(value for value in values if value >= len(classes) and value not in named)
            yield split, class_map.ravel()

    counts = _count(splits, classes, class_maps())
    absent = {split: _absent(classes, numbers) for split, numbers in counts.items()}
    notes = [f"no pixel of {', '.join(names)} in the {split} masks" for split, names in absent.items() if names]
    bare = next((split for split in ("train", "val") if split in counts and not any(counts[split])), None)
    if unknown:
        counts_of = [f"{value} (in {count_of(unknown[value], 'mask')})" for value in sorted(unknown)]
        notes.append(f"masks have pixels of {listing(counts_of)}, which are not classes: these pixels do not count")
    refusal = (f"no {bare} image has a mask with labelled pixels", "label some") if bare else None
    if refusal is None and len(classes) < 2:
        message = f"there is only one class ({listing(classes)}): at least two are required"
        refusal = message, "name the background as a class, too"
    if refusal is None and len(classes) > 1 and len(absent.get("train", ())) == len(classes) - 1:
        (only,) = set(classes) - set(absent["train"])
        message = f"all labelled pixels of the train masks are of one class, {only}"
        hint = "255 marks pixels that do not count: where it stands for a class, write the class's index instead"
        refusal = message, hint
    return Findings(counts, unusable, notes, refusal)


def skew(counts: Iterable[int]) -> float:
    """The largest count over the smallest that is not zero; 1 if all are."""
    present = [count for count in counts if count]
    return max(present) / min(present) if present else 1.0


def _absent(classes: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Classes that a split lacks, unless it lacks all."""
    return [name for name, count in zip(classes, counts, strict=True) if not count] if any(counts) else []


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
    """Number of labels of each class by split; indices that are not classes, such as a mask's 255, are left out."""
    counts = {split: np.zeros(len(classes), np.int64) for split in splits}
    for split, values in labels:
        counts[split] += np.bincount(values, minlength=len(classes))[: len(classes)]
    return {split: tuple(numbers.tolist()) for split, numbers in counts.items()}


def _duplicates(
    placed: Iterable[tuple[str, Sample]], classes: Sequence[str]
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Copies across classes, and copies in one class across splits; one pair per group."""
    contradictions: list[Finding] = []
    leaks: list[Finding] = []
    for group in identical_files(placed, lambda each: each[1].path):
        # A placeholder that a thousand downloads share would make half a million pairs.
        first_of: dict[int, dict[str, Path]] = defaultdict(dict)
        for split, sample in group:
            first_of[sample.label].setdefault(split, sample.path)
        (label, split, path), *others = [(label, *next(iter(found.items()))) for label, found in first_of.items()]
        for other_label, other_split, other in others:
            message = f"{classes[label]} and {classes[other_label]}: the same bytes"
            found = Finding("same-contradiction", message, split, path, other=other, other_split=other_split)
            contradictions.append(found)
        for first, *copies in (found.items() for found in first_of.values()):
            leaks += [copy_finding("same", first, copy, "the same bytes") for copy in copies]
    return tuple(contradictions), tuple(leaks)


def _names(copy: Finding) -> str:
    return f"{copy.image} = {copy.other}"


def _pairs(copies: Sequence[Finding]) -> str:
    more = f" and {len(copies) - _SHOWN} more pairs" if len(copies) > _SHOWN else ""
    return "; ".join(map(_names, copies[:_SHOWN])) + more
