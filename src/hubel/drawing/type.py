"""Type on pictures: a font that has the letters, lines that fit."""

from __future__ import annotations

import importlib.util
from bisect import bisect_right
from functools import lru_cache
from pathlib import Path

from PIL import ImageFont

# Aileron (inside Pillow) looks best but has little beyond ASCII; DejaVu (inside matplotlib) has the alphabets
# of Europe and the Near East; the files below are what systems bring for Chinese, Japanese and Korean.
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


def percent(score: float) -> str:
    """A probability 0..1 in two digits."""
    if score > 0.995:
        return "100%" if score == 1 else ">99%"
    return "<1%" if score < 0.01 else f"{100 * score:.0f}%"


def one_line(name: str) -> str:
    """One line without control characters."""
    return "".join(letter for letter in " ".join(name.split()) if letter.isprintable()) or "?"


def shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """``text`` if it fits into ``width`` pixels, else its longest beginning that does with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    # Lengths grow with the number of letters, but for the kerning of a pixel or two.
    kept = bisect_right(range(1, len(text)), width, key=lambda n: font.getlength(text[:n].rstrip() + "…"))
    return text[: max(1, kept)].rstrip(" ,;-–") + "…"


@lru_cache(maxsize=64)
def load_font(file: str, size: int) -> ImageFont.FreeTypeFont:
    """A font of ``size`` pixels; ``""`` is the one inside Pillow."""
    if file:
        return ImageFont.truetype(file, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@lru_cache(maxsize=1024)
def font_file_for(text: str) -> str:
    """The first font that has every letter: a file name, or "" for the one inside Pillow."""
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
    """The path of matplotlib's DejaVu Sans, found without the cost of importing matplotlib."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or not spec.submodule_search_locations:
        return ""
    return str(Path(spec.submodule_search_locations[0], "mpl-data", "fonts", "ttf", "DejaVuSans.ttf"))
