"""Boxes round objects, with a chip each that names the class: a colour a class, readable on any photograph."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from hubel.drawing.canvas import GROUND, WHITE, font_file_for, large_enough, load_font, one_line, rounded_mask, shorten

Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]

# Steps of the golden ratio round the circle of hues: neighbouring numbers look different, however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class BoxLabel:
    """What is drawn for one object.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the picture; what lies outside is not drawn.
        text: on the chip; empty for none.
        colour: number of the colour: the index of the class, or of the track; or red, green, blue 0..255.
        dashed: draw a broken line.
    """

    box: Box
    text: str
    colour: int | Colour
    dashed: bool = False


def colour_of(number: int | Colour) -> Colour:
    """A bright colour, red, green, blue 0..255, the same for the same number everywhere; a colour is itself."""
    if isinstance(number, tuple):
        return number
    hue = (0.09 + number * _GOLDEN) % 1
    # Blues and violets look darker than they measure: lighter there.
    lightness = 0.66 if 0.55 < hue < 0.85 else 0.56
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(image: Image.Image, labels: Sequence[BoxLabel]) -> Image.Image:
    """Draw boxes and chips on a picture.

    Small boxes are drawn over large ones. A chip stands on its box; where the picture ends, or another chip is, within
    it or below it.

    Args:
        image: any mode and size; it is not modified.
        labels: of the objects.

    Returns:
        A new RGB image: of the same size, or enlarged so that both sides have ``MINIMUM_SIDE`` pixels.
    """
    original = image.convert("RGB") if image.mode != "RGB" else image.copy()
    picture = large_enough(original)
    scale = max(picture.width / original.width, 1.0)
    shift = ((picture.width - original.width * scale) / 2, (picture.height - original.height * scale) / 2)
    text = max(11.0, min(0.021 * math.sqrt(picture.width * picture.height), 0.04 * min(picture.size)))
    line = max(2, round(text / 7))
    placed: list[Box] = []
    in_order = sorted(labels, key=lambda label: -(label.box[2] - label.box[0]) * (label.box[3] - label.box[1]))
    boxes = [_on_picture(label.box, scale, shift, picture.size) for label in in_order]
    for label, box in zip(in_order, boxes, strict=True):
        _draw_frame(picture, box, colour_of(label.colour), line)
        if label.dashed:
            _break_up(picture, box, line)
    for label, box in zip(in_order, boxes, strict=True):
        if label.text:
            placed.append(_draw_chip(picture, box, label, text, line, placed))
    return picture


def _on_picture(box: Box, scale: float, shift: tuple[float, float], size: tuple[int, int]) -> Box:
    """The box on the enlarged picture, clipped to it."""
    limits = (size[0] - 1, size[1] - 1)
    x1, y1, x2, y2 = (
        min(max(value * scale + shift[place % 2], 0), limits[place % 2]) for place, value in enumerate(box)
    )
    return x1, y1, x2, y2


def _draw_frame(picture: Image.Image, box: Box, colour: tuple[int, int, int], line: int) -> None:
    """A line in the colour between two thin dark ones, which keep it visible on a ground of the same colour."""
    draw = ImageDraw.Draw(picture)
    x1, y1, x2, y2 = (round(value) for value in box)
    for inset, shade, width in ((-1, GROUND, line + 2), (0, colour, line)):
        corners = (x1 + inset, y1 + inset, max(x1 + inset, x2 - inset), max(y1 + inset, y2 - inset))
        draw.rectangle(corners, outline=shade, width=width)


def _break_up(picture: Image.Image, box: Box, line: int) -> None:
    """Dark gaps in a frame, so that it is a broken line."""
    draw = ImageDraw.Draw(picture)
    x1, y1, x2, y2 = (round(value) for value in box)
    thick, gap, period = line - 1, 2 * line, 6 * line
    for x in range(x1 + period // 2, x2 - gap, period):
        for y in (y1, y2 - thick):
            draw.rectangle((x, y, x + gap, y + thick), fill=GROUND)
    for y in range(y1 + period // 2, y2 - gap, period):
        for x in (x1, x2 - thick):
            draw.rectangle((x, y, x + thick, y + gap), fill=GROUND)


def _draw_chip(picture: Image.Image, box: Box, label: BoxLabel, text: float, line: int, placed: Sequence[Box]) -> Box:
    """Draw the chip where it covers no other, if there is such a place, and return where that is."""
    name = one_line(label.text)
    font = load_font(font_file_for(name), round(text))
    padding = round(0.4 * text)
    name = shorten(name, font, picture.width - 2 * padding)
    width, height = math.ceil(font.getlength(name)) + 2 * padding, round(1.55 * text)
    left = min(max(0, round(box[0]) - line // 2), max(0, picture.width - width))
    tops = (round(box[1]) - height + line // 2, round(box[1]), round(box[3]) - line // 2)
    inside = [top for top in tops if 0 <= top <= picture.height - height] or [0]
    spots = [(float(left), float(top), float(left + width), float(top + height)) for top in inside]
    spot = next((spot for spot in spots if not any(_overlap(spot, other) for other in placed)), spots[0])
    chip = Image.new("RGB", (width, height), colour_of(label.colour))
    ink = GROUND if _luminance(colour_of(label.colour)) > 0.22 else WHITE
    ImageDraw.Draw(chip).text((padding, height / 2), name, fill=ink, font=font, anchor="lm")
    picture.paste(chip, (int(spot[0]), int(spot[1])), rounded_mask(chip.size, round(0.25 * text)))
    return spot


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _luminance(colour: tuple[int, int, int]) -> float:
    """Relative luminance of an sRGB colour, 0..1 (WCAG 2.1)."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
