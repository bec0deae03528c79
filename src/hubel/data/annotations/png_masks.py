"""Masks that JSON files carry as small PNG pictures, in base64 (LabelMe, Supervisely)."""

from __future__ import annotations

import base64
import binascii
import io
import zlib

import numpy as np
from PIL import Image

from hubel.data.annotations import rle
from hubel.data.annotations.records import RunLengthMask
from hubel.data.annotations.validators import InvalidAnnotation
from hubel.data.image_io import MAX_PIXELS


def unpacked(text: str, left: int, top: int, width: int, height: int, compressed: bool = False) -> RunLengthMask:
    """The mask of a picture of ``width × height`` whose part from ``left, top`` on is a PNG.

    Args:
        text: the PNG in base64.
        left: of the part, in pixels.
        top: likewise.
        width: of the whole picture.
        height: likewise.
        compressed: the PNG is packed by zlib once more.

    Raises:
        InvalidAnnotation: it is no PNG, or larger than the picture.
    """
    try:
        data = base64.b64decode(text, validate=False)
        if compressed:
            data = zlib.decompressobj().decompress(data, 4 * MAX_PIXELS)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            w, h = image.size
            if min(left, top) < 0 or left + w > width or top + h > height or width * height > MAX_PIXELS:
                raise InvalidAnnotation(f"a mask of {w}×{h} at {left}, {top} lies outside of its picture")
            part = np.asarray(image.convert("RGBA") if image.mode in ("P", "LA", "PA") else image)
    except (binascii.Error, zlib.error, OSError, SyntaxError, Image.DecompressionBombError, TypeError) as error:
        raise InvalidAnnotation(f"a mask is no PNG ({str(error)[:60]})") from error
    if part.ndim == 3:
        part = part[:, :, 3] if part.shape[2] == 4 else part.max(axis=2)
    pixels = np.zeros((height, width), dtype=bool)
    pixels[top : top + h, left : left + w] = part > 0
    return rle.encode(pixels)


def packed(mask: RunLengthMask, compressed: bool = False) -> tuple[str, int, int, int, int]:
    """The PNG of the part of a mask that has pixels, in base64, and the part's ``left, top, width, height``."""
    x1, y1, x2, y2 = map(int, rle.box(mask))
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)  # an empty mask is one empty pixel
    file = io.BytesIO()
    Image.fromarray(rle.decode(mask)[y1:y2, x1:x2]).save(file, "PNG")
    data = zlib.compress(file.getvalue()) if compressed else file.getvalue()
    return base64.b64encode(data).decode("ascii"), x1, y1, x2 - x1, y2 - y1
