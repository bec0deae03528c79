"""Images with labelled objects, each with its own pixels, in any annotation format or as masks in images.

Outlines may have holes and several parts. Objects that have a box and no outline or mask do not train, and what is
found in their boxes counts neither as right nor as wrong, as with crowds. Objects whose outline lies outside their
image, encloses nothing, or is more than twice as wide or high as the image are left out; what an outline has beyond the
image's edge is cut off when it is drawn.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from hubel import masks
from hubel.console import count_of
from hubel.data.annotated_images import read_annotated_images
from hubel.data.annotations.api import detect_formats, read_annotations
from hubel.data.annotations.reader import LabelFileError
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.file_listing import listing
from hubel.data.instance_folder import is_instance_folder, read_instance_folder
from hubel.data.mask_folder import MASK_TREES, VOC_TREES, is_mask_folder
from hubel.data.samples import ImageDataset, Sample
from hubel.errors import DataError
from hubel.fileio import check_exists

_OUTSIDE = "an outline outside the image"
_EMPTY = "an outline or a mask without any pixels"
_TOO_LARGE = "an outline of more than twice the size of the image (pixels for fractions?)"
_TOO_LONG = "an outline that is millions of pixels long"
_OTHER_SIZE = "a mask of another size than the image"


def read_instances(path: str | Path, strict: bool = False) -> ImageDataset:
    """Read a data set whose objects have outlines or masks; samples have them as :attr:`Sample.shapes`.

    Masks in images are read if the data set has such as tell objects apart, or nothing but masks
    (:mod:`~hubel.data.instance_folder`), else labels of any annotation format.

    Raises :class:`DataError` as :func:`~hubel.data.annotated_images.read_annotated_images`, and if no object has an
    outline or a mask.
    """
    path = Path(path)
    check_exists(path)
    if is_instance_folder(path, published=bool(path.is_dir() and detect_formats(path))):
        return read_instance_folder(path, strict)
    shapes = _Shapes()
    found = read_annotated_images(path, strict, prepare=shapes)
    if not shapes.found:
        message = f"{found.root} has {count_of(len(shapes.boxes), 'box')}, and no outlines or masks"
        raise DataError(message, "label outlines, or train a detector: --task detect")
    return replace(found, warnings=(*found.warnings, *shapes.warnings()))


def is_unlabelled_instance_folder(path: Path) -> bool:
    """True for a folder with masks of objects, which cannot be of classes, and without label files."""
    if not path.is_dir() or detect_formats(path):
        return False
    return is_instance_folder(path, published=is_mask_folder(path, MASK_TREES | VOC_TREES))


def read_labels(
    path: str | Path, format: str | None = None, on_fault: Callable[[LabelFileError], None] | None = None
) -> AnnotatedDataset:
    """As :func:`~hubel.data.annotations.read_annotations`, or masks of objects where nothing else is labelled.

    These are as if they were COCO's, which has a place for all that they say.
    """
    if format is not None or not is_unlabelled_instance_folder(Path(path)):
        return read_annotations(path, format, on_fault)
    found = read_instance_folder(Path(path))
    splits = {split: tuple(map(_annotated, samples)) for split, samples in found.splits.items()}
    return AnnotatedDataset(found.root, found.classes, splits, "coco", found.warnings)


def _annotated(sample: Sample) -> AnnotatedImage:
    rows = zip(sample.labels.tolist(), sample.boxes.tolist(), sample.masks(), sample.crowd.tolist(), strict=True)
    objects = tuple(Annotation(label, (*box,), mask=mask, crowd=crowd) for label, box, mask, crowd in rows)
    labelled = None if sample.labelled is None else tuple(sample.labelled.tolist())
    return AnnotatedImage(sample.path, sample.width, sample.height, objects, sample.path, labelled=labelled)


@dataclass
class _Shapes:
    """Takes the objects that have a shape, and counts the others."""

    found: int = 0
    boxes: list[str] = field(default_factory=list)  # objects that have nothing else
    left_out: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def __call__(self, image: AnnotatedImage, number: int, obj: Annotation) -> Annotation | None:
        name = f"object {number} of {image.path.name}"
        if obj.mask is None and not obj.polygons:
            if not (obj.crowd or obj.ignore):  # a region to be ignored needs no more
                self.boxes.append(name)
            return replace(obj, ignore=True, polygons=(masks.box_to_polygon(*obj.box),))
        if why := _fault(image, obj):
            self.left_out[why].append(name)
            return None
        self.found += 1
        return obj

    def warnings(self) -> Iterable[str]:
        """What was left out, one line each."""
        if self.boxes:
            objects = "1 object has" if len(self.boxes) == 1 else f"{len(self.boxes):,} objects have"
            yield f"{objects} a box and no outline: left out of training and of the scores ({listing(self.boxes, 3)})"
        for why, names in self.left_out.items():
            yield f"{count_of(len(names), 'object')} left out, for {why}: {listing(names, 3)}"


def _fault(image: AnnotatedImage, obj: Annotation) -> str | None:
    """Why the shape of an object cannot be used."""
    if not (image.width and image.height):  # the image cannot be read
        return None
    if obj.mask is not None:
        if (obj.mask.width, obj.mask.height) != (image.width, image.height):
            return _OTHER_SIZE
        return None if masks.mask_area(obj.mask) else _EMPTY
    points = np.concatenate([np.asarray(each, float).reshape(-1, 2) for each in obj.polygons])
    low, high, size = points.min(0), points.max(0), np.array([image.width, image.height])
    if (high - low > 2 * size).any():
        return _TOO_LARGE
    if (low >= size).any() or (high <= 0).any():
        return _OUTSIDE
    try:
        masks.check_outlines((*obj.polygons, *obj.holes))
    except ValueError:
        return _TOO_LONG
    return None if any(map(masks.polygon_area, obj.polygons)) else _EMPTY
