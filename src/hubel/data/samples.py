"""Data sets of pictures with labelled boxes, ready to be split, trained on and scored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, read_annotations
from hubel.data.annotations.records import Annotation, Box
from hubel.data.annotations.rle import covered
from hubel.data.image_folder import listing
from hubel.data.image_io import read_size
from hubel.errors import DataError, ImageError

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND = -1
"""The stratum of pictures without objects."""

_SHOWN = 5


@dataclass(frozen=True, eq=False)
class ObjectSample:
    """One picture with the objects in it; there may be none.

    Attributes:
        path: the picture's file.
        width: of the upright picture in pixels; 0 where neither a label file nor the picture tells.
        height: likewise.
        boxes: float32 (M, 4), x1, y1, x2, y2 in pixels of the upright picture, inside it, of positive width and height.
        labels: int64 (M,), classes from 0.
        crowd: bool (M,): a group of objects, or one to be ignored; finding it is neither right nor wrong, and it does
            not train.
        difficult: bool (M,): hard to recognize, by the annotator's word. It trains; Pascal VOC's scores pass over it.
        areas: float32 (M,), pixels that each covers: as its file says, else of its mask, outline or box.
        stratum: the class, of those in the picture, that fewest pictures of the data set show; or :data:`BACKGROUND`.
    """

    path: Path
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    difficult: np.ndarray
    areas: np.ndarray
    stratum: int = BACKGROUND

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shown(self) -> tuple[int, ...]:
        """The classes in the picture, each once."""
        return tuple(np.unique(self.labels).tolist())

    def only(self, chosen: np.ndarray) -> ObjectSample:
        """The same picture with some of its objects: indices or bools (M,)."""
        names = ("boxes", "labels", "crowd", "difficult", "areas")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    def sized(self, width: int, height: int) -> ObjectSample:
        """The same objects in a picture that is really of this size: boxes are scaled."""
        x, y = width / self.width, height / self.height
        boxes = self.boxes * np.array([x, y, x, y], np.float32)
        return replace(self, width=width, height=height, boxes=boxes, areas=self.areas * np.float32(x * y))


@dataclass(frozen=True)
class ObjectSet:
    """A data set of labelled objects as it lies on disk.

    Attributes:
        root: its folder; all pictures are below it.
        classes: their names; labels are positions in it.
        splits: the samples of ``"train"``, ``"val"``, ``"test"``, those that there are, or of ``"all"``.
        warnings: what a person should know, one line each: what the reader guessed, what was left out.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[ObjectSample, ...]]
    warnings: tuple[str, ...] = ()

    def labelled_by(self, classes: Sequence[str]) -> ObjectSet:
        """The same samples with labels that count in a model's list of classes.

        Raises:
            DataError: a class of which there are objects is not in the list.
        """
        index = {name: place for place, name in enumerate(classes)}
        used = {label for samples in self.splits.values() for sample in samples for label in sample.shown}
        if unknown := [self.classes[label] for label in sorted(used) if self.classes[label] not in index]:
            message = f"{self.root} has objects of classes that the model does not know: {listing(unknown)}."
            raise DataError(message, f"The model knows {listing(list(classes))}; rename or remove them.")
        new = np.array([index.get(name, BACKGROUND) for name in self.classes], np.int64)

        def relabelled(sample: ObjectSample) -> ObjectSample:
            stratum = int(new[sample.stratum]) if len(sample) else BACKGROUND
            return replace(sample, labels=new[sample.labels], stratum=stratum)

        splits = {split: tuple(map(relabelled, samples)) for split, samples in self.splits.items()}
        return replace(self, classes=tuple(classes), splits=splits)

    def largest_only(self) -> ObjectSet:
        """At most one object a picture, for localization: the one with the largest box; a warning says how often.

        Crowds are no objects to be localized. Of equal boxes the first one stays.
        """
        several = 0

        def largest(sample: ObjectSample) -> ObjectSample:
            nonlocal several
            single = sample.only(~sample.crowd)
            if len(single) > 1:
                several += 1
                sides = single.boxes[:, 2:] - single.boxes[:, :2]
                single = single.only(np.array([sides.prod(1).argmax()]))
            return replace(single, stratum=int(single.labels[0]) if len(single) else BACKGROUND)

        splits = {split: tuple(map(largest, samples)) for split, samples in self.splits.items()}
        if not several:
            return replace(self, splits=splits)
        told = f"{self.root}: {several} pictures have several boxes: the largest of each is kept."
        return replace(self, splits=splits, warnings=(*self.warnings, told))


def read_object_set(path: str | Path, format: str | None = None, strict: bool = False) -> ObjectSet:
    """Read a data set with labelled objects in any annotation format.

    Pictures labelled as having no object are kept: they show background. Pictures that nobody labelled are left out.
    Boxes are cut off at the picture's edge; those without area in it are dropped. All of that is told in the warnings.

    Args:
        path: as for :func:`~hubel.data.annotations.read_annotations`.
        format: likewise.
        strict: the first fault of a label file is raised, instead of being told.

    Raises:
        DataError: it cannot be told what the data set is, nothing is labelled in it, or, if ``strict``, a label file
            has a fault.
        UsageError: ``format`` is none.
    """
    faults: list[DataError] = []
    labelled = read_annotations(path, format, None if strict else faults.append)
    warnings = [f"{message.message} Left out." for message in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        warnings.append(f"{len(faults) - _SHOWN} more faults of label files: hubel data check {path} names them.")
    dropped: list[str] = []
    splits = {
        split: tuple(_sample(image, dropped) for image in images if image.objects is not None)
        for split, images in labelled.splits.items()
    }
    if not any(sample.shown for samples in splits.values() for sample in samples):
        message = f"{labelled.root} has no labelled object in any of its pictures."
        raise DataError(message, f"Label some; hubel data check {path} says what is there.")
    warnings += _unlabelled(labelled)
    if dropped:
        warnings.append(f"{len(dropped)} boxes without area in their picture are left out: {listing(dropped, 3)}.")
    stratified = _stratified({split: samples for split, samples in splits.items() if samples})
    return ObjectSet(labelled.root, labelled.classes, stratified, (*labelled.warnings, *warnings))


def _unlabelled(labelled: AnnotatedDataset) -> list[str]:
    without = [image.path for image in labelled.images() if image.objects is None]
    if not without:
        return []
    many = f"{len(without)} pictures have no labels and are left out, the first is {without[0]}"
    return [f"{many}: an empty label file says that a picture shows nothing."]


def _sample(image: AnnotatedImage, dropped: list[str]) -> ObjectSample:
    width, height = image.width, image.height
    if not (width and height):
        try:
            width, height = read_size(image.path)
        except ImageError:  # the check tells, and leaves it out
            width = height = 0
    kept: list[tuple[Annotation, Box]] = []
    for place, thing in enumerate(image.objects or ()):
        box = _inside(thing.box, width, height)
        if box[0] < box[2] and box[1] < box[3]:
            kept.append((thing, box))
        else:
            dropped.append(f"object {place + 1} of {image.path.name}")
    things = [thing for thing, _ in kept]
    return ObjectSample(
        image.path,
        width,
        height,
        np.array([box for _, box in kept], np.float32).reshape(-1, 4),
        np.array([thing.label for thing in things], np.int64),
        np.array([thing.crowd or thing.ignore for thing in things], bool),
        np.array([thing.difficult for thing in things], bool),
        np.array([covered(replace(thing, box=box)) for thing, box in kept], np.float32),
    )


def _inside(box: Box, width: int, height: int) -> Box:
    if not (width and height):
        return box
    x1, y1, x2, y2 = box
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def _stratified(splits: dict[str, tuple[ObjectSample, ...]]) -> dict[str, tuple[ObjectSample, ...]]:
    """Each sample with its stratum: so rare classes are shared out evenly, and frequent ones come along."""
    pictures = Counter(label for samples in splits.values() for sample in samples for label in sample.shown)

    def rarest(shown: Iterable[int]) -> int:
        return min(shown, key=lambda label: (pictures[label], label), default=BACKGROUND)

    return {
        split: tuple(replace(sample, stratum=rarest(sample.shown)) for sample in samples)
        for split, samples in splits.items()
    }


class Targets(NamedTuple):
    """The labelled objects of one image, in pixels of the network's input.

    Attributes:
        boxes: float32 (M, 4), x1, y1, x2, y2, of positive width and height.
        labels: int64 (M,), classes from 0.
    """

    boxes: Tensor
    labels: Tensor
