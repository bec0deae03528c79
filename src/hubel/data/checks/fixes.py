"""What can be mended without looking: a copy of the records in which it is, and the list of what was changed.

Only what has one right answer is changed; the rest is for a person, and is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.exif_rotation import apply_exif
from hubel.data.checks.boxes import beyond, duplicate_boxes, equal
from hubel.data.checks.classes import spelling_groups
from hubel.data.checks.findings import KINDS, Finding
from hubel.data.checks.image_scan import ImageInfo
from hubel.data.checks.run import Check
from hubel.errors import DataError
from hubel.masks import Box, Polygon, bounding_box, clip_polygon


def cut_to_picture(thing: Annotation, width: int, height: int) -> Annotation:
    """The part of an object inside a picture of that size in pixels; its box may end without area."""
    polygons = _inside(thing.polygons, width, height)
    holes = _inside(thing.holes, width, height)
    box = bounding_box(polygons) if polygons else cut_box(thing.box, width, height)
    # An area that the file gave is that of the whole object.
    return replace(thing, box=box, polygons=polygons, holes=holes, area=None)


def cut_box(box: Box, width: int, height: int) -> Box:
    """The part of a box inside a picture."""
    x1, y1, x2, y2 = box
    return min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)


def _inside(rings: tuple[Polygon, ...], width: int, height: int) -> tuple[Polygon, ...]:
    cut = (clip_polygon(ring, width, height) for ring in rings)
    return tuple(ring for ring in cut if len(ring) >= 6)


_MENDED = frozenset({"missing", "unreadable", "unrotated", "degenerate", "partly-outside", "class-spelling"})
_UNTOUCHED = frozenset({"size", "fractions", "pixels", "corners", "sizes"})
"""Boxes of such pictures mean something else: cutting them would lose what they mean."""


@dataclass(frozen=True)
class FixResult:
    """A mended data set, in memory.

    Attributes:
        dataset: to be written.
        changes: every change, one line each.
        left: the findings that need a person.
    """

    dataset: AnnotatedDataset
    changes: tuple[str, ...]
    left: tuple[Finding, ...]


def apply_fixes(check: Check) -> FixResult:
    """Mend what has one right answer; the files on disk stay as they are.

    Pictures that are missing or unreadable are left out; labels made before the EXIF rotation are turned; boxes
    without area and exact copies of boxes are dropped; boxes that leave the picture are cut off at its edge; classes
    that differ only by case, blanks, hyphens and underscores become the most frequent of them.

    Raises:
        DataError: the check was of class folders, or no picture would be left.
    """
    dataset = check.dataset
    if not isinstance(dataset, AnnotatedDataset):
        raise DataError(f"{dataset.root} has class folders: there are no labels to mend.", "Leave --fix out.")
    changes: list[str] = []
    dataset = _merged(dataset, changes)
    by_kind = {kind: {finding.picture for finding in found} for kind, found in check.by_kind().items()}
    untouched = set().union(*(by_kind.get(kind, set()) for kind in _UNTOUCHED))
    turned = by_kind.get("unrotated", set())
    splits: dict[str, tuple[AnnotatedImage, ...]] = {}
    dropped: set[tuple[object, int]] = set()
    for split, images in dataset.splits.items():
        kept: list[AnnotatedImage] = []
        for image in images:
            look = check.looks[image.path]
            if look.message:
                changes.append(f"left out: {look.message}")
                continue
            if image.path in turned:
                image = _turned(image, look)
                changes.append(f"{image.path}: labels turned by EXIF orientation {look.orientation}")
            if image.objects and image.path not in untouched:
                image = _sound(image, look, dataset.classes, changes, dropped)
            kept.append(image)
        if kept:
            splits[split] = tuple(kept)
    if not splits:
        raise DataError(f"{dataset.root} has no readable picture.", "Put the pictures in their place.")
    left = tuple(finding for finding in check.findings if not _is_mended(finding, dropped, untouched))
    return FixResult(replace(dataset, splits=splits), tuple(changes), left)


def _is_mended(finding: Finding, dropped: set[tuple[object, int]], untouched: AbstractSet[object]) -> bool:
    if finding.object is not None and (finding.picture, finding.object) in dropped:
        return True
    if finding.kind == "missing" and finding.picture is None:
        return True  # a label file without a picture is not copied
    return finding.kind in _MENDED and (finding.object is None or finding.picture not in untouched)


def _turned(image: AnnotatedImage, look: ImageInfo) -> AnnotatedImage:
    return apply_exif(replace(image, width=look.height, height=look.width), look.orientation)


def _merged(dataset: AnnotatedDataset, changes: list[str]) -> AnnotatedDataset:
    """Each group of spellings made one class."""
    target = {label: group[0] for group in spelling_groups(dataset) for label in group[1:]}
    if not target:
        return dataset
    for label, first in target.items():
        changes.append(f"class {dataset.classes[label]!r} became {dataset.classes[first]!r}")
    kept = [label for label in range(len(dataset.classes)) if label not in target]
    place = {label: at for at, label in enumerate(kept)}
    new = {label: place[target.get(label, label)] for label in range(len(dataset.classes))}

    def relabelled(image: AnnotatedImage) -> AnnotatedImage:
        if not image.objects:
            return image
        return replace(image, objects=tuple(replace(thing, label=new[thing.label]) for thing in image.objects))

    ids = dataset.category_ids
    return replace(
        dataset,
        classes=tuple(dataset.classes[label] for label in kept),
        category_ids=tuple(ids[label] for label in kept) if ids is not None else None,
        splits={split: tuple(map(relabelled, images)) for split, images in dataset.splits.items()},
    )


def _sound(
    image: AnnotatedImage,
    look: ImageInfo,
    classes: tuple[str, ...],
    changes: list[str],
    dropped: set[tuple[object, int]],
) -> AnnotatedImage:
    """The picture with boxes that have an area, lie in it and are there once."""
    objects = image.objects or ()
    kept: dict[int, Annotation] = {}
    for at, thing in enumerate(objects):
        where = f"{image.path}, object {at + 1} ({classes[thing.label]})"
        if _has_area(thing) and beyond(thing.box, look.width, look.height) > 0 and _meets(thing, look):
            cut = cut_to_picture(thing, look.width, look.height)
            if _has_area(cut):
                changes.append(f"{where}: cut off at the picture's edge, {_spelled(thing)} to {_spelled(cut)}")
                kept[at] = cut
                continue
        elif _has_area(thing):
            kept[at] = thing
            continue
        changes.append(f"{where}: dropped, {_spelled(thing)} has no area in the picture")
        dropped.add((image.path, at + 1))
    for at, first in _copies(kept):
        changes.append(f"{image.path}, object {at + 1} ({classes[objects[at].label]}): dropped, equal to {first + 1}")
        dropped.add((image.path, at + 1))
        del kept[at]
    return replace(image, objects=tuple(kept.values()))


def _copies(kept: dict[int, Annotation]) -> Iterator[tuple[int, int]]:
    places = list(kept)
    for second, first, _ in list(duplicate_boxes(list(kept.values()))):
        at, before = places[second], places[first]
        if kept[at].label == kept[before].label and equal(kept[at].box, kept[before].box):
            yield at, before


def _has_area(thing: Annotation) -> bool:
    x1, y1, x2, y2 = thing.box
    return x1 < x2 and y1 < y2


def _meets(thing: Annotation, look: ImageInfo) -> bool:
    x1, y1, x2, y2 = thing.box
    return x1 < look.width and y1 < look.height and x2 > 0 and y2 > 0


def _spelled(thing: Annotation) -> str:
    return "(" + ", ".join(f"{round(value, 2):g}" for value in thing.box) + ")"


def remaining_by_kind(left: tuple[Finding, ...]) -> list[str]:
    """One line a kind of what needs a person."""
    counts: dict[str, int] = {}
    for finding in left:
        counts[finding.kind] = counts.get(finding.kind, 0) + 1
    return [f"{count:,} × {KINDS[kind].title}. {KINDS[kind].hint}" for kind, count in counts.items()]
