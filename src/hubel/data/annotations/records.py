"""Annotations as plain records, independent of the tool that wrote them.

Coordinates are continuous pixels of the upright original image, after EXIF rotation: x to the right and y down
from the image's upper left corner, so the first pixel spans 0 to 1 and a box over the whole image is
``(0, 0, width, height)``. They are kept as written, even where they leave the image or a box is empty.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hubel.masks import Box, Outline, Polygon, RunLengthMask, Shape, mask_area, merge_polygons, polygon_area

FLAGS = ("crowd", "ignore", "difficult", "truncated", "occluded")
"""Fields of :class:`Annotation` that are true or false."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object in an image.

    Attributes:
        label: index of its class, from 0.
        polygons: its outlines, if any; the object is their union without ``holes``.
        holes: polygons that are cut out.
        mask: its pixels, where the file gives them; usually instead of polygons.
        crowd: stands for a group of objects (COCO's ``iscrowd``).
        ignore: detections of it count neither as right nor as wrong.
        difficult: hard to recognize, according to the annotator.
        truncated: extends beyond the image's edge.
        area: in pixels, where the file states it; COCO's scores use it.
        attributes: everything else the file says about it, by name.
        annotator: who labelled it, where the tool records that.
        score: confidence, 0..1, of labels made by a model.
    """

    label: int
    box: Box
    polygons: tuple[Polygon, ...] = ()
    holes: tuple[Polygon, ...] = ()
    mask: RunLengthMask | None = None
    crowd: bool = False
    ignore: bool = False
    difficult: bool = False
    truncated: bool = False
    occluded: bool = False
    area: float | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    annotator: str | None = None
    score: float | None = None

    def outline(self) -> Polygon:
        """Polygons and holes merged into one polygon."""
        return merge_polygons((*self.polygons, *self.holes))


def annotation_area(annotation: Annotation) -> float:
    """Area in pixels: as the file states it, else of the mask, the polygons or the box."""
    if annotation.area is not None:
        return annotation.area
    if annotation.mask is not None:
        return float(mask_area(annotation.mask))
    if annotation.polygons:
        return sum(map(polygon_area, annotation.polygons)) - sum(map(polygon_area, annotation.holes))
    x1, y1, x2, y2 = annotation.box
    return max(x2 - x1, 0.0) * max(y2 - y1, 0.0)


def annotation_shape(annotation: Annotation) -> Shape | None:
    """Its mask, else its outline; ``None`` where it has only a box."""
    if annotation.mask is not None:
        return annotation.mask
    if not annotation.polygons:
        return None
    # Numbers of eight bytes: the outlines of a large data set are kept in memory.
    polygons, holes = (tuple(array("d", each) for each in part) for part in (annotation.polygons, annotation.holes))
    return Outline(polygons, holes)


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image and the objects labelled in it.

    Attributes:
        path: the image file; it need not exist.
        width: of the upright image in pixels; 0, as ``height``, where no file states it and the image is unreadable.
        objects: in the file's order; empty for an image labelled as having none, ``None`` for an unlabelled one, and
            for one of whose labels none could be read.
        label_file: the file with the labels; ``None`` for an unlabelled image.
        id: the image's id in COCO files, which result files refer to; text where it is not a number.
        labelled: the classes all of whose objects are labelled, ascending; ``None`` for all classes. Of others there
            may be more objects than labelled ones.
    """

    path: Path
    width: int
    height: int
    objects: tuple[Annotation, ...] | None
    label_file: Path | None = None
    id: int | str | None = None
    labelled: tuple[int, ...] | None = None

    def relabel(self, new: Mapping[int, int]) -> AnnotatedImage:
        """The image with the ``new`` label of each old one; of classes that become one, all have to be labelled."""
        objects, labelled = self.objects, self.labelled
        if objects:
            objects = tuple(replace(obj, label=new[obj.label]) for obj in objects)
        if labelled is not None:
            others = {label for old, label in new.items() if old not in labelled}
            labelled = tuple(sorted({new[label] for label in labelled} - others))
        return replace(self, objects=objects, labelled=labelled)


@dataclass(frozen=True)
class AnnotatedDataset:
    """A labelled data set on disk.

    Attributes:
        root: its folder; all images are below it.
        splits: the images of ``"train"``, ``"val"`` and ``"test"``, as far as they exist, or of ``"all"``.
        warnings: what was left out or guessed, one line each.
        category_ids: the classes' ids in COCO files, if it came from one.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[AnnotatedImage, ...]]
    format: str = ""
    warnings: tuple[str, ...] = ()
    category_ids: tuple[int, ...] | None = None

    def images(self) -> tuple[AnnotatedImage, ...]:
        """The images of all splits, one after another."""
        return tuple(image for _, image in self.placed_images())

    def placed_images(self) -> Iterator[tuple[str, AnnotatedImage]]:
        """The images of all splits, each with its split."""
        return ((split, image) for split, images in self.splits.items() for image in images)
