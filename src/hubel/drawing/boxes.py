"""Bounding boxes and class maps with labels, one colour per class, readable on any image."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from hubel.drawing.canvas import DARK, WHITE, Colour, rounded_mask, text_label, upscale_small

Box = tuple[float, float, float, float]

# Steps of the golden ratio round the circle of hues: neighbouring numbers look different, however many there are.
_GOLDEN = (math.sqrt(5) - 1) / 2
_CLASS_OPACITY = 0.55
_ENOUGH_PIXELS = 1 << 20
_LABELLED_CLASS = 0.005  # of the pixels: smaller classes get no label


@dataclass(frozen=True)
class BoxLabel:
    """A box to draw.

    Attributes:
        box: x1, y1, x2, y2 in pixels of the image; clipped to it.
        text: of the label; empty for none.
        colour: index of the class or the track, or red, green, blue 0..255.
    """

    box: Box
    text: str
    colour: int | Colour
    dashed: bool = False


def colour_of(number: int | Colour) -> Colour:
    """A bright colour, red, green, blue 0..255, always the same for an index; a colour is returned unchanged."""
    if isinstance(number, tuple):
        return number
    hue = (0.09 + number * _GOLDEN) % 1
    # Blues and violets look darker than their lightness says.
    lightness = 0.66 if 0.55 < hue < 0.85 else 0.56
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(image: Image.Image, labels: Sequence[BoxLabel]) -> Image.Image:
    """Draw boxes and their labels on an image.

    Small boxes are drawn over large ones. A label is above its box, or inside or below it where the image ends or
    another label is in the way. The result is a new RGB image, upscaled if needed so that both sides have at least
    ``MINIMUM_SIDE`` pixels.
    """
    layout = Layout.of(image, labels)
    for label, box in zip(layout.labels, layout.boxes, strict=True):
        draw_frame(ImageDraw.Draw(layout.image), box, colour_of(label.colour), layout.line)
        if label.dashed:
            _dash(layout.image, box, layout.line)
    layout.draw_labels()
    return layout.image


@dataclass(frozen=True)
class Layout:
    """An image to draw objects on, and where they are on it.

    Attributes:
        image: a copy, RGB, upscaled if the original is small.
        scale: by which it was upscaled.
        shift: x and y of the original's corner on it, in pixels.
        text: size of the letters in pixels.
        line: width of a line in pixels.
        order: indices of the objects, the largest boxes first.
        labels: of the objects, in that order.
        boxes: x1, y1, x2, y2 on the image, clipped to it, in that order.
    """

    image: Image.Image
    scale: float
    shift: tuple[float, float]
    text: float
    line: int
    order: Sequence[int]
    labels: Sequence[BoxLabel]
    boxes: Sequence[Box]

    @classmethod
    def of(cls, image: Image.Image, labels: Sequence[BoxLabel]) -> Layout:
        """The layout of some objects on an image."""
        original = image.convert("RGB")  # a copy, also of an RGB image
        image = upscale_small(original)
        scale = max(image.width / original.width, 1.0)
        shift = ((image.width - original.width * scale) / 2, (image.height - original.height * scale) / 2)
        text = max(11.0, min(0.021 * math.sqrt(image.width * image.height), 0.04 * min(image.size)))
        order = sorted(range(len(labels)), key=lambda index: -_area(labels[index].box))
        in_order = [labels[index] for index in order]
        boxes = [_scaled(label.box, scale, shift, image.size) for label in in_order]
        return cls(image, scale, shift, text, max(2, round(text / 7)), order, in_order, boxes)

    def draw_labels(self, thin_out: bool = False) -> None:
        """Draw the labels where they cover no other if possible.

        ``thin_out`` leaves out those without room, as long as another object of the colour has its label.
        """
        placed: list[Box] = []
        named: set[int | Colour] = set()
        for label, box in zip(self.labels, self.boxes, strict=True):
            if not label.text:
                continue
            tag, spot, is_free = _label_spot(self.image, box, label, self.text, self.line, placed)
            if is_free or not thin_out or label.colour not in named:
                mask = rounded_mask(tag.size, round(0.25 * self.text))
                self.image.paste(tag, (int(spot[0]), int(spot[1])), mask)
                placed.append(spot)
                named.add(label.colour)


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _scaled(box: Box, scale: float, shift: tuple[float, float], size: tuple[int, int]) -> Box:
    """A box on the upscaled image, clipped to it."""
    limits = (size[0] - 1, size[1] - 1)
    x1, y1, x2, y2 = (
        min(max(value * scale + shift[index % 2], 0), limits[index % 2]) for index, value in enumerate(box)
    )
    return x1, y1, x2, y2


def draw_frame(draw: ImageDraw.ImageDraw, box: Sequence[float], colour: Colour, line: int) -> None:
    """Draw a rectangle between two thin dark ones, which keep it visible on a background of the same colour."""
    x1, y1, x2, y2 = (round(value) for value in box)
    for inset, shade, width in ((-1, DARK, line + 2), (0, colour, line)):
        corners = (x1 + inset, y1 + inset, max(x1 + inset, x2 - inset), max(y1 + inset, y2 - inset))
        draw.rectangle(corners, outline=shade, width=width)


def _dash(image: Image.Image, box: Box, line: int) -> None:
    """Make a frame dashed by dark gaps."""
    draw = ImageDraw.Draw(image)
    x1, y1, x2, y2 = (round(value) for value in box)
    thick, gap, period = line - 1, 2 * line, 6 * line
    for x in range(x1 + period // 2, x2 - gap, period):
        for y in (y1, y2 - thick):
            draw.rectangle((x, y, x + gap, y + thick), fill=DARK)
    for y in range(y1 + period // 2, y2 - gap, period):
        for x in (x1, x2 - thick):
            draw.rectangle((x, y, x + thick, y + gap), fill=DARK)


def _label_spot(
    image: Image.Image, box: Box, label: BoxLabel, text: float, line: int, placed: Sequence[Box]
) -> tuple[Image.Image, Box, bool]:
    """The label, where to draw it, and whether it covers no other there."""
    colour = colour_of(label.colour)
    ink = DARK if _luminance(colour) > 0.22 else WHITE
    tag = text_label(label.text, round(text), colour, ink, round(0.4 * text), round(1.55 * text), image.width)
    width, height = tag.size
    left = min(max(0, round(box[0]) - line // 2), max(0, image.width - width))
    tops = (round(box[1]) - height + line // 2, round(box[1]), round(box[3]) - line // 2)
    inside = [top for top in tops if 0 <= top <= image.height - height] or [0]
    spots = [(float(left), float(top), float(left + width), float(top + height)) for top in inside]
    free = next((spot for spot in spots if not any(_overlap(spot, other) for other in placed)), None)
    return tag, free or spots[0], free is not None


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _luminance(colour: Colour) -> float:
    """Relative luminance of an sRGB colour, 0..1 (WCAG 2.1)."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def draw_class_map(image: Image.Image, classes: np.ndarray, names: Sequence[str]) -> Image.Image:
    """A copy of an image with every class in its colour, and its name where most of it is.

    ``classes`` (H, W) of any size are indices into ``names``.
    """
    palette = np.array([colour_of(index) for index in range(len(names))], np.uint8)
    overlay = Image.fromarray(palette[classes]).resize(image.size, Image.Resampling.NEAREST)
    blended = Image.blend(image.convert("RGB"), overlay, _CLASS_OPACITY)
    labels = []
    step = max(1, round((classes.size / _ENOUGH_PIXELS) ** 0.5))  # names need no more, and positions take 16 bytes each
    classes = classes[::step, ::step]
    for index in np.unique(classes).tolist():
        rows, columns = np.nonzero(classes == index)
        if len(rows) >= _LABELLED_CLASS * classes.size:
            x, y = (float(np.median(each)) for each in (columns, rows))
            x, y = x * image.width / classes.shape[1], y * image.height / classes.shape[0]
            labels.append(BoxLabel((x - 1, y - 1, x + 1, y + 1), names[index], index))
    return draw_boxes(blended, labels)
