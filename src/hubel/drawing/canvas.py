"""Images to draw on: upscaling, rounded corners, fonts, saving."""

from __future__ import annotations

import importlib.util
import io
import math
import sys
from bisect import bisect_right
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageShow

from hubel.errors import HubelError, ImageError
from hubel.fileio import atomic_write

MINIMUM_SIDE = 240
"""Images whose shorter side has fewer pixels are upscaled before anything is drawn on them."""

LARGEST_ENLARGED_SIDE = 4096
"""Longest side of an upscaled image; one that is still too narrow is padded with a dark background."""

Colour = tuple[int, int, int]
"""Red, green, blue, 0..255."""

DARK = (16, 18, 24)
WHITE = (255, 255, 255)


def save_image(path: str | Path, image: Image.Image) -> None:
    """Write an image atomically, in the format of the path's suffix.

    Raises:
        ImageError: Pillow cannot write the format.
        DataError: the folder cannot be written, the disk is full, or the format cannot hold such an image; an older
            file is then unchanged.
    """
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ImageError(f"{path}: {path.suffix!r} is not a known image format", "use .jpg, .png or .webp")
    settings: dict[str, int] = {"JPEG": {"quality": 92, "subsampling": 0}, "WEBP": {"quality": 90}}.get(kind, {})
    with atomic_write(path) as partial:
        encoded = io.BytesIO()
        image.save(encoded, format=kind, **settings)
        partial.write_bytes(encoded.getbuffer())  # Pillow itself does not see that a full disk has taken a part only


def show_image(image: Image.Image) -> None:
    """Show an image in the notebook, else in the computer's image viewer.

    Raises:
        HubelError: there is no viewer, as on a computer without a screen.
    """
    if (notebook := _notebook_display()) is not None:
        notebook(image)
    elif not ImageShow.show(image):
        raise HubelError("there is no image viewer here", 'write the image to a file: save("image.png")')


def _notebook_display() -> Callable[[Image.Image], object] | None:
    """IPython's ``display`` in a notebook; None in a terminal."""
    if "IPython" not in sys.modules:
        return None
    from IPython.core.getipython import get_ipython
    from IPython.display import display

    shell = get_ipython()
    return display if shell is not None and hasattr(shell, "kernel") else None


def png_bytes(image: Image.Image, side: int) -> bytes:
    """The image as a PNG file, scaled down so that no side has more than ``side`` pixels."""
    image = image.copy()
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True, icc_profile=None)
    return file.getvalue()


def upscale_small(image: Image.Image) -> Image.Image:
    """The image, upscaled if needed so that both sides have at least :data:`MINIMUM_SIDE` pixels."""
    width, height = image.size
    if min(width, height) >= MINIMUM_SIDE:
        return image
    scale = max(1.0, min(MINIMUM_SIDE / min(width, height), LARGEST_ENLARGED_SIDE / max(width, height)))
    # An image of a few pixels stays sharp-edged instead of becoming a blur.
    smoothing = Image.Resampling.NEAREST if scale > 8 else Image.Resampling.BICUBIC
    scaled = image.resize((max(1, round(width * scale)), max(1, round(height * scale))), smoothing)
    size = (max(MINIMUM_SIDE, scaled.width), max(MINIMUM_SIDE, scaled.height))
    if size == scaled.size:
        return scaled
    padded = Image.new("RGB", size, DARK)
    padded.paste(scaled, ((size[0] - scaled.width) // 2, (size[1] - scaled.height) // 2))
    return padded


def rounded_mask(size: tuple[int, int], radius: int) -> Image.Image:
    """A mask (mode L) of a rectangle with smooth round corners."""
    mask = Image.new("L", size, 255)
    radius = min(radius, size[0] // 2, size[1] // 2)
    if radius < 1:
        return mask
    fine = Image.new("L", (8 * radius, 8 * radius))
    ImageDraw.Draw(fine).ellipse((0, 0, 8 * radius - 1, 8 * radius - 1), fill=255)
    disc = fine.resize((2 * radius, 2 * radius), Image.Resampling.BOX)
    for x, from_x in ((0, 0), (size[0] - radius, radius)):
        for y, from_y in ((0, 0), (size[1] - radius, radius)):
            mask.paste(disc.crop((from_x, from_y, from_x + radius, from_y + radius)), (x, y))
    return mask


# Aileron (part of Pillow) looks best but has little beyond ASCII; DejaVu (part of matplotlib) has the alphabets
# of Europe and the Near East; the files below are the systems' fonts for Chinese, Japanese and Korean.
_SYSTEM_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "msyh.ttc",
    "YuGothM.ttc",
    "malgun.ttf",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "Arial Unicode.ttf",
)
_UNASSIGNED = "\U0010fffe"


def one_line(name: str) -> str:
    """The text on one line, without control characters."""
    return "".join(letter for letter in " ".join(name.split()) if letter.isprintable()) or "?"


def shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """``text`` if it fits into ``width`` pixels, else as much of it as fits with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    # The length grows with the number of letters, except for a pixel or two of kerning.
    kept = bisect_right(range(1, len(text)), width, key=lambda n: font.getlength(text[:n].rstrip() + "…"))
    return text[: max(1, kept)].rstrip(" ,;-–") + "…"


def text_label(
    text: str, size: int, colour: Colour, ink: Colour, padding: int, height: int, limit: float = math.inf
) -> Image.Image:
    """A label of one line of ``size`` pixels, at most ``limit`` pixels wide."""
    name = one_line(text)
    font = load_font(font_file_for(name), size)
    name = shorten(name, font, limit - 2 * padding)
    label = Image.new("RGB", (math.ceil(font.getlength(name)) + 2 * padding, height), colour)
    ImageDraw.Draw(label).text((padding, height / 2), name, fill=ink, font=font, anchor="lm")
    return label


@lru_cache(maxsize=64)
def load_font(file: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of ``size`` pixels; ``""`` is Pillow's own."""
    if file:
        return ImageFont.truetype(file, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@lru_cache(maxsize=1024)
def font_file_for(text: str) -> str:
    """File name of the first font that has every letter; "" is Pillow's own."""
    dejavu = _dejavu()
    for file in ("", dejavu, *_SYSTEM_FONTS):
        try:
            font = load_font(file, 24)
        except OSError:
            continue
        if _has_letters(font, text):
            return file
    return dejavu


def _has_letters(font: ImageFont.FreeTypeFont, text: str) -> bool:
    missing = bytes(font.getmask(_UNASSIGNED))
    return all(bytes(font.getmask(letter)) != missing for letter in set(text) if not letter.isspace())


def _dejavu() -> str:
    """Path of matplotlib's DejaVu Sans, found without importing matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        return ""
    return str(Path(spec.submodule_search_locations[0], "mpl-data", "fonts", "ttf", "DejaVuSans.ttf"))
