"""Small data sets of different kinds, from HUBEL_DATA and Fashion-MNIST: what ``choose_defaults.py`` chooses on.

Only training images of each are used. Crops of objects become class folders; crops of one photograph belong together,
so the groups are written beside them.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from fashion_mnist import CLASSES, read_idx
from hubel.data.image_io import read_image
from hubel.tasks.registry import get_task

_SMALLEST_CROP = 24  # pixels of the shorter side
_FEWEST_CROPS = 15  # of a class
_MOST_CROPS = 150
_FASHION_IMAGES = 200  # of a class


@dataclass(frozen=True)
class SmallDataSet:
    """A data set, the options that all its trainings have in common, and the file of its groups if it has any."""

    folder: Path
    options: dict
    groups: Path | None = None


def crops_of_objects(source: Path, target: Path) -> SmallDataSet:
    """``target/CLASS/NUMBER.png``: the objects of a detection data set, with a tenth of their size around them."""
    groups = target.with_suffix(".csv")
    if not groups.exists():
        data = get_task("detect").read(source)
        samples = data.splits.get("train") or data.splits["all"]
        boxes: dict[int, list[tuple[Path, np.ndarray]]] = defaultdict(list)
        for sample in samples:
            for box, label, crowd in zip(sample.boxes, sample.labels.tolist(), sample.crowd, strict=True):
                if not crowd and min(box[2:] - box[:2]) >= _SMALLEST_CROP:
                    boxes[label].append((sample.path, box))
        rows = []
        for label, found in sorted(boxes.items()):
            # Evenly from the whole list: neighbours in it are often of one photograph.
            picked = np.unique(np.linspace(0, len(found) - 1, min(len(found), _MOST_CROPS)).astype(int))
            if len(found) < _FEWEST_CROPS:
                continue
            folder = target / data.classes[label]
            folder.mkdir(parents=True, exist_ok=True)
            for number, (path, box) in enumerate(found[index] for index in picked.tolist()):
                margin = 0.1 * (box[2:] - box[:2])
                corners = np.concatenate([box[:2] - margin, box[2:] + margin]).round().astype(int).tolist()
                image = read_image(path)
                corners = [
                    max(0, corners[0]),
                    max(0, corners[1]),
                    min(image.width, corners[2]),
                    min(image.height, corners[3]),
                ]
                image.crop(corners).save(folder / f"{number:04}.png")
                rows.append((f"{data.classes[label]}/{number:04}.png", path.name))
        with groups.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("image", "group"), *rows])
    return SmallDataSet(target, {"task": "classify"}, groups)


def fashion_subset(source: Path, target: Path) -> SmallDataSet:
    """2,000 of Fashion-MNIST's training images, seen at 96 pixels."""
    if not target.exists():
        images, labels = (read_idx(next(source.glob(f"train-{kind}*"))) for kind in ("images", "labels"))
        for label, name in enumerate(CLASSES):
            (target / name).mkdir(parents=True)
            for number in np.flatnonzero(labels == label)[:_FASHION_IMAGES].tolist():
                Image.fromarray(images[number]).save(target / name / f"{number:05}.png")
    return SmallDataSet(target, {"task": "classify", "image_size": 96})


def small_data_sets(data: Path, folder: Path, fashion: Path) -> dict[str, Callable[[], SmallDataSet]]:
    """What makes each data set, by its name; made in ``folder`` where they are not images as they lie in ``data``."""
    if not data.is_dir():
        sys.exit(f"{data} is not a folder: set HUBEL_DATA")
    return {
        "flowers": lambda: SmallDataSet(data / "flowers5", {"task": "classify"}),
        "cells": lambda: crops_of_objects(data / "bccd", folder / "cells"),
        "objects": lambda: crops_of_objects(data / "coco128" / "boxes128.json", folder / "objects"),
        "fashion": lambda: fashion_subset(fashion, folder / "fashion"),
        "raccoon-box": lambda: SmallDataSet(data / "raccoon", {"task": "localize"}),
        "raccoon": lambda: SmallDataSet(data / "raccoon", {"task": "detect"}),
        "bccd": lambda: SmallDataSet(data / "bccd", {"task": "detect"}),
    }
