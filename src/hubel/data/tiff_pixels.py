"""What Pillow leaves undone of a TIFF's pixels, or gets wrong without a word."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from PIL.ImageFile import ImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_BITS, _PHOTOMETRIC, _SAMPLES, _PLANAR, _COLORMAP, _SAMPLE_FORMAT = 258, 262, 277, 284, 320, 339
_SUBFILE_TYPE, _SUB_DIRECTORIES, _EXTRA_SAMPLES, _DNG_VERSION = 254, 330, 338, 50706
_WHITE_IS_ZERO, _RGB = 0, 2
_SAMPLE_FORMATS = {2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}


@cache
def silence_libtiff() -> None:
    """Keep libtiff, which Pillow decodes with, from writing to stderr about a file that it calls ``tempfile.tif``.

    What is wrong is raised as an exception all the same.
    """
    logging.getLogger("PIL.TiffImagePlugin").addHandler(logging.NullHandler())
    with contextlib.suppress(AttributeError, OSError):  # where libtiff is linked in, its functions have no names
        library = ctypes.CDLL(import_module("PIL._imaging").__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            set_handler = getattr(library, name)
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


def with_true_palette(image: Image.Image) -> Image.Image:
    """The image, of mode P, with the colours that its file means.

    They may be 8-bit values in fields of 16 bits, where the high byte is zero: libtiff's own tools take them as such.
    """
    colors = _tags(image).get(_COLORMAP)
    if colors and max(colors) < 256:
        count = len(colors) // 3
        image.putpalette([colors[index + band * count] for index in range(count) for band in range(3)])
    return image


def deep_grey(image: Image.Image) -> tuple[np.ndarray, bool]:
    """Grey values of more than 8 bits, (H, W), and whether the least is white, which Pillow passes over.

    12 bits are scaled to 16; 32 bits without a sign, which Pillow takes for signed ones, are floats if they need to be.
    """
    values, tags = np.asarray(image), _tags(image)
    bits, kind = tags.get(_BITS, (16,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0]
    if bits == 12:
        values = np.round(values * (65535 / 4095)).astype(np.uint16)
    elif bits == 32 and kind == 1 and values.dtype == np.int32 and values.min() < 0:
        values = values.view(np.uint32).astype(np.float64)
    return values, tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def unread_layout(image: Image.Image) -> str | None:
    """The layout of samples of an opened image that Pillow reads wrong, in words; ``None`` for the others."""
    tags = _tags(image)
    bits = tags.get(_BITS, (8,))
    if tags.get(_PLANAR) == 2 and len(bits) > 1 and max(bits) > 8:
        return f"{_layout(tags)}, a plane each"
    if max(bits) == 8 and tags.get(_SAMPLE_FORMAT, (1,))[0] == 2:
        return _layout(tags)
    return None


def is_camera_raw(image: Image.Image, prefix: bytes) -> bool:
    """True for NEF, CR2, DNG, ARW and the like: TIFFs in which the image that Pillow opens is a preview."""
    tags = _tags(image)
    kind = tags.get(_SUBFILE_TYPE)
    is_preview = isinstance(kind, int) and bool(kind & 1) and _SUB_DIRECTORIES in tags  # a damaged tag is of any type
    return is_preview or _DNG_VERSION in tags or prefix[8:10] == b"CR"


def use_native_order(image: Image.Image) -> None:
    """Keep Pillow from swapping bytes that libtiff, which decodes compressed files, has swapped already."""
    if image.mode not in ("I", "F") or not isinstance(image, ImageFile):
        return
    image.tile = [
        tile._replace(args=(re.sub(r";(16|32)B(?=[SF]|$)", r";\1N", tile.args[0]), *tile.args[1:]))
        if tile.codec_name == "libtiff" and isinstance(tile.args, tuple)
        else tile
        for tile in image.tile
    ]


def has_undeclared_band(image: Image.Image) -> bool:
    """True if the fourth sample of an RGB image, which Pillow takes for transparency, is not said to be that, nor is.

    Transparency is mostly opaque, or nothing between; the infrared of an aerial photograph is neither.
    """
    tags = _tags(image)
    if image.mode != "RGBA" or _EXTRA_SAMPLES in tags or tags.get(_PHOTOMETRIC) != _RGB:
        return False
    counts = image.getchannel("A").histogram()
    is_mask = counts[0] + counts[255] == sum(counts) and counts[255] > 0
    return not is_mask and 2 * counts[255] < sum(counts)


def layout(file: BinaryIO) -> str | None:
    """Samples of a TIFF that Pillow does not open, in words: "4 floating-point samples of 32 bits"; else ``None``."""
    try:
        file.seek(0)
        directory = ImageFileDirectory_v2(file.read(8))
        file.seek(directory.next)
        directory.load(file)
        return _layout(directory)
    except Exception:  # hostile bytes may raise anything
        return None


def _layout(tags: Mapping[int, Any]) -> str:
    samples, bits = tags.get(_SAMPLES, 1), max(tags.get(_BITS, (1,)))
    kind = _SAMPLE_FORMATS.get(tags.get(_SAMPLE_FORMAT, (1,))[0], "")
    return f"{samples} {kind}{'sample' if samples == 1 else 'samples'} of {bits} bits per pixel"


def _tags(image: Image.Image) -> Mapping[int, Any]:
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    return tags
