"""Automatic fixes: a corrected copy of the annotations and a list of changes.

Only what has a single right answer is changed; the rest is left to a person, and reported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path

from hubel.data.annotations import AnnotatedDataset, AnnotatedImage, Annotation
from hubel.data.annotations.exif_rotation import apply_exif
from hubel.data.checks.boxes import duplicate_boxes, has_area, overhang
from hubel.data.checks.classes import spelling_groups
from hubel.data.checks.findings import KINDS, Finding
from hubel.data.checks.images import ImageInfo
from hubel.data.checks.run import Check
from hubel.errors import DataError
from hubel.masks import Polygon, bounding_box, clip_polygon

_FIXED = frozenset({"missing", "unreadable", "unrotated", "degenerate", "partly-outside", "class-spelling"})
_UNTOUCHED = frozenset({"size", "fractions", "pixels", "corners", "sizes"})
"""Boxes of such images use another convention: clipping them would lose what they mean."""


@dataclass(frozen=True)
class FixResult:
    """A corrected data set, in memory; its ``changes``, one line each; the ``remaining`` findings."""

    dataset: AnnotatedDataset
    changes: tuple[str, ...]
    remaining: tuple[Finding, ...]

    def remaining_by_kind(self) -> list[str]:
        """One line per kind of remaining finding."""
        counts = Counter(finding.kind for finding in self.remaining)
        return [f"{count:,} × {KINDS[kind].title}. {KINDS[kind].hint}" for kind, count in counts.items()]


def apply_fixes(check: Check) -> FixResult:
    """Fix what has a single right answer; the files on disk stay as they are.

    Images that are missing or unreadable are left out; labels made before the EXIF rotation are rotated; boxes without
    area and exact copies of boxes are removed; boxes that extend beyond the image are clipped; classes that differ only
    by case, spaces, hyphens and underscores become the most frequent of them.

    Raises:
        DataError: the check was of class folders, or no image would remain.
    """
    dataset = check.dataset
    if not isinstance(dataset, AnnotatedDataset):
        raise DataError(f"{dataset.root} has class folders: there are no labels to fix", "omit --fix")
    changes: list[str] = []
    removed: set[tuple[Path, int]] = set()  # objects: image and number
    dataset = _merge_spellings(dataset, changes)
    by_kind = {kind: {finding.image for finding in found} for kind, found in check.by_kind().items()}
    untouched = set().union(*(by_kind.get(kind, set()) for kind in _UNTOUCHED))
    unrotated = by_kind.get("unrotated", set())
    splits: dict[str, tuple[AnnotatedImage, ...]] = {}
    for split, images in dataset.splits.items():
        fixed: list[AnnotatedImage] = []
        for image in images:
            info = check.infos[image.path]
            if info.message:
                changes.append(f"left out: {info.message}")
                continue
            if image.path in unrotated:
                image = apply_exif(replace(image, width=info.height, height=info.width), info.orientation)
                changes.append(f"{image.path}: labels rotated by EXIF orientation {info.orientation}")
            if image.objects and image.path not in untouched:
                image = _valid_objects(image, info, dataset.classes, changes, removed)
            fixed.append(image)
        if fixed:
            splits[split] = tuple(fixed)
    if not splits:
        raise DataError(f"{dataset.root} has no readable image", "put the images in their place")
    remaining = tuple(finding for finding in check.findings if not _is_fixed(finding, removed, untouched))
    return FixResult(replace(dataset, splits=splits), tuple(changes), remaining)


def _is_fixed(
    finding: Finding, removed: AbstractSet[tuple[Path | None, int | None]], untouched: AbstractSet[Path | None]
) -> bool:
    if (finding.image, finding.object) in removed:
        return True
    if finding.kind == "missing" and finding.image is None:
        return True  # a label file without an image is not copied
    return finding.kind in _FIXED and (finding.object is None or finding.image not in untouched)


def _merge_spellings(dataset: AnnotatedDataset, changes: list[str]) -> AnnotatedDataset:
    target = {label: group[0] for group in spelling_groups(dataset) for label in group[1:]}
    if not target:
        return dataset
    for label, first in target.items():
        changes.append(f"class {dataset.classes[label]!r} became {dataset.classes[first]!r}")
    old = [label for label in range(len(dataset.classes)) if label not in target]
    new = {label: old.index(target.get(label, label)) for label in range(len(dataset.classes))}
    ids = dataset.category_ids
    return replace(
        dataset,
        classes=tuple(dataset.classes[label] for label in old),
        category_ids=tuple(ids[label] for label in old) if ids is not None else None,
        splits={split: tuple(image.relabel(new) for image in images) for split, images in dataset.splits.items()},
    )


def _valid_objects(
    image: AnnotatedImage, info: ImageInfo, classes: tuple[str, ...], changes: list[str], removed: set[tuple[Path, int]]
) -> AnnotatedImage:
    """The image with boxes that have an area, lie in it and are there once, to half a pixel."""
    objects = image.objects or ()
    valid: dict[int, Annotation] = {}

    def remove(index: int, reason: str) -> None:
        name = classes[objects[index].label]
        changes.append(f"{image.path}, object {index + 1} ({name}): removed, {reason}")
        removed.add((image.path, index + 1))

    for index, obj in enumerate(objects):
        x1, y1, x2, y2 = obj.box
        is_outside = x1 >= info.width or y1 >= info.height or x2 <= 0 or y2 <= 0
        if has_area(obj.box) and (is_outside or overhang(obj.box, info.width, info.height) <= 0):
            valid[index] = obj  # where the object outside was meant to be, only a person knows
        elif has_area(obj.box) and has_area((clipped := clip_annotation(obj, info.width, info.height)).box):
            where = f"{image.path}, object {index + 1} ({classes[obj.label]})"
            changes.append(f"{where}: clipped at the image's edge, {_numbers(obj)} to {_numbers(clipped)}")
            valid[index] = clipped
        else:
            remove(index, f"{_numbers(obj)} has no area in the image")
    numbers, boxed = list(valid), list(valid.values())
    for second, first, _ in duplicate_boxes(boxed):
        a, b = boxed[second], boxed[first]
        if a.label == b.label and all(abs(x - y) < 0.5 for x, y in zip(a.box, b.box, strict=True)):
            remove(numbers[second], f"equal to {numbers[first] + 1}")
            del valid[numbers[second]]
    return replace(image, objects=tuple(valid.values()))


def clip_annotation(obj: Annotation, width: int, height: int) -> Annotation:
    """The part of an object inside an image of that size in pixels; its box may have no area."""
    polygons = _clip(obj.polygons, width, height)
    x1, y1, x2, y2 = obj.box
    box = min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)
    # An area that the file states is that of the whole object.
    box = bounding_box(polygons) if polygons else box
    return replace(obj, box=box, polygons=polygons, holes=_clip(obj.holes, width, height), area=None)


def _clip(polygons: tuple[Polygon, ...], width: int, height: int) -> tuple[Polygon, ...]:
    clipped = (clip_polygon(polygon, width, height) for polygon in polygons)
    return tuple(polygon for polygon in clipped if len(polygon) >= 6)


def _numbers(obj: Annotation) -> str:
    return "(" + ", ".join(f"{round(value, 2):g}" for value in obj.box) + ")"
