"""Check boxes: their size, their position in the image, duplicates, and other conventions than the format's.

Boxes in xyxy for xywh, in pixels for fractions, or before the EXIF rotation make dozens of boxes lie outside the image
or inside out: the common cause is reported once per image, in their place.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from hubel.boxes import scalar_iou
from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.registry import get_format
from hubel.data.checks.findings import Finding
from hubel.data.checks.images import ImageInfo
from hubel.masks import Box

DUPLICATE_IOU = 0.95
"""Intersection over union above which two boxes are of one object."""

TOLERANCE = 1.0
"""Pixels by which a box may extend beyond its image: tools round, and count from 0 or from 1."""

MIN_SIDE = 2.0
"""Sides below are drawn by accident, in pixels."""

WHOLE_IMAGE = 0.99
"""Fraction of the image's width and height from which a box is as large as the image."""

_MAX_COMPARISONS = 300  # boxes that begin at about the same x and are compared; more only in forged files
# Fraction of the image's longer side by which a box may extend beyond it before something else must be the cause.
_MISREAD_TOLERANCE = 0.02
# Images with one wrong box each that suggest a convention; two wrong boxes in one image do by themselves.
_MIN_IMAGES = 4
_MIN_SIDE_FOR_FRACTIONS = 16  # pixels of an image's side from which a box within its first pixel cannot be an object

# What was meant: from (box as read, width, height) to the box as written.
_MISREADINGS: tuple[tuple[str, str, Callable[[Box, int, int], Box], str], ...] = (
    (
        "corners", "xywh", lambda b, w, h: (b[0], b[1], b[2] - b[0], b[3] - b[1]),
        "extend beyond the image, and fit it if their last numbers are corners",
    ),
    (
        "corners", "fractions",
        lambda b, w, h: ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1]),
        "extend beyond the image, and fit it as corners",
    ),
    (
        "sizes", "xyxy", lambda b, w, h: (b[0], b[1], b[0] + b[2], b[1] + b[3]),
        "are inside out, and fit the image as x, y, width, height",
    ),
    (
        "pixels", "fractions", lambda b, w, h: (b[0] / w, b[1] / h, b[2] / w, b[3] / h),
        "are far outside, and fit the image as pixels",
    ),
)  # fmt: skip


def box_findings(dataset: AnnotatedDataset, infos: Mapping[Path, ImageInfo]) -> Iterator[Finding]:
    """Problems of boxes; those with one common cause in an image are reported once."""
    explained: set[Path | None] = set()
    sizes: dict[Path, tuple[int, int]] = {}
    for split, image in dataset.placed_images():
        info = infos[image.path]
        sizes[image.path] = (image.width, image.height) if info.message else (info.width, info.height)
        if info.message or not image.objects:
            continue
        if rotated := _missing_exif_rotation(split, image, info):
            yield rotated
            explained.add(image.path)
        elif resized := _other_size(split, image, info):
            yield resized
            sizes[image.path] = (image.width, image.height)  # its boxes refer to the image they were drawn in
    for finding in _wrong_convention(dataset, infos, explained):
        yield finding
        explained.add(finding.image)
    for split, image in dataset.placed_images():
        if image.objects and image.path not in explained:
            fractions = list(_fractions(split, image, dataset.classes, infos[image.path]))
            yield from fractions
            numbers = {finding.object for finding in fractions}
            found = _image_findings(split, image, dataset.classes, sizes[image.path])
            yield from (finding for finding in found if finding.object not in numbers)
    yield from _off_by_one(dataset)


def _missing_exif_rotation(split: str, image: AnnotatedImage, info: ImageInfo) -> Finding | None:
    """Labels made on the image as stored, though EXIF rotates it by 90°.

    Nothing shows this in a square image, or in one rotated by 180°.
    """
    if info.orientation < 5 or not image.objects or info.width == info.height:
        return None
    upright, stored = (info.width, info.height), (info.height, info.width)
    tolerance = max(TOLERANCE, 0.005 * max(upright))
    outside = [obj for obj in image.objects if overhang(obj.box, *upright) > tolerance]
    fit_stored = all(overhang(obj.box, *stored) <= tolerance for obj in image.objects)
    stated = (image.width, image.height)
    if not fit_stored or not (outside or stated == stored):
        return None
    size = f"{info.width}×{info.height}"
    reason = f"{len(outside)} of {len(image.objects)} boxes extend beyond the upright image of {size}"
    if stated == stored:
        reason = f"the label file states {stored[0]}×{stored[1]}, the upright image has {size}"
    message = f"{reason}; all fit the image as stored (EXIF orientation {info.orientation})"
    return Finding("unrotated", message, split, image.path, image.label_file)


def _other_size(split: str, image: AnnotatedImage, info: ImageInfo) -> Finding | None:
    """A label file that states another size than the image has."""
    stated = (image.width, image.height)
    if image.objects is None or not all(stated) or stated == (info.width, info.height):
        return None
    message = f"states {stated[0]}×{stated[1]} pixels, the image has {info.width}×{info.height}"
    if abs(stated[0] * info.height / (stated[1] * info.width) - 1) < 0.01:
        message += f": it was resized by {info.width / stated[0]:.3g} after labelling, or before"
    return Finding("size", message, split, image.path, image.label_file)


def _fractions(split: str, image: AnnotatedImage, classes: Sequence[str], info: ImageInfo) -> Iterator[Finding]:
    """Boxes within the image's first pixel: numbers from 0 to 1 among pixels."""
    if min(info.width, info.height) < _MIN_SIDE_FOR_FRACTIONS:
        return
    for index, obj in enumerate(image.objects or ()):
        x1, y1, x2, y2 = obj.box
        # VOC counts from 1: there a fraction becomes negative.
        if -1 <= x1 < x2 <= 1 and -1 <= y1 < y2 <= 1:
            message = f"{x1:.3g}, {y1:.3g}, {x2:.3g}, {y2:.3g} is within the first pixel"
            yield _finding("fractions", message, split, image, index, classes)


def _wrong_convention(
    dataset: AnnotatedDataset, infos: Mapping[Path, ImageInfo], exclude: Collection[Path | None]
) -> Iterator[Finding]:
    """Images whose wrong boxes all fit once their numbers are read in another convention."""
    convention = get_format(dataset.format).boxes
    candidates: dict[str, list[tuple[int, Finding]]] = defaultdict(list)
    for split, image in dataset.placed_images():
        info = infos[image.path]
        if image.objects and info.width and image.path not in exclude:
            size = info.width, info.height
            for kind, boxes, as_written, text in _MISREADINGS:
                if boxes == convention and (count := _count_explained(image, size, as_written)):
                    message = f"{count} of {len(image.objects)} boxes {text}"
                    candidates[kind].append((count, Finding(kind, message, split, image.path, image.label_file)))
    reported: set[Path | None] = set()
    for found in sorted(candidates.values(), key=len, reverse=True):
        for count, finding in found:
            if (count >= 2 or len(found) >= _MIN_IMAGES) and finding.image not in reported:
                reported.add(finding.image)
                yield finding


def _count_explained(image: AnnotatedImage, size: tuple[int, int], as_written: Callable[[Box, int, int], Box]) -> int:
    """Number of boxes that are clearly wrong as read, if all of the image fit in the other convention."""
    wrong = 0
    objects = image.objects or ()
    for obj in objects:
        other = as_written(obj.box, *size)
        if not _fits(other, size, TOLERANCE) or min(other[2] - other[0], other[3] - other[1]) < 1:
            return 0
        wrong += not _fits(obj.box, size, _MISREAD_TOLERANCE * max(size))
    return wrong if 2 * wrong >= len(objects) else 0


def _fits(box: Box, size: tuple[int, int], tolerance: float) -> bool:
    return has_area(box) and overhang(box, *size) <= tolerance


def _off_by_one(dataset: AnnotatedDataset) -> Iterator[Finding]:
    """VOC files that count pixels from 0 (``xmin`` of 0) beside others, or boxes, that count from 1."""
    if dataset.format != "voc":
        return
    counts: Counter[str] = Counter()
    for image in dataset.images():
        for x1, y1, x2, y2 in (obj.box for obj in image.objects or ()):
            if min(x1, y1) == -1:
                counts["zero"] += 1
            elif image.width and (x2 == image.width or y2 == image.height):
                counts["last"] += 1
    if counts["zero"] and counts["last"]:
        yield Finding(
            "counting",
            f"boxes begin at 0 ({counts['zero']:,} of them), as if pixels counted from 0, and end at the image's "
            f"width or height ({counts['last']:,}), as if they counted from 1",
        )


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


def _image_findings(
    split: str, image: AnnotatedImage, classes: Sequence[str], size: tuple[int, int]
) -> Iterator[Finding]:
    """Problems of the boxes in an image of that width and height; zeros if they are unknown."""
    objects = image.objects or ()
    invalid: set[int] = set()
    for index, obj in enumerate(objects):
        if problem := _box_problem(obj.box, *size):
            yield _finding(*problem, split, image, index, classes)
            if problem[0] != "whole-picture":
                invalid.add(index)
    for index, first, iou in duplicate_boxes(objects):
        if index in invalid and first in invalid:
            continue
        if objects[index].label == objects[first].label:
            kind, message = "duplicate", f"overlaps object {first + 1} of the same class (IoU {iou:.2f})"
        else:
            name = classes[objects[first].label]
            kind, message = "contradiction", f"overlaps object {first + 1}, which is {name} (IoU {iou:.2f})"
        yield _finding(kind, message, split, image, index, classes)


def _finding(kind: str, message: str, split: str, image: AnnotatedImage, index: int, classes: Sequence[str]) -> Finding:
    obj = (image.objects or ())[index]
    return Finding(kind, message, split, image.path, image.label_file, index + 1, obj.box, classes[obj.label])


def _box_problem(box: Box, width: int, height: int) -> tuple[str, str] | None:
    """Kind and message of what is wrong with a single box."""
    x1, y1, x2, y2 = box
    w, h = x2 - x1, y2 - y1
    if w <= 0 or h <= 0:
        return "degenerate", f"is {w:g} wide and {h:g} high"
    if width and height:
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            numbers = ", ".join(f"{value:g}" for value in box)
            return "outside", f"{numbers} is entirely outside the image of {width}×{height}"
        over = overhang(box, width, height)
        if over > TOLERANCE:
            inside = (min(x2, width) - max(x1, 0)) * (min(y2, height) - max(y1, 0)) / (w * h)
            return "partly-outside", f"extends {over:g} pixels beyond the image, with {1 - inside:.0%} of its area"
    if min(w, h) < MIN_SIDE:
        return "tiny", f"is {w:.3g} wide and {h:.3g} high"
    if width and height and w >= WHOLE_IMAGE * width and h >= WHOLE_IMAGE * height:
        return "whole-picture", f"covers the image of {width}×{height}"
    return None


def has_area(box: Box) -> bool:
    """True for a box of positive width and height."""
    return box[0] < box[2] and box[1] < box[3]


def overhang(box: Box, width: int, height: int) -> float:
    """Pixels by which a box extends beyond the image at the worst edge; 0 or less for one inside."""
    x1, y1, x2, y2 = box
    return max(-min(x1, x2), -min(y1, y2), max(x1, x2) - width, max(y1, y2) - height)
