"""A small labelled data set with everything in it that any format can say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from hubel.data.annotations import LabelledDataset, LabelledImage, LabelledObject, RunLengthMask
from hubel.data.annotations.rle import encode

WIDTH, HEIGHT = 64, 48
TRIANGLE = (10.0, 5.0, 30.5, 8.25, 20.0, 40.0)
SQUARE = (40.0, 10.0, 60.0, 10.0, 60.0, 30.0, 40.0, 30.0)
HOLE = (45.0, 15.0, 55.0, 15.0, 55.0, 25.0, 45.0, 25.0)


def picture(path: Path, width: int = WIDTH, height: int = HEIGHT, orientation: int = 1) -> Path:
    """A picture of one grey; with an EXIF orientation its stored pixels are ``width × height``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.new("RGB", (width, height), (90, 90, 90))
    if orientation != 1:
        image.save(path, exif=exif)
    else:
        image.save(path)
    return path


def disc() -> RunLengthMask:
    """A disc of radius 8 around (20, 20)."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return encode((x + 0.5 - 20) ** 2 + (y + 0.5 - 20) ** 2 <= 64)


def small_set(root: Path) -> LabelledDataset:
    """Two splits; boxes, outlines, holes, masks, flags, attributes; an empty, an unlabelled and a turned picture."""
    a, b, c = (picture(root / "train" / name) for name in ("a.jpg", "b.png", "c.jpg"))
    turned = picture(root / "val" / "turned.jpg", HEIGHT, WIDTH, orientation=6)  # upright it is 64 × 48
    d = picture(root / "val" / "d e.jpg")
    boxes = (
        LabelledObject(1, (0, 0, WIDTH, HEIGHT), difficult=True, truncated=True),
        LabelledObject(0, (3, 4, 10, 20), occluded=True, attributes={"colour": "dark blue", "age": "3"}),
        LabelledObject(2, (1.25, 2.5, 33.75, 40.5)),
        LabelledObject(2, (5, 5, 9, 9), ignore=True, score=0.75),
        LabelledObject(0, (7, 8, 17, 28), annotator="ann@example.org"),
    )
    shapes = (
        LabelledObject(0, (10, 5, 30.5, 40), polygons=(TRIANGLE,)),
        LabelledObject(1, (10, 5, 60, 40), polygons=(TRIANGLE, SQUARE)),
        LabelledObject(1, (40, 10, 60, 30), polygons=(SQUARE,), holes=(HOLE,)),
        LabelledObject(2, (12, 12, 28, 28), mask=disc()),
        LabelledObject(2, (12, 12, 28, 28), mask=disc(), crowd=True),
    )
    train = (
        LabelledImage(a, WIDTH, HEIGHT, boxes),
        LabelledImage(b, WIDTH, HEIGHT, ()),
        LabelledImage(c, 0, 0, None),
    )
    val = (
        LabelledImage(d, WIDTH, HEIGHT, shapes),
        LabelledImage(turned, WIDTH, HEIGHT, (LabelledObject(1, (2, 4, 22, 14)),)),
    )
    return LabelledDataset(root, ("bus", "car", "ox"), {"train": train, "val": val})
