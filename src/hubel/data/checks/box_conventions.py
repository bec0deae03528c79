"""Boxes that are wrong together, because their numbers mean something else than the format has them mean.

One such cause makes dozens of boxes lie outside or inside out; it is told once a picture, in place of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hubel.data.annotations.records import AnnotatedDataset, AnnotatedImage
from hubel.data.annotations.registry import get_format
from hubel.data.checks.boxes import SLACK, beyond
from hubel.data.checks.findings import Finding
from hubel.data.checks.image_scan import ImageInfo
from hubel.masks import Box

_TOLERATED = 0.02
"""Share of the picture's longer side by which a box may leave it before something else must be the cause."""

_ENOUGH = 4
"""Pictures of one wrong box each that make a convention of it; two wrong boxes in one picture do alone."""

_FRACTIONS_IN = 16
"""Pixels of a picture's side from which on a box within its first pixel is no object."""

Fits = Callable[[Box, int, int], Box]


def _corners_for_sizes(box: Box, width: int, height: int) -> Box:
    """What was meant by corners that were read as ``x, y, width, height``."""
    return box[0], box[1], box[2] - box[0], box[3] - box[1]


def _sizes_for_corners(box: Box, width: int, height: int) -> Box:
    """What was meant by ``x, y, width, height`` that were read as corners."""
    return box[0], box[1], box[0] + box[2], box[1] + box[3]


def _corners_for_centre(box: Box, width: int, height: int) -> Box:
    """What was meant by corners that were read as centre and size."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]


def _pixels_for_fractions(box: Box, width: int, height: int) -> Box:
    """What was meant by pixels that were read as fractions."""
    return box[0] / width, box[1] / height, box[2] / width, box[3] / height


_MISREADINGS: tuple[tuple[str, str, Fits, str], ...] = (
    ("corners", "xywh", _corners_for_sizes, "leave the picture, and fit it if their last numbers are corners"),
    ("corners", "fractions", _corners_for_centre, "leave the picture, and fit it if they are corners"),
    ("sizes", "xyxy", _sizes_for_corners, "are inside out, and fit the picture as x, y, width, height"),
    ("pixels", "fractions", _pixels_for_fractions, "are far outside, and fit the picture as pixels"),
)


def missing_exif_rotation(split: str, image: AnnotatedImage, look: ImageInfo) -> Finding | None:
    """Whether labels were made on the picture as stored, though EXIF turns it by a quarter.

    A square picture, or one turned by half, gives no sign of it.
    """
    if look.orientation < 5 or not image.objects or look.width == look.height:
        return None
    upright, stored = (look.width, look.height), (look.height, look.width)
    outside = [thing for thing in image.objects if beyond(thing.box, *upright) > _slack(upright)]
    fit_stored = all(beyond(thing.box, *stored) <= _slack(upright) for thing in image.objects)
    stated = (image.width, image.height)
    if fit_stored and (outside or stated == stored):
        why = f"{len(outside)} of {len(image.objects)} boxes leave the upright picture of {look.width}×{look.height}"
        if stated == stored:
            why = f"the label file states {stored[0]}×{stored[1]}, upright the picture is {upright[0]}×{upright[1]}"
        sentence = f"{why}; all fit the picture as stored (EXIF orientation {look.orientation})."
        return Finding("unrotated", sentence, split, image.path, image.label_file)
    return None


def other_size(split: str, image: AnnotatedImage, look: ImageInfo) -> Finding | None:
    """Whether the label file states another size than the picture has."""
    stated = (image.width, image.height)
    if image.objects is None or not all(stated) or stated == (look.width, look.height):
        return None
    sentence = f"states {stated[0]}×{stated[1]} pixels, the picture has {look.width}×{look.height}"
    if abs(stated[0] * look.height / (stated[1] * look.width) - 1) < 0.01:
        sentence += f": it was resized by {look.width / stated[0]:.3g} after labelling, or before"
    return Finding("size", f"{sentence}.", split, image.path, image.label_file)


def fractions(split: str, image: AnnotatedImage, classes: Sequence[str], look: ImageInfo) -> Iterator[Finding]:
    """Boxes that lie within the picture's first pixel: numbers from 0 to 1 among pixels."""
    if min(look.width, look.height) < _FRACTIONS_IN:
        return
    for at, thing in enumerate(image.objects or ()):
        x1, y1, x2, y2 = thing.box
        # VOC counts from 1: there a fraction becomes negative.
        if -1 <= x1 < x2 <= 1 and -1 <= y1 < y2 <= 1:
            sentence = f"{x1:.3g}, {y1:.3g}, {x2:.3g}, {y2:.3g} is within the first pixel."
            name = classes[thing.label]
            yield Finding("fractions", sentence, split, image.path, image.label_file, at + 1, thing.box, name)


def wrong_box_format(
    dataset: AnnotatedDataset, looks: Mapping[Path, ImageInfo], but: Iterable[Path] = ()
) -> Iterator[Finding]:
    """Pictures whose wrong boxes all fit once their numbers are taken in another meaning.

    Args:
        dataset: with its format.
        looks: at its readable pictures.
        but: pictures whose boxes are wrong for another reason.
    """
    left_out = set(but)
    written_as = get_format(dataset.format).boxes
    candidates: dict[tuple[str, str], list[tuple[int, Finding]]] = defaultdict(list)
    for split, images in dataset.splits.items():
        for image in images:
            look = looks.get(image.path)
            if image.objects and look and look.width and image.path not in left_out:
                size = look.width, look.height
                for kind, boxes, meant, words in _MISREADINGS:
                    if boxes == written_as and (count := _explained(image, size, meant, words)):
                        sentence = f"{count} of {len(image.objects)} boxes {words}."
                        finding = Finding(kind, sentence, split, image.path, image.label_file)
                        candidates[kind, words].append((count, finding))
    told: set[Path | None] = set()
    for found in sorted(candidates.values(), key=len, reverse=True):
        for count, finding in found:
            if (count >= 2 or len(found) >= _ENOUGH) and finding.picture not in told:
                told.add(finding.picture)
                yield finding


def _explained(image: AnnotatedImage, size: tuple[int, int], meant: Fits, words: str) -> int:
    """How many boxes are clearly wrong as they are, if all of the picture's fit in the other meaning."""
    wrong = 0
    for thing in image.objects or ():
        other = meant(thing.box, *size)
        if not _fits(other, size) or min(other[2] - other[0], other[3] - other[1]) < 1:
            return 0
        wrong += not _fits(thing.box, size, _TOLERATED * max(size))
    return wrong if 2 * wrong >= len(image.objects or ()) else 0


def _fits(box: Box, size: tuple[int, int], slack: float = SLACK) -> bool:
    return box[0] < box[2] and box[1] < box[3] and beyond(box, *size) <= slack


def _slack(size: tuple[int, int]) -> float:
    return max(SLACK, 0.005 * max(size))


def off_by_one(dataset: AnnotatedDataset) -> Iterator[Finding]:
    """VOC files that count pixels from 0 (``xmin`` of 0) beside others, or boxes, that count from 1."""
    if dataset.format != "voc":
        return
    counts: Counter[str] = Counter()
    for image in dataset.images():
        for x1, y1, x2, y2 in (thing.box for thing in image.objects or ()):
            if min(x1, y1) == -1:
                counts["zero"] += 1
            elif image.width and (x2 == image.width or y2 == image.height):
                counts["last"] += 1
    if counts["zero"] and counts["last"]:
        yield Finding(
            "counting",
            f"boxes begin at 0 ({counts['zero']:,} of them), as if pixels counted from 0, and end at the picture's "
            f"width or height ({counts['last']:,}), as if they counted from 1.",
        )
