"""What labels say, whichever tool wrote them: plain records without pixels.

Coordinates are continuous pixels of the upright original picture, after EXIF rotation: x to the right and y down
from the picture's upper left corner, so the first pixel spans 0 to 1 and a box that covers a whole picture is
``(0, 0, width, height)``. They are kept as they were written, also where they leave the picture or a box is empty.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Box = tuple[float, float, float, float]
"""``x1, y1, x2, y2``."""

Polygon = tuple[float, ...]
"""A closed polygon, ``x, y`` after ``x, y``; the last point is joined to the first."""


@dataclass(frozen=True, slots=True)
class RunLengthMask:
    """Pixels as COCO run lengths: column by column, zeros and ones in turn, zeros first.

    Attributes:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        counts: the lengths, in COCO's compressed text.
    """

    height: int
    width: int
    counts: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """One object in a picture.

    Attributes:
        label: index of its class, from 0.
        box: around it.
        polygons: its outlines where there are any; it is what any of them encloses, except ``holes``.
        holes: what is cut out of the polygons.
        mask: its pixels where they are given as such; then without polygons, as a rule.
        crowd: stands for a group of objects (COCO's ``iscrowd``).
        ignore: neither to be found nor to be missed.
        difficult: hard to recognize, by the annotator's word.
        truncated: goes on beyond the picture's edge.
        occluded: partly hidden.
        area: pixels that it covers where the file says so; COCO scores by it.
        attributes: what else the file says of it, by name.
        annotator: who labelled it, where the tool says so.
        score: 0..1, where a machine labelled it.
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


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One picture and what is labelled in it.

    Attributes:
        path: the picture's file; it need not exist.
        width: of the upright picture in pixels; 0 where no file says it and the picture is missing or unreadable.
        height: likewise.
        objects: in the file's order; empty where the picture was labelled as having none, ``None`` where nobody
            has labelled it.
        label_file: where the labels stand; ``None`` for a picture without any.
        id: the picture's number in COCO files, to which result files refer.
    """

    path: Path
    width: int
    height: int
    objects: tuple[Annotation, ...] | None
    label_file: Path | None = None
    id: int | None = None


@dataclass(frozen=True)
class AnnotatedDataset:
    """A labelled data set as it lies on disk.

    Attributes:
        root: its folder; all pictures are below it.
        classes: their names; labels are positions in it.
        splits: the pictures of ``"train"``, ``"val"``, ``"test"``, those that there are, or of ``"all"``.
        format: name of the format that it was read from.
        warnings: what a person should know about the files, one line each: what was left out, what was guessed.
        category_ids: the classes' numbers in COCO files, where it came from one.
    """

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[AnnotatedImage, ...]]
    format: str = ""
    warnings: tuple[str, ...] = ()
    category_ids: tuple[int, ...] | None = None

    def images(self) -> tuple[AnnotatedImage, ...]:
        """The pictures of all splits, one after another."""
        return tuple(image for images in self.splits.values() for image in images)
