"""Detect data sets whose boxes use another convention: xywh for xyxy, pixels for fractions, before EXIF rotation.

One such cause makes dozens of boxes lie outside the image or inside out: it is reported once per image, in their
place.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage
from hubel.data.annotations.registry import get_format
from hubel.data.checks.boxes import TOLERANCE, overhang
from hubel.data.checks.findings import Finding
from hubel.data.checks.image_scan import ImageInfo
from hubel.masks import Box

_MISREAD_TOLERANCE = 0.02
"""Fraction of the image's longer side by which a box may extend beyond it before something else must be the cause."""

_MIN_IMAGES = 4
"""Images with one wrong box each that suggest a convention; two wrong boxes in one image do by themselves."""

_MIN_SIDE_FOR_FRACTIONS = 16
"""Pixels of an image's side from which a box within its first pixel cannot be an object."""

# What was meant: (box as read, width, height) to the box as written.
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


def missing_exif_rotation(split: str, image: AnnotatedImage, info: ImageInfo) -> Finding | None:
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
    message = f"{reason}; all fit the image as stored (EXIF orientation {info.orientation})."
    return Finding("unrotated", message, split, image.path, image.label_file)


def other_size(split: str, image: AnnotatedImage, info: ImageInfo) -> Finding | None:
    """A label file that states another size than the image has."""
    stated = (image.width, image.height)
    if image.objects is None or not all(stated) or stated == (info.width, info.height):
        return None
    message = f"states {stated[0]}×{stated[1]} pixels, the image has {info.width}×{info.height}"
    if abs(stated[0] * info.height / (stated[1] * info.width) - 1) < 0.01:
        message += f": it was resized by {info.width / stated[0]:.3g} after labelling, or before"
    return Finding("size", f"{message}.", split, image.path, image.label_file)


def fractions(split: str, image: AnnotatedImage, classes: Sequence[str], info: ImageInfo) -> Iterator[Finding]:
    """Boxes within the image's first pixel: numbers from 0 to 1 among pixels."""
    if min(info.width, info.height) < _MIN_SIDE_FOR_FRACTIONS:
        return
    for index, obj in enumerate(image.objects or ()):
        x1, y1, x2, y2 = obj.box
        # VOC counts from 1: there a fraction becomes negative.
        if -1 <= x1 < x2 <= 1 and -1 <= y1 < y2 <= 1:
            message = f"{x1:.3g}, {y1:.3g}, {x2:.3g}, {y2:.3g} is within the first pixel."
            name = classes[obj.label]
            yield Finding("fractions", message, split, image.path, image.label_file, index + 1, obj.box, name)


def wrong_box_format(
    dataset: AnnotatedDataset, infos: Mapping[Path, ImageInfo], exclude: Iterable[Path] = ()
) -> Iterator[Finding]:
    """Images whose wrong boxes all fit once their numbers are read in another convention.

    Args:
        dataset: with its format.
        infos: of its readable images.
        exclude: images whose boxes are wrong for another reason.
    """
    excluded = set(exclude)
    convention = get_format(dataset.format).boxes
    candidates: dict[str, list[tuple[int, Finding]]] = defaultdict(list)
    for split, images in dataset.splits.items():
        for image in images:
            info = infos.get(image.path)
            if image.objects and info and info.width and image.path not in excluded:
                size = info.width, info.height
                for kind, boxes, meant, text in _MISREADINGS:
                    if boxes == convention and (count := _count_explained(image, size, meant)):
                        message = f"{count} of {len(image.objects)} boxes {text}."
                        candidates[kind].append((count, Finding(kind, message, split, image.path, image.label_file)))
    reported: set[Path | None] = set()
    for found in sorted(candidates.values(), key=len, reverse=True):
        for count, finding in found:
            if (count >= 2 or len(found) >= _MIN_IMAGES) and finding.image not in reported:
                reported.add(finding.image)
                yield finding


def _count_explained(image: AnnotatedImage, size: tuple[int, int], meant: Callable[[Box, int, int], Box]) -> int:
    """Number of boxes that are clearly wrong as read, if all of the image fit in the other convention."""
    wrong = 0
    objects = image.objects or ()
    for obj in objects:
        other = meant(obj.box, *size)
        if not _fits(other, size, TOLERANCE) or min(other[2] - other[0], other[3] - other[1]) < 1:
            return 0
        wrong += not _fits(obj.box, size, _MISREAD_TOLERANCE * max(size))
    return wrong if 2 * wrong >= len(objects) else 0


def _fits(box: Box, size: tuple[int, int], tolerance: float) -> bool:
    return box[0] < box[2] and box[1] < box[3] and overhang(box, *size) <= tolerance


def off_by_one(dataset: AnnotatedDataset) -> Iterator[Finding]:
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
            f"width or height ({counts['last']:,}), as if they counted from 1.",
        )
