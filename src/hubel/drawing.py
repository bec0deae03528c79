"""Results written on pictures: panels of classes and probabilities, readable on any photograph.

Everything is drawn with Pillow. Sizes follow the picture's, so that a thumbnail and an 8,000 pixel scan look
alike when both fill the same window.
"""

from __future__ import annotations

import importlib.util
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from hubel.errors import ImageError
from hubel.results import ClassScore
from hubel.writing import replacing

MINIMUM_SIDE = 240
"""Pictures with a shorter side in pixels are enlarged before anything is written on them."""

LARGEST_ENLARGED_SIDE = 4096
"""How far an enlarged picture's longer side may grow; what is still too narrow gets a dark ground."""

_GROUND = (16, 18, 24)
_OPACITY = 0.74
_WHITE = (255, 255, 255)
_GREY = (226, 229, 234)
_BEST_BAR = (255, 200, 66)
_BAR = (150, 196, 255)
_TRACK = (96, 99, 106)

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


def draw_class_scores(image: Image.Image, scores: Sequence[ClassScore]) -> Image.Image:
    """Write classes and their probabilities on a picture.

    A translucent dark panel in the lower left corner holds the best class large and the next ones smaller,
    each with a bar as long as its probability. Of the next ones those below 1 % are left out, and those that
    would make the panel taller than 45 % of the picture. Long names are shortened.

    Args:
        image: any mode and size; it is not modified.
        scores: the classes, best first; with none the picture comes back without a panel.

    Returns:
        A new RGB image: of the same size, or enlarged so that both sides have ``MINIMUM_SIDE`` pixels.
    """
    picture = _large_enough(image.convert("RGB") if image.mode != "RGB" else image.copy())
    if scores:
        _draw_panel(picture, _lay_out(picture.size, scores))
    return picture


def save_annotated(path: str | Path, image: Image.Image) -> None:
    """Write an image in the format of the path's suffix, beside the path first and renamed when complete.

    Args:
        path: where to; the folder exists.
        image: what to write.

    Raises:
        ImageError: a suffix that Pillow cannot write.
        DataError: the folder cannot be written, or the disk is full; an older file is then as it was.
    """
    path = Path(path)
    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise ImageError(f"{path}: no picture format is called {path.suffix!r}.", "Use .jpg, .png or .webp.")
    settings: dict[str, int] = {"JPEG": {"quality": 92, "subsampling": 0}, "WEBP": {"quality": 90}}.get(kind, {})
    with replacing(path) as partial:
        image.save(partial, format=kind, **settings)


def _large_enough(picture: Image.Image) -> Image.Image:
    width, height = picture.size
    if min(width, height) >= MINIMUM_SIDE:
        return picture
    scale = max(1.0, min(MINIMUM_SIDE / min(width, height), LARGEST_ENLARGED_SIDE / max(width, height)))
    # A picture of a few pixels is to be seen as such, not as a blur.
    smoothing = Image.Resampling.NEAREST if scale > 8 else Image.Resampling.BICUBIC
    scaled = picture.resize((max(1, round(width * scale)), max(1, round(height * scale))), smoothing)
    size = (max(MINIMUM_SIDE, scaled.width), max(MINIMUM_SIDE, scaled.height))
    if size == scaled.size:
        return scaled
    ground = Image.new("RGB", size, _GROUND)
    ground.paste(scaled, ((size[0] - scaled.width) // 2, (size[1] - scaled.height) // 2))
    return ground


@dataclass(frozen=True)
class _Row:
    """One class of a panel: what is written, in which font, and how tall row and bar are in pixels."""

    name: str
    percent: str
    score: float
    font: ImageFont.FreeTypeFont
    height: int
    bar: int


@dataclass(frozen=True)
class _Panel:
    """Where a panel lies (x1, y1, x2, y2 in pixels), its inner margin, corner radius and rows, best first."""

    box: tuple[int, int, int, int]
    padding: int
    radius: int
    rows: tuple[_Row, ...]


def _lay_out(size: tuple[int, int], scores: Sequence[ClassScore]) -> _Panel:
    width, height = size
    text = max(12.5, min(0.0295 * math.sqrt(width * height), 0.055 * min(width, height)))
    margin, padding = round(0.9 * text), round(0.9 * text)
    shown = [scores[0], *(score for score in scores[1:] if score.score >= 0.01)]
    rows = _rows(shown, text, room=0.45 * height - 2 * padding)
    gap = 1.6 * text
    numbers = max(row.font.getlength(row.percent) for row in rows)
    wanted = max(row.font.getlength(row.name) for row in rows) + gap + numbers
    most = min(width - 2 * margin, max(0.5 * width, 26 * text)) - 2 * padding
    inner = math.ceil(min(max(wanted, 12 * text), most))
    fitted = tuple(
        replace(row, name=_shorten(row.name, row.font, inner - gap - row.font.getlength(row.percent))) for row in rows
    )
    top = height - margin - sum(row.height for row in rows) - 2 * padding
    box = (margin, top, margin + inner + 2 * padding, height - margin)
    return _Panel(box, padding, round(0.7 * text), fitted)


def _rows(scores: Sequence[ClassScore], text: float, room: float) -> list[_Row]:
    """The rows that fit into ``room`` pixels of height, the best class always; ``text`` is the type size."""
    names = [_clean(score.name) for score in scores]
    file = _font_file("".join(names))
    rows: list[_Row] = []
    for score, name in zip(scores, names, strict=True):
        share, line, bar = (1.5, 2.5, 0.3) if not rows else (1.0, 1.9, 0.18)
        height = round(line * text)
        if rows and sum(row.height for row in rows) + height > room:
            break
        font = _font(file, round(share * text))
        rows.append(_Row(name, _percent(score.score), score.score, font, height, max(2, round(bar * text))))
    return rows


def _draw_panel(picture: Image.Image, panel: _Panel) -> None:
    """Darken and soften what lies under the panel, in place, and write the rows on it."""
    under = picture.crop(panel.box)
    # Blurring at a quarter of the size looks the same and keeps large scans quick.
    small = under.resize((max(1, under.width // 4), max(1, under.height // 4)), Image.Resampling.BOX)
    soft = small.filter(ImageFilter.GaussianBlur(panel.padding / 4)).resize(under.size)
    panelled = Image.blend(soft, Image.new("RGB", under.size, _GROUND), _OPACITY)
    y = panel.padding
    for number, row in enumerate(panel.rows):
        _draw_row(panelled, row, panel.padding, y, best=number == 0)
        y += row.height
    picture.paste(panelled, panel.box[:2], _rounded(panelled.size, panel.radius))


def _draw_row(surface: Image.Image, row: _Row, padding: int, top: int, best: bool) -> None:
    draw = ImageDraw.Draw(surface)
    bar_top = top + round(row.height * 0.86) - row.bar
    inner = surface.width - 2 * padding
    text_y = (top + bar_top) / 2
    colour = _WHITE if best else _GREY
    draw.text((padding, text_y), row.name, fill=colour, font=row.font, anchor="lm")
    draw.text((surface.width - padding, text_y), row.percent, fill=colour, font=row.font, anchor="rm")
    for length, shade in ((inner, _TRACK), (round(inner * row.score), _BEST_BAR if best else _BAR)):
        size = (max(row.bar, min(inner, length)), row.bar)
        surface.paste(shade, (padding, bar_top), _rounded(size, row.bar // 2))


def _rounded(size: tuple[int, int], radius: int) -> Image.Image:
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


def _percent(score: float) -> str:
    if score > 0.995:
        return "100%" if score == 1 else ">99%"
    return "<1%" if score < 0.01 else f"{100 * score:.0f}%"


def _clean(name: str) -> str:
    """One line without control characters."""
    return "".join(letter for letter in " ".join(name.split()) if letter.isprintable()) or "?"


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    """``text`` if it fits into ``width`` pixels, else its longest beginning that does with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    # Lengths grow with the number of letters, but for the kerning of a pixel or two.
    kept = bisect_right(range(1, len(text)), width, key=lambda n: font.getlength(text[:n].rstrip() + "…"))
    return text[: max(1, kept)].rstrip(" ,;-–") + "…"


@lru_cache(maxsize=64)
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    if file:
        return ImageFont.truetype(file, size)
    font = ImageFont.load_default(size)
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font


@lru_cache(maxsize=1024)
def _font_file(text: str) -> str:
    """The first font that has every letter: a file name, or "" for the one inside Pillow."""
    dejavu = _dejavu()
    for file in ("", dejavu, *_SYSTEM_FONTS):
        try:
            font = _font(file, 24)
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
