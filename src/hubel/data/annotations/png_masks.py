"""Masks as PNG images in base64, as LabelMe and Supervisely embed them in JSON."""

from __future__ import annotations

import base64
import binascii
import io
import zlib

import numpy as np
from PIL import Image, UnidentifiedImageError

from hubel import masks
from hubel.data.annotations.parse import InvalidAnnotation


def decode_png(
    text: str, left: int, top: int, width: int, height: int, compressed: bool = False
) -> masks.RunLengthMask:
    """Decode the mask of an image of ``width × height`` pixels from a PNG of the part that begins at ``left, top``.

    ``compressed`` PNGs are compressed by zlib once more. Raises :class:`InvalidAnnotation` if it is not a PNG, or
    extends beyond the image.
    """
    try:
        data = base64.b64decode(text, validate=False)
        if compressed:
            data = zlib.decompressobj().decompress(data, 4 * masks.MAX_PIXELS)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            w, h = image.size
            if min(left, top) < 0 or left + w > width or top + h > height or width * height > masks.MAX_PIXELS:
                raise InvalidAnnotation(f"a mask of {w}×{h} at {left}, {top} extends beyond its image")
            part = np.asarray(image.convert("RGBA") if image.mode in ("P", "LA", "PA") else image)
    except UnidentifiedImageError as error:  # its message is the address of the bytes in memory
        raise InvalidAnnotation("a mask is not a PNG") from error
    except (binascii.Error, zlib.error, OSError, SyntaxError, Image.DecompressionBombError, TypeError) as error:
        raise InvalidAnnotation(f"a mask is not a PNG ({str(error)[:60]})") from error
    if part.ndim == 3:
        part = part[:, :, 3] if part.shape[2] == 4 else part.max(axis=2)
    pixels = np.zeros((height, width), dtype=bool)
    pixels[top : top + h, left : left + w] = part > 0
    return masks.encode(pixels)


def encode_png(mask: masks.RunLengthMask, compressed: bool = False) -> tuple[str, int, int, int, int]:
    """A PNG, in base64, of the part of a mask that has pixels; then that part's ``left, top, width, height``."""
    x1, y1, x2, y2 = map(int, masks.mask_box(mask))
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)  # an empty mask becomes one empty pixel
    file = io.BytesIO()
    Image.fromarray(masks.decode(mask)[y1:y2, x1:x2]).save(file, "PNG")
    data = zlib.compress(file.getvalue()) if compressed else file.getvalue()
    return base64.b64encode(data).decode("ascii"), x1, y1, x2 - x1, y2 - y1
