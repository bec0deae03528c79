"""Boxes by themselves, in their picture and beside each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hubel.boxes import scalar_iou
from hubel.data.annotations.records import AnnotatedImage, Annotation
from hubel.data.checks.findings import Finding
from hubel.masks import Box

SAME_BOX = 0.95
"""Intersection over union above which two boxes are of one object."""

_LONGEST_WALK = 300
"""Boxes that begin at about the same x and are compared; more only in forged files."""


def duplicate_boxes(objects: Sequence[Annotation]) -> Iterator[tuple[int, int, float]]:
    """Places of an object and of one before it whose boxes are nearly the same, and their overlap.

    Of several that are, an object of the same class is named first. Crowds are left out: they lie over objects.
    """
    places = [at for at, thing in enumerate(objects) if not thing.crowd]
    places.sort(key=lambda at: objects[at].box[0])
    best: dict[int, tuple[bool, float, int]] = {}
    for number, at in enumerate(places):
        box = objects[at].box
        # Where an overlap is above 0.95, left edges differ by less than a nineteenth of either width.
        reach = (box[2] - box[0]) * (1 / SAME_BOX - 1)
        for other in reversed(places[max(0, number - _LONGEST_WALK) : number]):
            if box[0] - objects[other].box[0] > reach:
                break
            if (share := scalar_iou(box, objects[other].box)) > SAME_BOX:
                first, second = sorted((at, other))
                found = (objects[first].label == objects[second].label, share, first)
                best[second] = max(best.get(second, found), found)
    for second, (_, share, first) in sorted(best.items()):
        yield second, first, share


def equal(a: Box, b: Box) -> bool:
    """Whether no edge of two boxes is half a pixel or more apart."""
    return all(abs(one - other) < 0.5 for one, other in zip(a, b, strict=True))


SLACK = 1.0
"""Pixels by which a box may leave its picture: tools round, and count from 0 or from 1."""

TINY = 2.0
"""Pixels of a side that no one draws on purpose."""

WHOLE = 0.99
"""Share of the picture's width and height from which on a box is as large as the picture."""


def box_findings(split: str, image: AnnotatedImage, classes: Sequence[str], size: tuple[int, int]) -> Iterator[Finding]:
    """What is wrong with the boxes of a picture.

    Args:
        split: where it is.
        image: the picture and its objects.
        classes: their names.
        size: of the picture that the boxes mean, in pixels; zeros where it is not known.
    """
    objects = image.objects or ()
    at_fault: set[int] = set()

    def finding(kind: str, at: int, sentence: str) -> Finding:
        thing = objects[at]
        name = classes[thing.label]
        return Finding(kind, sentence, split, image.path, image.label_file, at + 1, thing.box, name)

    for at, thing in enumerate(objects):
        if told := _alone(thing.box, *size):
            yield finding(told[0], at, told[1])
            if told[0] != "whole-picture":
                at_fault.add(at)
    for at, before, share in duplicate_boxes(objects):
        if at in at_fault and before in at_fault:
            continue
        if objects[at].label == objects[before].label:
            yield finding("duplicate", at, f"lies over object {before + 1} of the same class (IoU {share:.2f}).")
        else:
            name = classes[objects[before].label]
            yield finding("contradiction", at, f"lies over object {before + 1}, which is {name} (IoU {share:.2f}).")


def _alone(box: Box, width: int, height: int) -> tuple[str, str] | None:
    """The kind of what is wrong with a box, and the sentence."""
    x1, y1, x2, y2 = box
    w, h = x2 - x1, y2 - y1
    if w <= 0 or h <= 0:
        return "degenerate", f"is {w:g} wide and {h:g} high."
    if width and height:
        if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
            return "outside", f"{_spelled(box)} is wholly outside the picture of {width}×{height}."
        over = beyond(box, width, height)
        if over > SLACK:
            inside = (min(x2, width) - max(x1, 0)) * (min(y2, height) - max(y1, 0)) / (w * h)
            return "partly-outside", f"leaves the picture by {over:g} pixels: {1 - inside:.0%} of its area."
    if min(w, h) < TINY:
        return "tiny", f"is {w:.3g} wide and {h:.3g} high."
    if width and height and w >= WHOLE * width and h >= WHOLE * height:
        return "whole-picture", f"covers the picture of {width}×{height}."
    return None


def beyond(box: Box, width: int, height: int) -> float:
    """Pixels by which a box leaves the picture at the worst edge; 0 or less for one inside."""
    x1, y1, x2, y2 = box
    return max(-min(x1, x2), -min(y1, y2), max(x1, x2) - width, max(y1, y2) - height)


def _spelled(box: Box) -> str:
    return ", ".join(f"{value:g}" for value in box)
