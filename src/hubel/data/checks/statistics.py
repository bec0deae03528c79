"""Count what is in a labelled data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hubel.data.annotations import AnnotatedDataset, AnnotatedImage
from hubel.data.annotations.records import annotation_area
from hubel.data.checks.boxes import has_area
from hubel.data.checks.classes import object_counts
from hubel.data.samples import ImageDataset
from hubel.errors import DataError

SMALL, MEDIUM = 32**2, 96**2
"""COCO's limits in square pixels: small objects have less than the first, large ones at least the second."""

CELLS = 48
"""Cells of the heat map of positions in each direction."""


@dataclass(frozen=True)
class SplitCounts:
    """Counts of one split: ``empty`` images are labelled as having no object, ``unlabelled`` ones not at all.

    In class folders, images count as objects. ``labelled_by_class`` are the images that label all objects of each
    class; ``None`` where all labelled images of the data set do so for all classes.
    """

    images: int
    unlabelled: int
    empty: int
    objects: int
    by_class: tuple[int, ...]
    labelled_by_class: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Statistics:
    """A data set in numbers.

    Attributes:
        per_image: number of labelled images by their number of objects.
        boxes: (N, 4), boxes with an area in images of known size, as fractions of the image.
        sides: (N, 2), their widths and heights in pixels.
        labels: (N,) their classes.
        has_boxes: false for class folders.
        shape_areas: (M,), pixels of the objects that have an outline or a mask.
    """

    classes: tuple[str, ...]
    splits: dict[str, SplitCounts]
    per_image: dict[int, int] = field(default_factory=dict)
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    sides: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    has_boxes: bool = True
    shape_areas: np.ndarray = field(default_factory=lambda: np.zeros(0))

    @property
    def labelled_by_class(self) -> dict[str, int] | None:
        """Images that label all objects of each class, of all splits; ``None`` where all do so of all."""
        of_splits = [split.labelled_by_class for split in self.splits.values()]
        if None in of_splits:
            return None
        return dict(zip(self.classes, map(sum, zip(*of_splits, strict=True)), strict=True))

    @property
    def positions(self) -> np.ndarray:
        """Fraction of the boxes that cover each cell of their image: (48, 48), rows from the top."""
        return coverage(self.boxes)

    @property
    def by_size(self) -> dict[str, int]:
        """Number of objects by COCO's sizes, from the area of their boxes."""
        return _by_size(self.sides.prod(1))

    @property
    def shapes_by_size(self) -> dict[str, int] | None:
        """The same of outlines and masks, from their own areas, as COCO counts them; ``None`` without any."""
        return _by_size(self.shape_areas) if len(self.shape_areas) else None

    @property
    def aspects(self) -> np.ndarray:
        """Aspect ratios (N,), width over height."""
        ratios: np.ndarray = self.sides[:, 0] / self.sides[:, 1]
        return ratios

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        splits: dict[str, dict[str, Any]] = {
            split: {
                "pictures": counts.images,
                "unlabelled": counts.unlabelled,
                "empty": counts.empty,
                "objects": counts.objects,
                "by_class": dict(zip(self.classes, counts.by_class, strict=True)),
            }
            for split, counts in self.splits.items()
        }
        for split, counts in self.splits.items():
            if counts.labelled_by_class is not None:
                splits[split]["labelled_by_class"] = dict(zip(self.classes, counts.labelled_by_class, strict=True))
        result: dict[str, Any] = {"classes": list(self.classes), "splits": splits}
        if self.has_boxes:
            result |= {
                "objects_per_picture": {str(number): self.per_image[number] for number in sorted(self.per_image)},
                "by_size": self.by_size,
                "shapes_by_size": self.shapes_by_size,
                "width": quartiles(self.sides[:, 0]),
                "height": quartiles(self.sides[:, 1]),
                "aspect_ratio": quartiles(self.aspects),
            }
        return result


def _by_size(areas: np.ndarray) -> dict[str, int]:
    small, large = int((areas < SMALL).sum()), int((areas >= MEDIUM).sum())
    return {"small": small, "medium": len(areas) - small - large, "large": large}


def quartiles(values: np.ndarray) -> dict[str, float] | None:
    """Minimum, first quartile, median, third quartile, maximum; ``None`` for no values."""
    if not len(values):
        return None
    names = ("least", "quarter", "median", "three_quarters", "greatest")
    return {name: float(value) for name, value in zip(names, np.percentile(values, (0, 25, 50, 75, 100)), strict=True)}


def statistics(dataset: AnnotatedDataset | ImageDataset) -> Statistics:
    """Count what is in a data set; no image is opened."""
    splits: dict[str, SplitCounts] = {}
    labelled = {} if isinstance(dataset, ImageDataset) else _labelled_by_class(dataset)
    for split, images in dataset.splits.items():
        if isinstance(dataset, ImageDataset):
            objects, counts = [], Counter(sample.label for sample in dataset.splits[split])
        else:
            objects, counts = [image.objects for image in dataset.splits[split]], object_counts(dataset, split)
        by_class = tuple(counts[label] for label in range(len(dataset.classes)))
        several = (len(images), objects.count(None), objects.count(()), counts.total(), by_class)
        splits[split] = SplitCounts(*several, labelled.get(split))
    if isinstance(dataset, ImageDataset):
        return Statistics(dataset.classes, splits, has_boxes=False)
    table = _box_table(dataset.images())
    boxes = table[:, :4] / table[:, [4, 5, 4, 5]]
    per_image = Counter(len(image.objects) for image in dataset.images() if image.objects is not None)
    sides, labels = table[:, 2:4] - table[:, :2], table[:, 6].astype(int)
    shapes = [
        annotation_area(obj)
        for image in dataset.images()
        for obj in image.objects or ()
        if obj.mask is not None or obj.polygons
    ]
    return Statistics(
        dataset.classes, splits, dict(per_image), boxes, sides, labels, shape_areas=np.array(shapes, float)
    )


def _labelled_by_class(dataset: AnnotatedDataset) -> dict[str, tuple[int, ...]]:
    """Of each split, the images that label all objects of each class; empty where all do so of all."""
    if all(image.labelled is None for image in dataset.images()):
        return {}
    every = range(len(dataset.classes))
    found = {}
    for split, images in dataset.splits.items():
        stated = [every if each.labelled is None else each.labelled for each in images if each.objects is not None]
        counts = Counter(label for labels in stated for label in labels)
        found[split] = tuple(counts[label] for label in every)
    return found


def training_boxes(dataset: AnnotatedDataset | ImageDataset) -> np.ndarray:
    """Boxes (N, 4) of the training images, or of all if there is no such split, as fractions of their image.

    Raises:
        DataError: there are class folders without boxes.
    """
    if isinstance(dataset, ImageDataset):
        raise DataError(f"{dataset.root} has class folders, and no boxes", "use a data set with labelled boxes")
    table = _box_table(dataset.splits.get("train") or dataset.images())
    boxes: np.ndarray = table[:, :4] / table[:, [4, 5, 4, 5]]
    return boxes


def _box_table(images: Iterable[AnnotatedImage]) -> np.ndarray:
    """Boxes with an area in images of known size: (N, 7), corners, the image's width and height, class."""
    rows = [
        (*obj.box, image.width, image.height, obj.label)
        for image in images
        for obj in image.objects or ()
        if image.width and image.height and has_area(obj.box)
    ]
    return np.array(rows, float).reshape(-1, 7)


def coverage(boxes: np.ndarray) -> np.ndarray:
    """Fraction of boxes (N, 4), in fractions of their image, that cover the centre of each cell: (48, 48)."""
    centres = (np.arange(CELLS) + 0.5) / CELLS
    across = (boxes[:, 0:1] <= centres) & (centres < boxes[:, 2:3])
    down = (boxes[:, 1:2] <= centres) & (centres < boxes[:, 3:4])
    counts: np.ndarray = down.T.astype(np.float32) @ across.astype(np.float32)
    return counts / max(1, len(boxes))
