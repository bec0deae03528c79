"""A panel of classes and their probabilities, readable on any image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from hubel.drawing.canvas import DARK, WHITE, font_file_for, load_font, one_line, rounded_mask, shorten, upscale_small

_OPACITY = 0.74
_GREY = (226, 229, 234)
_BEST_BAR = (255, 200, 66)
_BAR = (150, 196, 255)
_TRACK = (96, 99, 106)


def draw_class_scores(image: Image.Image, scores: Sequence[tuple[str, float]]) -> Image.Image:
    """Write the names of classes and their probabilities, 0..1, on an image.

    A translucent dark panel in the lower left corner shows the best class large and the others smaller, each with a
    bar as long as its probability. Other classes below 1 % are left out, as are those that would make the panel taller
    than 45 % of the image. Long names are shortened. Without classes, which come best first, no panel is drawn.
    The result is a new RGB image, upscaled if needed so that both sides have at least ``MINIMUM_SIDE`` pixels.
    """
    image = upscale_small(image.convert("RGB"))  # a copy, also of an RGB image
    if scores:
        _draw_panel(image, scores)
    return image


@dataclass(frozen=True)
class _Row:
    """A class of a panel: its texts and font, and the heights of the row and of its bar in pixels."""

    name: str
    percent: str
    score: float
    font: ImageFont.FreeTypeFont
    height: int
    bar: int


def _draw_panel(image: Image.Image, scores: Sequence[tuple[str, float]]) -> None:
    """Darken and blur a part of the image, in place, and write the classes on it."""
    width, height = image.size
    text = max(12.5, min(0.0295 * math.sqrt(width * height), 0.055 * min(width, height)))
    margin, padding = round(0.9 * text), round(0.9 * text)
    shown = [scores[0], *((name, score) for name, score in scores[1:] if score >= 0.01)]
    rows = _rows(shown, text, room=0.45 * height - 2 * padding)
    gap = 1.6 * text
    numbers = max(row.font.getlength(row.percent) for row in rows)
    wanted = max(row.font.getlength(row.name) for row in rows) + gap + numbers
    most = min(width - 2 * margin, max(0.5 * width, 26 * text)) - 2 * padding
    inner = math.ceil(min(max(wanted, 12 * text), most))
    top = height - margin - sum(row.height for row in rows) - 2 * padding
    under = image.crop((margin, top, margin + inner + 2 * padding, height - margin))
    # Blurring at a quarter of the size looks the same and is fast for large scans.
    small = under.resize((max(1, under.width // 4), max(1, under.height // 4)), Image.Resampling.BOX)
    soft = small.filter(ImageFilter.GaussianBlur(padding / 4)).resize(under.size)
    panel = Image.blend(soft, Image.new("RGB", under.size, DARK), _OPACITY)
    y = padding
    for row in rows:
        name = shorten(row.name, row.font, inner - gap - row.font.getlength(row.percent))
        _draw_row(panel, replace(row, name=name), padding, y, best=row is rows[0])
        y += row.height
    image.paste(panel, (margin, top), rounded_mask(panel.size, round(0.7 * text)))


def _rows(scores: Sequence[tuple[str, float]], text: float, room: float) -> list[_Row]:
    """The rows that fit into ``room`` pixels of height, the best class always; ``text`` is the type size."""
    named = [(one_line(name), score) for name, score in scores]
    file = font_file_for("".join(name for name, _ in named))
    rows: list[_Row] = []
    for name, score in named:
        share, line, bar = (1.5, 2.5, 0.3) if not rows else (1.0, 1.9, 0.18)
        height = round(line * text)
        if rows and sum(row.height for row in rows) + height > room:
            break
        font = load_font(file, round(share * text))
        rows.append(_Row(name, _percent(score), score, font, height, max(2, round(bar * text))))
    return rows


def _percent(score: float) -> str:
    """A probability in per cent, with two digits."""
    if score > 0.995:
        return "100%" if score == 1 else ">99%"
    return "<1%" if score < 0.01 else f"{100 * score:.0f}%"


def _draw_row(surface: Image.Image, row: _Row, padding: int, top: int, best: bool) -> None:
    draw = ImageDraw.Draw(surface)
    bar_top = top + round(row.height * 0.86) - row.bar
    inner = surface.width - 2 * padding
    text_y = (top + bar_top) / 2
    colour = WHITE if best else _GREY
    draw.text((padding, text_y), row.name, fill=colour, font=row.font, anchor="lm")
    draw.text((surface.width - padding, text_y), row.percent, fill=colour, font=row.font, anchor="rm")
    for length, shade in ((inner, _TRACK), (round(inner * row.score), _BEST_BAR if best else _BAR)):
        size = (max(row.bar, min(inner, length)), row.bar)
        surface.paste(shade, (padding, bar_top), rounded_mask(size, row.bar // 2))
