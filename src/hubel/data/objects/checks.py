"""What is wrong with a data set of labelled objects, found before the first epoch.

Only what would spoil a training; ``hubel data check`` looks closer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hubel.data.identical_files import identical
from hubel.data.image_folder import listing
from hubel.data.readability import left_out, refuse_unreadable, try_pictures
from hubel.data.samples import ObjectSample
from hubel.errors import DataError


@dataclass(frozen=True)
class ObjectFindings:
    """What a check of labelled objects found.

    Attributes:
        classes: the names that labels count.
        counts: by split, the objects of each class in readable pictures.
        sizes: of the readable pictures, by path: width and height as they really are.
        unreadable: by path, the sentence that names a picture and says why it cannot be read.
        resized: pictures of another size than their label files say.
        leaks: the same bytes in two splits.
    """

    classes: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]
    sizes: dict[Path, tuple[int, int]]
    unreadable: dict[Path, str]
    resized: tuple[Path, ...]
    leaks: tuple[tuple[Path, Path], ...]

    def usable(self, samples: Iterable[ObjectSample]) -> tuple[ObjectSample, ...]:
        """The samples whose pictures can be read, with boxes in pixels of the pictures as they are."""
        kept = []
        for sample in samples:
            size = self.sizes.get(sample.path)
            if size is not None:
                kept.append(sample if size == (sample.width, sample.height) else sample.sized(*size))
        return tuple(kept)

    def warnings(self) -> list[str]:
        """What a person should know before training, one line each; empty if all is well."""
        lines = left_out(list(self.unreadable.values()))
        if self.resized:
            lines.append(
                f"{len(self.resized)} pictures have another size than their label files say, the first is "
                f"{self.resized[0]}: their boxes are scaled to it. hubel data check tells whether that is right."
            )
        if self.leaks:
            pairs = listing([f"{one} = {other}" for one, other in self.leaks])
            lines.append(f"the same picture in two splits makes scores look better than they are: {pairs}.")
        for split, what in (("train", "learns"), ("val", "validates")):
            counts = self.counts.get(split, ())
            absent = [name for name, count in zip(self.classes, counts, strict=False) if not count]
            if any(counts) and absent:
                lines.append(f"nothing {what} {listing(absent)}: no object in the {split} pictures.")
        return lines

    def raise_if_unusable(self, strict: bool = False) -> None:
        """Stop where training could not give anything sensible.

        Args:
            strict: unreadable pictures stop too, instead of being left out.

        Raises:
            DataError: no object in a readable picture to train on, or to validate on; or, if ``strict``, a picture
                cannot be read.
        """
        if strict:
            refuse_unreadable(list(self.unreadable.values()))
        for split, verb in (("train", "train on"), ("val", "validate on")):
            if split in self.counts and not any(self.counts[split]):
                raise DataError(f"there is no object in a readable picture to {verb}.", f"Label some for {split}.")


def check_object_set(
    splits: Mapping[str, Sequence[ObjectSample]],
    classes: Sequence[str],
    progress: Callable[[int, int], None] | None = None,
    threads: int | None = None,
) -> ObjectFindings:
    """Open every picture and compare it with its labels; nothing is raised for what is found.

    Args:
        splits: samples by the name of their split.
        classes: the names that labels count.
        progress: called now and then with the number of pictures opened and of all.
        threads: that decode; the number of cores, at most 8, by default.
    """
    placed = [(split, sample) for split, samples in splits.items() for sample in samples]
    tried = try_pictures([sample.path for _, sample in placed], progress, threads)
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


def _leaks(placed: Sequence[tuple[str, ObjectSample]]) -> list[tuple[Path, Path]]:
    leaks = []
    for group in identical(placed, lambda each: each[1].path):
        first_of: dict[str, Path] = {}
        for split, sample in group:
            first_of.setdefault(split, sample.path)
        (first, *others) = first_of.values()
        leaks += [(first, other) for other in others]
    return leaks
