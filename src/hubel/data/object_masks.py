"""Class maps drawn from labelled objects: outlines and masks of any annotation format.

Pixels are those that the COCO API rasterizes (common/maskApi.c); an object of several outlines is their union. Where
objects overlap, the one of fewer pixels is on top, and of equal ones the later: an object that lies on another, or in
it, is seen whatever the order in which they were drawn. Pixels of no object have the class background, index 0; in
images that label only some classes they do not count. Nor do crowds, objects to be ignored, those that have a box and
no outline, and classes whose names end in "(ignore)".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from hubel import masks
from hubel.console import count_of
from hubel.data.annotated_images import read_annotated_images, stratified
from hubel.data.annotations.records import AnnotatedImage, Annotation, annotation_shape
from hubel.data.file_listing import listing
from hubel.data.mask_classes import IGNORED
from hubel.data.samples import IGNORE_INDEX, ClassMap, ImageDataset, Sample
from hubel.errors import DataError, ImageError

BACKGROUND_NAME = "background"
"""The class of pixels of no object."""

_BACKGROUNDS = (BACKGROUND_NAME, "_background_", "__background__")  # as LabelMe and torchvision call it, too
_IGNORED_NAMES = ("__ignore__",)  # LabelMe's


@dataclass(frozen=True)
class ObjectMasks(ClassMap):
    """The objects of an image, which are drawn when their class map is read.

    Attributes:
        image: its file.
        label_file: the file with the labels.
        height, width: of the image, as the labels have it.
        shapes: of the objects.
        labels: their classes, or :data:`~hubel.data.samples.IGNORE_INDEX`.
        background: the class of pixels of no object, or :data:`~hubel.data.samples.IGNORE_INDEX`.
    """

    of_objects: ClassVar[bool] = True
    names_ignored: ClassVar[bool] = True  # type: ignore[misc]
    image: Path
    label_file: Path
    height: int
    width: int
    shapes: tuple[masks.Shape, ...]
    labels: tuple[int, ...]
    background: int = IGNORE_INDEX

    def __str__(self) -> str:
        return f"{self.label_file}: {self.image.name}"

    def read(self) -> np.ndarray:
        """The classes of the pixels, uint8 (height, width); raises :class:`ImageError` for impossible objects."""
        try:
            masks.check_size(self.height, self.width)
            runs = [masks.mask_runs(masks.shape_mask(shape, self.height, self.width)) for shape in self.shapes]
        except ValueError as error:
            raise ImageError(f"{self}: {error}", "correct or remove the object") from error
        areas = [int((each[:, 1] - each[:, 0]).sum()) for each in runs]
        columns = np.full(self.width * self.height, self.background, np.uint8)  # one column after another
        for index in sorted(range(len(runs)), key=lambda index: -areas[index]):
            for start, end in runs[index].tolist():
                columns[start:end] = self.labels[index]
        return np.ascontiguousarray(columns.reshape(self.width, self.height).T)

    def relabel(self, new: np.ndarray) -> ObjectMasks:
        """See :class:`~hubel.data.samples.ClassMap`."""
        of_classes = {index: int(label) if label >= 0 else IGNORE_INDEX for index, label in enumerate(new)}
        labels = tuple(of_classes.get(label, IGNORE_INDEX) for label in self.labels)
        return replace(self, labels=labels, background=of_classes.get(self.background, IGNORE_INDEX))


@dataclass
class _Drawing:
    """Makes the class maps of images, with the classes of the label files, and counts what there is to draw."""

    drawn: int = 0
    boxes: list[str] = field(default_factory=list)  # objects that have nothing else

    def __call__(self, image: AnnotatedImage, objects: Sequence[Annotation]) -> ObjectMasks:
        shapes: list[masks.Shape] = []
        labels: list[int] = []
        for obj in objects:
            counts = not (obj.crowd or obj.ignore)
            shape = annotation_shape(obj)
            if shape is None:
                counts = False
                self.boxes.append(image.path.name)
            else:
                self.drawn += 1
            shapes.append(shape or masks.Outline((masks.box_to_polygon(*obj.box),)))
            labels.append(obj.label if counts else IGNORE_INDEX)
        file = image.label_file or image.path
        return ObjectMasks(image.path, file, image.height, image.width, tuple(shapes), tuple(labels))


def read_object_masks(path: str | Path, strict: bool = False) -> ImageDataset:
    """Images with labelled objects in any annotation format, as class maps of their outlines and masks.

    Raises :class:`DataError` as :func:`~hubel.data.annotated_images.read_annotated_images`, and if no object has an
    outline or a mask.
    """
    drawing = _Drawing()
    found = read_annotated_images(path, strict, drawing)
    if not drawing.drawn:
        message = f"{found.root} has {count_of(len(drawing.boxes), 'box')}, and no outlines or masks"
        raise DataError(message, "label outlines, or train a detector: --task detect")
    names, new, background = _classes(found)
    warnings = list(found.warnings)
    if drawing.boxes:
        objects = "1 object has" if len(drawing.boxes) == 1 else f"{len(drawing.boxes):,} objects have"
        images = listing(list(dict.fromkeys(drawing.boxes)), 3)
        warnings.append(f"{objects} a box and no outline: what these boxes show does not count ({images})")
    if background != IGNORE_INDEX:
        warnings.append(
            f"pixels of no object are of the class {BACKGROUND_NAME}: where they should not count, add a class to the "
            f'labels that is called "{BACKGROUND_NAME} {IGNORED}"'
        )

    def with_classes(sample: Sample) -> Sample:
        assert isinstance(sample.class_map, ObjectMasks)
        of_others = background if sample.labelled is None else IGNORE_INDEX
        class_map = replace(sample.class_map.relabel(new), background=of_others)
        counted = sample.select(new[sample.labels] >= 0)
        return replace(counted, labels=new[counted.labels], class_map=class_map, labelled=None)

    splits = {split: tuple(map(with_classes, samples)) for split, samples in found.splits.items()}
    return ImageDataset(found.root, names, stratified(splits), tuple(warnings))


def _classes(found: ImageDataset) -> tuple[tuple[str, ...], np.ndarray, int]:
    """Names, background first; the new index of each old one, or -1; the class of pixels of no object."""
    plain = [name.strip().casefold().removesuffix(IGNORED).rstrip() for name in found.classes]
    ignored = [name.strip().casefold().endswith((IGNORED, *_IGNORED_NAMES)) for name in found.classes]
    background = next((index for index, name in enumerate(plain) if name in _BACKGROUNDS), None)
    counts = background is None or not ignored[background]
    others = [index for index, is_ignored in enumerate(ignored) if not is_ignored and plain[index] not in _BACKGROUNDS]
    names = (*((BACKGROUND_NAME,) if counts else ()), *(found.classes[index] for index in others))
    if len(names) > IGNORE_INDEX:
        message = f"{found.root} has {len(names):,} classes, and a class map has {IGNORE_INDEX} at most"
        raise DataError(message, "merge some of them, or leave some out")
    new = np.full(len(found.classes), -1, np.int64)
    new[others] = np.arange(len(others)) + counts
    if counts:
        new[[index for index, name in enumerate(plain) if name in _BACKGROUNDS]] = 0
    return names, new, 0 if counts else IGNORE_INDEX
