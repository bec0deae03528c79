"""Convert annotations of the image as stored to the image as EXIF rotates it, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from hubel import masks
from hubel.data.annotations.records import AnnotatedImage, Annotation
from hubel.data.image_io import read_stored_size
from hubel.errors import ImageError

# Position in the upright image of a point of the stored image of (w, h) pixels, by EXIF orientation.
_TRANSFORMS: dict[int, Callable[[float, float, int, int], tuple[float, float]]] = {
    2: lambda x, y, w, h: (w - x, y),
    3: lambda x, y, w, h: (w - x, h - y),
    4: lambda x, y, w, h: (x, h - y),
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (h - y, x),
    7: lambda x, y, w, h: (h - y, w - x),
    8: lambda x, y, w, h: (y, w - x),
}
_INVERSE = {6: 8, 8: 6}


def stored_size(path: Path) -> tuple[int, int, int]:
    """Width and height of the image as stored and its EXIF orientation, 1..8; ``(0, 0, 1)`` if it is unreadable."""
    try:
        return read_stored_size(path)
    except ImageError:
        return 0, 0, 1


def apply_exif(image: AnnotatedImage, orientation: int) -> AnnotatedImage:
    """Convert from pixels of the image as stored, ``width × height``, to pixels of the upright image."""
    transform = _TRANSFORMS.get(orientation)
    if transform is None:
        return image
    w, h = image.width, image.height

    def convert(polygon: masks.Polygon) -> masks.Polygon:
        pairs = (transform(x, y, w, h) for x, y in zip(polygon[::2], polygon[1::2], strict=True))
        return tuple(value for pair in pairs for value in pair)

    objects = image.objects and tuple(_rotated(obj, convert, orientation) for obj in image.objects)
    width, height = (h, w) if orientation >= 5 else (w, h)
    return replace(image, width=width, height=height, objects=objects)


def undo_exif(image: AnnotatedImage) -> AnnotatedImage:
    """Convert to pixels of the image as stored; reads the image's header."""
    *_, orientation = stored_size(image.path)
    return apply_exif(image, _INVERSE.get(orientation, orientation))


def _rotated(obj: Annotation, convert: Callable[[masks.Polygon], masks.Polygon], orientation: int) -> Annotation:
    x1, y1, x2, y2 = box = convert(obj.box)
    # Corners change their order in rotation; a box that was inside out stays so.
    is_ordered = obj.box[0] <= obj.box[2] and obj.box[1] <= obj.box[3]
    box = masks.bounding_box([box]) if is_ordered else (x1, y1, x2, y2)
    polygons, holes = tuple(map(convert, obj.polygons)), tuple(map(convert, obj.holes))
    mask = obj.mask
    if mask is not None:
        pixels = masks.decode(mask)
        pixels = pixels.T if orientation >= 5 else pixels
        pixels = pixels[:, ::-1] if orientation in (2, 3, 6, 7) else pixels
        pixels = pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
        mask = masks.encode(np.ascontiguousarray(pixels))
    return replace(obj, box=box, polygons=polygons, holes=holes, mask=mask)
