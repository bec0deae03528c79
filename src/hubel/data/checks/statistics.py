"""Count what is in a labelled data set."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hubel.data.annotations import AnnotatedDataset
from hubel.data.checks.classes import object_counts
from hubel.data.samples import ImageDataset
from hubel.masks import Box

SMALL, MEDIUM = 32**2, 96**2
"""COCO's limits in square pixels: small objects have less than the first, large ones at least the second."""

CELLS = 48
"""Cells of the heat map of positions in each direction."""


@dataclass(frozen=True)
class SplitCounts:
    """Counts of one split.

    Attributes:
        images: all of them.
        unlabelled: images that nobody labelled.
        empty: images labelled as having no object.
        objects: of all classes.
        by_class: objects by label; for class folders, images by label.
    """

    images: int
    unlabelled: int
    empty: int
    objects: int
    by_class: tuple[int, ...]


@dataclass(frozen=True)
class Statistics:
    """A data set in numbers.

    Attributes:
        classes: their names.
        splits: counts by split.
        per_image: number of labelled images by their number of objects.
        boxes: (N, 4), boxes with an area in images of known size, as fractions of the image.
        sides: (N, 2), their widths and heights in pixels.
        labels: (N,) their classes.
        positions: (48, 48), rows from the top: fraction of those boxes that cover each cell of their image.
        has_boxes: false for class folders.
    """

    classes: tuple[str, ...]
    splits: dict[str, SplitCounts]
    per_image: dict[int, int] = field(default_factory=dict)
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4)))
    sides: np.ndarray = field(default_factory=lambda: np.zeros((0, 2)))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, int))
    positions: np.ndarray = field(default_factory=lambda: np.zeros((CELLS, CELLS)))
    has_boxes: bool = True

    @property
    def by_size(self) -> dict[str, int]:
        """Number of objects by COCO's sizes, from the area of their boxes."""
        areas = self.sides.prod(1)
        small, large = int((areas < SMALL).sum()), int((areas >= MEDIUM).sum())
        return {"small": small, "medium": len(areas) - small - large, "large": large}

    @property
    def aspects(self) -> np.ndarray:
        """Aspect ratios (N,), width over height."""
        ratios: np.ndarray = self.sides[:, 0] / self.sides[:, 1]
        return ratios

    def as_json(self) -> dict[str, Any]:
        """For ``--json``."""
        splits = {
            split: {
                "pictures": counts.images,
                "unlabelled": counts.unlabelled,
                "empty": counts.empty,
                "objects": counts.objects,
                "by_class": dict(zip(self.classes, counts.by_class, strict=True)),
            }
            for split, counts in self.splits.items()
        }
        result: dict[str, Any] = {"classes": list(self.classes), "splits": splits}
        if self.has_boxes:
            result |= {
                "objects_per_picture": {str(number): self.per_image[number] for number in sorted(self.per_image)},
                "by_size": self.by_size,
                "width": quartiles(self.sides[:, 0]),
                "height": quartiles(self.sides[:, 1]),
                "aspect_ratio": quartiles(self.aspects),
            }
        return result


def quartiles(values: np.ndarray) -> dict[str, float] | None:
    """Minimum, first quartile, median, third quartile, maximum; ``None`` for no values."""
    if not len(values):
        return None
    names = ("least", "quarter", "median", "three_quarters", "greatest")
    return {name: float(value) for name, value in zip(names, np.percentile(values, (0, 25, 50, 75, 100)), strict=True)}


def statistics(dataset: AnnotatedDataset | ImageDataset) -> Statistics:
    """Count what is in a data set; no image is opened."""
    if isinstance(dataset, ImageDataset):
        splits = {}
        for split, samples in dataset.splits.items():
            counts = Counter(sample.label for sample in samples)
            by_class = tuple(counts[label] for label in range(len(dataset.classes)))
            splits[split] = SplitCounts(len(samples), 0, 0, len(samples), by_class)
        return Statistics(dataset.classes, splits, has_boxes=False)
    boxes: list[Box] = []
    sides: list[tuple[float, float]] = []
    labels: list[int] = []
    for image in dataset.images():
        for obj in image.objects or ():
            x1, y1, x2, y2 = obj.box
            if image.width and image.height and x1 < x2 and y1 < y2:
                boxes.append((x1 / image.width, y1 / image.height, x2 / image.width, y2 / image.height))
                sides.append((x2 - x1, y2 - y1))
                labels.append(obj.label)
    array = np.array(boxes, float).reshape(-1, 4)
    return Statistics(
        dataset.classes,
        {split: _split_counts(dataset, split) for split in dataset.splits},
        dict(Counter(len(image.objects) for image in dataset.images() if image.objects is not None)),
        array,
        np.array(sides, float).reshape(-1, 2),
        np.array(labels, int),
        coverage(array),
    )


def coverage(boxes: np.ndarray) -> np.ndarray:
    """Fraction of boxes (N, 4), in fractions of their image, that cover the centre of each cell: (48, 48)."""
    centres = (np.arange(CELLS) + 0.5) / CELLS
    across = (boxes[:, 0:1] <= centres) & (centres < boxes[:, 2:3])
    down = (boxes[:, 1:2] <= centres) & (centres < boxes[:, 3:4])
    counts: np.ndarray = down.T.astype(np.float32) @ across.astype(np.float32)
    return counts / max(1, len(boxes))


def _split_counts(dataset: AnnotatedDataset, split: str) -> SplitCounts:
    images = dataset.splits[split]
    counts = object_counts(dataset, split)
    return SplitCounts(
        len(images),
        sum(image.objects is None for image in images),
        sum(image.objects == () for image in images),
        counts.total(),
        tuple(counts[label] for label in range(len(dataset.classes))),
    )
