"""Labels made on the picture as stored, turned with it as its EXIF data say, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hubel.data.annotations import rle
from hubel.data.annotations.records import AnnotatedImage, Annotation, Box, Polygon, RunLengthMask
from hubel.data.image_io import read_stored_size
from hubel.errors import ImageError

# Where a point of the stored picture of (w, h) pixels lies in the upright one, by EXIF orientation.
_TURNS: dict[int, Callable[[float, float, int, int], tuple[float, float]]] = {
    2: lambda x, y, w, h: (w - x, y),
    3: lambda x, y, w, h: (w - x, h - y),
    4: lambda x, y, w, h: (x, h - y),
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (h - y, x),
    7: lambda x, y, w, h: (h - y, w - x),
    8: lambda x, y, w, h: (y, w - x),
}
_BACK = {6: 8, 8: 6}


def stored_size(path: Path) -> tuple[int, int, int]:
    """Width and height of the picture as stored and its EXIF orientation, 1..8; ``(0, 0, 1)`` if it is unreadable."""
    try:
        return read_stored_size(path)
    except ImageError:
        return 0, 0, 1


def apply_exif(image: AnnotatedImage, orientation: int) -> AnnotatedImage:
    """The labels of a picture of ``width × height`` pixels as stored, in its upright pixels."""
    turn = _TURNS.get(orientation)
    if turn is None:
        return image
    w, h = image.width, image.height
    objects = image.objects and tuple(_turned(thing, turn, orientation, w, h) for thing in image.objects)
    width, height = (h, w) if orientation >= 5 else (w, h)
    return replace(image, width=width, height=height, objects=objects)


def undo_exif(image: AnnotatedImage) -> AnnotatedImage:
    """The labels in the pixels as stored; reads the picture's header."""
    *_, orientation = stored_size(image.path)
    return apply_exif(image, _BACK.get(orientation, orientation))


def _turned(thing: Annotation, turn: Callable[..., tuple[float, float]], way: int, w: int, h: int) -> Annotation:
    def ring(points: Polygon) -> Polygon:
        pairs = (turn(x, y, w, h) for x, y in zip(points[::2], points[1::2], strict=True))
        return tuple(value for pair in pairs for value in pair)

    x1, y1, x2, y2 = ring(thing.box)
    # Turned corners change places; what was the wrong way round before stays so.
    box: Box = (x1, y1, x2, y2)
    if thing.box[0] <= thing.box[2] and thing.box[1] <= thing.box[3]:
        box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
    polygons, holes = tuple(map(ring, thing.polygons)), tuple(map(ring, thing.holes))
    mask = thing.mask and _turned_mask(thing.mask, way)
    return replace(thing, box=box, polygons=polygons, holes=holes, mask=mask)


def _turned_mask(mask: RunLengthMask, way: int) -> RunLengthMask:
    pixels = rle.decode(mask)
    if way >= 5:
        pixels = pixels.T
    if way in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if way in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return rle.encode(np.ascontiguousarray(pixels))
