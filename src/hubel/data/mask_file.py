"""Mask files: images whose pixels are indices of classes, or have the classes' colours."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from hubel.data.samples import IGNORE_INDEX, ClassMap
from hubel.errors import ImageError

_INDICES = "save masks of one channel, in which the value of a pixel is the index of its class"
_VOID = {255: IGNORE_INDEX, 65535: IGNORE_INDEX}  # values of pixels that never count, in 8 and 16 bits

Colours = tuple[tuple[int, int, int], ...]
"""Red, green, blue, 0..255, of each value of a mask."""


@dataclass(frozen=True)
class MaskFile(ClassMap):
    """A mask in a file.

    Attributes:
        colours: of the values, where the mask may be an image of colours.
        classes: the class of each value from 0 to 255, where it is not the value itself; values that nothing is said of
            stay as they are.
        names_ignored: see :class:`~hubel.data.samples.ClassMap`.
    """

    of_objects: ClassVar[bool] = False
    path: Path
    colours: Colours | None = None
    classes: bytes | None = None
    names_ignored: bool = False

    def __str__(self) -> str:
        return str(self.path)

    def read(self) -> np.ndarray:
        """As :func:`read_class_map`, with the classes of the values."""
        values = read_class_map(self.path, self.colours)
        return values if self.classes is None else np.frombuffer(self.classes, np.uint8)[values]

    def relabel(self, new: np.ndarray) -> MaskFile:
        """See :class:`~hubel.data.samples.ClassMap`."""
        if np.array_equal(new, np.arange(len(new))):
            return self
        of_classes = np.full(256, IGNORE_INDEX, np.uint8)
        of_classes[: len(new)] = np.where(new < 0, IGNORE_INDEX, new)
        old = np.arange(256) if self.classes is None else np.frombuffer(self.classes, np.uint8)
        return replace(self, classes=of_classes[old].tobytes())


def read_class_map(path: Path, colours: Colours | None = None) -> np.ndarray:
    """The class of every pixel, uint8 (h, w), of an image of indices, or of the ``colours`` of the classes.

    Grey images of any depth and palettes are read, and RGB where its channels are equal. Raises :class:`ImageError` for
    other colours, transparency, values above 255 (but the 65535 of pixels that do not count), and for what cannot be
    read.
    """
    try:
        with Image.open(path, formats=("PNG", "BMP", "TIFF", "GIF")) as image:
            return _indices(path, image) if colours is None else _of_colours(path, image, colours)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises whatever damaged bytes lead to
        raise ImageError(f"{path} cannot be read: {error}", "copy or export the mask again") from error


def read_object_ids(path: Path) -> np.ndarray:
    """The value of every pixel, int32 (h, w), of an image whose values number objects, in 8 or 16 bits.

    Raises :class:`ImageError` for colours and for what cannot be read.
    """
    try:
        with Image.open(path, formats=("PNG", "BMP", "TIFF", "GIF")) as image:
            values = np.asarray(image)
            if values.ndim == 3 and (values[..., :3] == values[..., :1]).all():
                values = values[..., 0]
            if values.ndim != 2 or values.dtype.kind not in "uib":
                message = f"{path} is not a mask of objects: its mode is {image.mode}, with colours"
                raise ImageError(message, "save masks of one channel, in which the value of a pixel is its object's")
            return values.astype(np.int32)
    except ImageError:
        raise
    except Exception as error:  # Pillow raises whatever damaged bytes lead to
        raise ImageError(f"{path} cannot be read: {error}", "copy or export the mask again") from error


def _indices(path: Path, image: Image.Image) -> np.ndarray:
    mode = image.mode
    # Pillow spreads the values of fewer bits over 0 to 255.
    step = {"L;2": 85, "L;4": 17}.get(_raw_mode(image), 1)
    values = np.asarray(image)
    if mode in ("L", "P", "1"):
        return values.astype(np.uint8) // step
    if mode in ("I", "I;16", "I;16B", "I;16L") and values.ndim == 2:
        for void, index in _VOID.items():
            values = np.where(values == void, index, values)
        if values.min(initial=0) < 0 or values.max(initial=0) > 255:
            message = f"{path} is not a mask of class indices: it has the value {values.max()}"
            raise ImageError(message, "number the classes from 0 to 254")
        return values.astype(np.uint8)
    if mode in ("LA", "PA", "RGB", "RGBA") and values.ndim == 3:
        count = 3 if mode.startswith("RGB") else 1
        if (values[..., count:] != 255).any():
            raise ImageError(f"{path} is not a mask of class indices: it is transparent in places", _INDICES)
        if (values[..., :count] == values[..., :1]).all():
            return values[..., 0].astype(np.uint8)
    raise ImageError(f"{path} is not a mask of class indices: its mode is {mode}, with colours", _INDICES)


def _of_colours(path: Path, image: Image.Image, colours: Colours) -> np.ndarray:
    """The number of each pixel's colour, also of a palette's; as :func:`_indices` for other images of one channel."""
    if image.mode == "P" and (palette := image.getpalette("RGB")):
        indices = np.asarray(image)
        entries = np.array(palette, np.uint8).reshape(-1, 3)
        used = np.unique(indices[indices != IGNORE_INDEX])
        if used.size and used[-1] < len(entries) and (entries[used] != entries[used, :1]).any():
            values = np.full(256, IGNORE_INDEX, np.uint8)
            counts = np.bincount(indices.ravel(), minlength=256)[used]
            values[used] = _numbers(path, entries[used], colours, counts)
            class_map: np.ndarray = values[indices]
            return class_map
    if image.mode not in ("RGB", "RGBA"):
        return _indices(path, image)
    pixels = np.asarray(image)
    if pixels.shape[2] == 4 and (pixels[..., 3] != 255).any():
        raise ImageError(f"{path} is transparent in places", "save it without an alpha channel")
    return _numbers(path, pixels[..., :3], colours)


def _numbers(path: Path, found: np.ndarray, colours: Colours, pixels: np.ndarray | int = 1) -> np.ndarray:
    """Numbers uint8 (…) of the colours ``found`` (…, 3), each that of so many pixels, in the list of all."""
    codes = _codes(found)
    known = _codes(np.array(colours, np.uint8))
    order = np.argsort(known)
    numbers: np.ndarray = order[np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)]
    if (wrong := known[numbers] != codes).any():
        red, green, blue = found[wrong][0].tolist()
        count = int((wrong * pixels).sum())
        message = f"{path} has the colour {red} {green} {blue}, which no class has, in {count:,} pixels"
        raise ImageError(message, "add the colour to classes.txt, or save the mask without smoothing")
    return numbers.astype(np.uint8)


def _codes(colours: np.ndarray) -> np.ndarray:
    """Colours uint8 (…, 3) as numbers (…)."""
    red, green, blue = (colours[..., channel].astype(np.int32) for channel in range(3))
    codes: np.ndarray = (red << 16) | (green << 8) | blue
    return codes


def _raw_mode(image: Image.Image) -> str:
    """How the values of a PNG are stored, such as ``L;4``; empty for other files."""
    tile = next(iter(getattr(image, "tile", ())), None)
    arguments = tile[3] if tile is not None and image.format == "PNG" else ""
    return arguments if isinstance(arguments, str) else str(arguments[0] if arguments else "")
