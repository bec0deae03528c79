"""Masks as PNG images in base64, as LabelMe and Supervisely embed them in JSON."""

from __future__ import annotations

import base64
import binascii
import io
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, UnidentifiedImageError

from hubel import masks
from hubel.data.annotations.parse import InvalidAnnotation

_MAX_PNG_BYTES = 64 << 20
_STRIP_PIXELS = 1 << 22


def decode_png(
    text: str,
    left: int,
    top: int,
    width: int,
    height: int,
    count: Callable[[int], None] = lambda pixels: None,
    compressed: bool = False,
) -> masks.RunLengthMask:
    """Decode the mask of an image of ``width × height`` pixels from a PNG of the part that begins at ``left, top``.

    ``count`` is told the number of its pixels before it is decoded.
    ``compressed`` PNGs are compressed by zlib once more. Raises :class:`InvalidAnnotation` if it is not a PNG, or
    extends beyond the image.
    """
    try:
        data = base64.b64decode(text, validate=False)
        if compressed:
            data = zlib.decompressobj().decompress(data, _MAX_PNG_BYTES)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            w, h = image.size
            if min(left, top) < 0 or left + w > width or top + h > height or width * height > masks.MAX_PIXELS:
                raise InvalidAnnotation(f"a mask of {w}×{h} at {left}, {top} extends beyond its image")
            count(h * w)
            part = _painted(image)
    except UnidentifiedImageError as error:  # its message is the address of the bytes in memory
        raise InvalidAnnotation("a mask is not a PNG") from error
    except (binascii.Error, zlib.error, OSError, SyntaxError, Image.DecompressionBombError, TypeError) as error:
        raise InvalidAnnotation(f"a mask is not a PNG ({str(error)[:60]})") from error
    return masks.encode_part(part, left, top, height, width)


def _painted(image: Image.Image) -> np.ndarray:
    """The pixels, (H, W) bool, that are not transparent, or not 0 where none can be; a few rows at a time."""
    painted = np.zeros(image.size[::-1], dtype=bool)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        part = np.asarray(strip.convert("RGBA") if image.mode in ("P", "LA", "PA") else strip)
        if part.ndim == 3:
            part = part[:, :, 3] if part.shape[2] == 4 else part.max(axis=2)
        painted[top : top + rows] = part > 0
    return painted


def encode_png(mask: masks.RunLengthMask, compressed: bool = False) -> tuple[str, int, int, int, int]:
    """A PNG, in base64, of the part of a mask that has pixels; then that part's ``left, top, width, height``."""
    x1, y1, x2, y2 = map(int, masks.mask_box(mask))
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)  # an empty mask becomes one empty pixel
    file = io.BytesIO()
    Image.fromarray(masks.decode(mask)[y1:y2, x1:x2]).save(file, "PNG")
    data = zlib.compress(file.getvalue()) if compressed else file.getvalue()
    return base64.b64encode(data).decode("ascii"), x1, y1, x2 - x1, y2 - y1
