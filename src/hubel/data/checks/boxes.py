"""Check boxes: their size, their position in the image, and duplicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hubel.boxes import scalar_iou
from hubel.data.annotations.records import AnnotatedImage, Annotation
from hubel.data.checks.findings import Finding
from hubel.masks import Box

DUPLICATE_IOU = 0.95
"""Intersection over union above which two boxes are of one object."""

TOLERANCE = 1.0
"""Pixels by which a box may extend beyond its image: tools round, and count from 0 or from 1."""

MIN_SIDE = 2.0
"""Sides below are drawn by accident, in pixels."""

WHOLE_IMAGE = 0.99
"""Fraction of the image's width and height from which a box is as large as the image."""

_MAX_COMPARISONS = 300
"""Boxes that begin at about the same x and are compared; more only in forged files."""


def duplicate_boxes(objects: Sequence[Annotation]) -> Iterator[tuple[int, int, float]]:
    """Indices of an object and of an earlier one with nearly the same box, and their IoU.

    Among several earlier ones, one of the same class is preferred. Crowds are left out: they overlap objects.
    """
    order = [index for index, obj in enumerate(objects) if not obj.crowd]
    order.sort(key=lambda index: objects[index].box[0])
    best: dict[int, tuple[bool, float, int]] = {}
    for position, index in enumerate(order):
        box = objects[index].box
        # Where the IoU is above 0.95, left edges differ by less than a nineteenth of either width.
        reach = (box[2] - box[0]) * (1 / DUPLICATE_IOU - 1)
        for other in reversed(order[max(0, position - _MAX_COMPARISONS) : position]):
            if box[0] - objects[other].box[0] > reach:
                break
            if (iou := scalar_iou(box, objects[other].box)) > DUPLICATE_IOU:
                first, second = sorted((index, other))
                found = (objects[first].label == objects[second].label, iou, first)
                best[second] = max(best.get(second, found), found)
    for second, (_, iou, first) in sorted(best.items()):
        yield second, first, iou


def box_findings(split: str, image: AnnotatedImage, classes: Sequence[str], size: tuple[int, int]) -> Iterator[Finding]:
    """Problems of the boxes in an image.

    Args:
        split: of the image.
        image: with its objects.
        classes: their names.
        size: width and height of the image that the boxes refer to, in pixels; zeros if unknown.
    """
    objects = image.objects or ()
    invalid: set[int] = set()

    def finding(kind: str, index: int, message: str) -> Finding:
        obj = objects[index]
        return Finding(kind, message, split, image.path, image.label_file, index + 1, obj.box, classes[obj.label])

    for index, obj in enumerate(objects):
        if problem := _box_problem(obj.box, *size):
            yield finding(problem[0], index, problem[1])
            if problem[0] != "whole-picture":
                invalid.add(index)
    for index, first, iou in duplicate_boxes(objects):
        if index in invalid and first in invalid:
            continue
        if objects[index].label == objects[first].label:
            yield finding("duplicate", index, f"overlaps object {first + 1} of the same class (IoU {iou:.2f}).")
        else:
            name = classes[objects[first].label]
            yield finding("contradiction", index, f"overlaps object {first + 1}, which is {name} (IoU {iou:.2f}).")


def _box_problem(box: Box, width: int, height: int) -> tuple[str, str] | None:
    """Kind and message of what is wrong with a single box."""
    x1, y1, x2, y2 = box
    w, h = x2 - x1, y2 - y1
    if w <= 0 or h <= 0:
        return "degenerate", f"is {w:g} wide and {h:g} high."
    if width and height:
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            numbers = ", ".join(f"{value:g}" for value in box)
            return "outside", f"{numbers} is entirely outside the image of {width}×{height}."
        over = overhang(box, width, height)
        if over > TOLERANCE:
            inside = (min(x2, width) - max(x1, 0)) * (min(y2, height) - max(y1, 0)) / (w * h)
            return "partly-outside", f"extends {over:g} pixels beyond the image, with {1 - inside:.0%} of its area."
    if min(w, h) < MIN_SIDE:
        return "tiny", f"is {w:.3g} wide and {h:.3g} high."
    if width and height and w >= WHOLE_IMAGE * width and h >= WHOLE_IMAGE * height:
        return "whole-picture", f"covers the image of {width}×{height}."
    return None


def overhang(box: Box, width: int, height: int) -> float:
    """Pixels by which a box extends beyond the image at the worst edge; 0 or less for one inside."""
    x1, y1, x2, y2 = box
    return max(-min(x1, x2), -min(y1, y2), max(x1, x2) - width, max(y1, y2) - height)
