"""Images with labelled objects, in any annotation format, as training samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hubel.console import count_of
from hubel.data.annotations import AnnotatedImage, read_annotations
from hubel.data.annotations.records import Annotation, annotation_area, annotation_shape
from hubel.data.file_listing import listing
from hubel.data.image_io import read_size
from hubel.data.samples import BACKGROUND, UNLABELLED, ClassMap, ImageDataset, Sample
from hubel.errors import DataError, ImageError

_SHOWN = 5
_NO_AREA = "without area in their image"
_TOO_LARGE = "of more than twice the size of their image (pixels for fractions?)"

Draw = Callable[[AnnotatedImage, Sequence[Annotation]], ClassMap]
"""Makes the class map of an image from its objects."""

Prepare = Callable[[AnnotatedImage, int, Annotation], Annotation | None]
"""An object of an image, with its number from 1, as it is to be used; ``None`` leaves it out."""


def read_annotated_images(
    path: str | Path, strict: bool = False, draw: Draw | None = None, prepare: Prepare | None = None
) -> ImageDataset:
    """Read a data set with labelled objects in any annotation format.

    Images labelled as having no object are kept: they show background. Images that nobody labelled are left out, and so
    are those that have labels of which none can be used. Boxes are cut off at the image's edge; those without area in
    it are dropped, and so are those of more than twice its width or height, which are wrong. The warnings report all of
    that. ``draw`` makes class maps of the objects that are kept. With ``prepare``, the samples have the shapes of what
    it gives.

    Raises :class:`DataError` if the format is not recognized, nothing is labelled, or, if ``strict``, a label file has
    a fault.
    """
    faults: list[DataError] = []
    labelled = read_annotations(path, on_fault=None if strict else faults.append)
    warnings = [f"{fault.message}: left out" for fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        warnings.append(f"{len(faults) - _SHOWN} more errors in label files: hubel data check {path} lists them")
    dropped: dict[str, list[str]] = {_NO_AREA: [], _TOO_LARGE: []}
    unusable: list[str] = []
    splits = {
        split: tuple(_samples(images, dropped, unusable, draw, prepare)) for split, images in labelled.splits.items()
    }
    if not any(sample.class_ids for samples in splits.values() for sample in samples):
        message = f"{labelled.root} has no labelled objects in any image"
        if faults:
            message = f"{labelled.root} has no labelled objects that can be read: {faults[0].message}"
        raise DataError(message, f"label some objects; hubel data check {path} shows what was found")
    paths = [image.path for image in labelled.images()]
    if not any(image.exists() for image in paths):
        message = f"{labelled.root} has no images, only labels: {len(paths):,} are missing, such as {paths[0].name}"
        raise DataError(message, "put the images there; CVAT exports them with the labels if Save images is on")
    if without := [image.path for image in labelled.images() if image.objects is None and image.label_file is None]:
        many = f"{count_of(len(without), 'image', 'have')} no labels: left out, the first is {without[0]}"
        warnings.append(f"{many}: an empty label file marks an image without objects")
    if unusable:
        have = count_of(len(unusable), "image", "have")
        left_out = "cannot be used: left out, not taken as background"
        warnings.append(f"{have} only labels that {left_out}: {listing(unusable, 3)}")
    for what, which in dropped.items():
        if which:
            warnings.append(f"{count_of(len(which), 'box')} {what} left out: {listing(which, 3)}")
    shown = {split: samples for split, samples in splits.items() if samples}
    return ImageDataset(labelled.root, labelled.classes, stratified(shown), (*labelled.warnings, *warnings))


def _samples(
    images: Iterable[AnnotatedImage],
    dropped: dict[str, list[str]],
    unusable: list[str],
    draw: Draw | None,
    prepare: Prepare | None,
) -> Iterator[Sample]:
    """The labelled images; those that have labels, but none that can be used, are named in ``unusable`` instead."""
    for image in images:
        sample = _sample(image, dropped, draw, prepare) if image.objects is not None else None
        if sample is not None and (len(sample.labels) or not image.objects):
            yield sample
        elif sample is not None or image.label_file is not None:
            unusable.append(image.path.name)


def _sample(image: AnnotatedImage, dropped: dict[str, list[str]], draw: Draw | None, prepare: Prepare | None) -> Sample:
    width, height = image.width, image.height
    if not (width and height):
        try:
            width, height = read_size(image.path)
        except ImageError:  # the check reports it, and leaves it out
            width = height = 0
    image = replace(image, width=width, height=height)
    kept: list[Annotation] = []  # with boxes inside the image
    for number, obj in enumerate(image.objects or (), 1):
        x1, y1, x2, y2 = obj.box
        if width and height:
            x1, y1, x2, y2 = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
        what = _NO_AREA
        if 0 < 2 * width < obj.box[2] - obj.box[0] or 0 < 2 * height < obj.box[3] - obj.box[1]:
            what = _TOO_LARGE
        elif x1 < x2 and y1 < y2:
            prepared = obj if prepare is None else prepare(image, number, obj)
            if prepared is not None:
                kept.append(replace(prepared, box=(x1, y1, x2, y2)))
            continue
        dropped[what].append(f"object {number} of {image.path.name}")
    return Sample(
        image.path,
        UNLABELLED,
        width,
        height,
        np.array([obj.box for obj in kept], np.float32).reshape(-1, 4),
        np.array([obj.label for obj in kept], np.int64),
        np.array([obj.crowd or obj.ignore for obj in kept], bool),
        np.array([obj.difficult for obj in kept], bool),
        np.array([annotation_area(obj) for obj in kept], np.float32),
        None if draw is None else draw(image, kept),
        None if prepare is None else tuple(shape for obj in kept if (shape := annotation_shape(obj)) is not None),
        labelled=None if image.labelled is None else np.array(image.labelled, np.int64),
    )


def stratified(splits: dict[str, tuple[Sample, ...]]) -> dict[str, tuple[Sample, ...]]:
    """Each sample with its rarest class as its stratum: these are shared out evenly, frequent classes come along."""
    images = Counter(label for samples in splits.values() for sample in samples for label in sample.class_ids)

    def with_stratum(sample: Sample) -> Sample:
        rarest = min(sample.class_ids, key=lambda label: (images[label], label), default=BACKGROUND)
        return replace(sample, stratum=rarest)

    return {split: tuple(map(with_stratum, samples)) for split, samples in splits.items()}


def largest_only(data: ImageDataset) -> ImageDataset:
    """At most one object per image, for localization: the one with the largest box, crowds left out.

    Of equal boxes the first one stays. A warning says how many images had several.
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
    warning = f"{data.root}: {count_of(several, 'image', 'have')} several boxes: the largest is used"
    return replace(data, splits=splits, warnings=(*data.warnings, warning) if several else data.warnings)
