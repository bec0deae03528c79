"""Images with labelled objects, in any annotation format, as training samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, read_annotations
from hubel.data.annotations.records import Annotation, annotation_area
from hubel.data.file_listing import listing
from hubel.data.image_io import read_size
from hubel.data.samples import BACKGROUND, UNLABELLED, ImageDataset, Sample
from hubel.errors import DataError, ImageError
from hubel.masks import Box

_SHOWN = 5


def read_annotated_images(path: str | Path, format: str | None = None, strict: bool = False) -> ImageDataset:
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
    if not any(sample.class_ids for samples in splits.values() for sample in samples):
        message = f"{labelled.root} has no labelled object in any of its pictures."
        raise DataError(message, f"Label some; hubel data check {path} says what is there.")
    warnings += _unlabelled(labelled)
    if dropped:
        warnings.append(f"{len(dropped)} boxes without area in their picture are left out: {listing(dropped, 3)}.")
    stratified = _stratified({split: samples for split, samples in splits.items() if samples})
    return ImageDataset(labelled.root, labelled.classes, stratified, (*labelled.warnings, *warnings))


def _unlabelled(labelled: AnnotatedDataset) -> list[str]:
    without = [image.path for image in labelled.images() if image.objects is None]
    if not without:
        return []
    many = f"{len(without)} pictures have no labels and are left out, the first is {without[0]}"
    return [f"{many}: an empty label file says that a picture shows nothing."]


def _sample(image: AnnotatedImage, dropped: list[str]) -> Sample:
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
    return Sample(
        image.path,
        UNLABELLED,
        width,
        height,
        np.array([box for _, box in kept], np.float32).reshape(-1, 4),
        np.array([thing.label for thing in things], np.int64),
        np.array([thing.crowd or thing.ignore for thing in things], bool),
        np.array([thing.difficult for thing in things], bool),
        np.array([annotation_area(replace(thing, box=box)) for thing, box in kept], np.float32),
    )


def _inside(box: Box, width: int, height: int) -> Box:
    if not (width and height):
        return box
    x1, y1, x2, y2 = box
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def _stratified(splits: dict[str, tuple[Sample, ...]]) -> dict[str, tuple[Sample, ...]]:
    """Each sample with its stratum: so rare classes are shared out evenly, and frequent ones come along."""
    pictures = Counter(label for samples in splits.values() for sample in samples for label in sample.class_ids)

    def rarest(shown: Iterable[int]) -> int:
        return min(shown, key=lambda label: (pictures[label], label), default=BACKGROUND)

    return {
        split: tuple(replace(sample, stratum=rarest(sample.class_ids)) for sample in samples)
        for split, samples in splits.items()
    }


def largest_only(data: ImageDataset) -> ImageDataset:
    """At most one object per image, for localization: the one with the largest box; a warning says how often.

    Crowds are not objects to be localized. Of equal boxes the first one stays.
    """
    several = 0

    def largest(sample: Sample) -> Sample:
        nonlocal several
        single = sample.select(~sample.crowd)
        if len(single.labels) > 1:
            several += 1
            sizes = single.boxes[:, 2:] - single.boxes[:, :2]
            single = single.select(np.array([sizes.prod(1).argmax()]))
        return replace(single, stratum=int(single.labels[0]) if len(single.labels) else BACKGROUND)

    splits = {split: tuple(map(largest, samples)) for split, samples in data.splits.items()}
    if not several:
        return replace(data, splits=splits)
    warning = f"{data.root}: {several} images have several boxes: the largest of each is used."
    return replace(data, splits=splits, warnings=(*data.warnings, warning))
