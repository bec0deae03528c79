"""Check outlines and masks: whether they have pixels, in the image, and where their boxes are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from hubel.boxes import scalar_iou
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.checks.findings import Finding
from hubel.masks import Box, bounding_box, mask_area, mask_box, polygon_area

APART_IOU = 0.5
"""Intersection over union of a box and that around its outline below which one of them is wrong."""


def shape_findings(dataset: AnnotatedDataset, exclude: Collection[Path | None]) -> Iterator[Finding]:
    """Problems of outlines and masks; not of the images ``exclude``, whose boxes are wrong for a cause of their own."""
    for split, image in dataset.placed_images():
        for index, obj in enumerate(image.objects or ()):
            if image.path not in exclude and (found := _problem(obj, image.width, image.height)):
                yield _finding(*found, split, image, index, dataset.classes)


def _finding(kind: str, message: str, split: str, image: AnnotatedImage, index: int, classes: Sequence[str]) -> Finding:
    obj = (image.objects or ())[index]
    return Finding(kind, message, split, image.path, image.label_file, index + 1, obj.box, classes[obj.label])


def _problem(obj: Annotation, width: int, height: int) -> tuple[str, str] | None:
    """Kind and message of what is wrong with the shape of an object; nothing where its box is as wrong."""
    if obj.mask is not None:
        if not mask_area(obj.mask):
            return "outline-empty", "its mask has no pixels"
        around = mask_box(obj.mask)
    elif obj.polygons:
        if not any(map(polygon_area, obj.polygons)):
            return "outline-empty", "its outline encloses nothing"
        around = bounding_box(obj.polygons)
    else:
        return None
    if width and height and _is_outside(around, width, height):
        numbers = ", ".join(f"{value:g}" for value in around)
        message = f"its outline ({numbers}) is entirely outside the image of {width}×{height}"
        return None if _is_outside(obj.box, width, height) else ("outline-outside", message)
    iou = scalar_iou(obj.box, around)
    if iou < APART_IOU and not obj.crowd:
        return "outline-apart", f"its box and the one around its outline overlap little (IoU {iou:.2f})"
    return None


def _is_outside(box: Box, width: int, height: int) -> bool:
    return box[0] >= width or box[1] >= height or box[2] <= 0 or box[3] <= 0
