"""Tracks on the frames of a video: boxes and ids in colours that stay, trails, counting lines and zones."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from hubel.drawing.boxes import Colour, colour_of
from hubel.drawing.canvas import GROUND, WHITE, font_file_for, load_font, one_line, rounded_mask
from hubel.results import Tracks

Point = tuple[float, float]

_LINE_COLOUR: Colour = (255, 214, 10)


@dataclass(frozen=True)
class Mark:
    """A line or an area that tracks are counted at.

    Attributes:
        points: two of a line, more of an area, in pixels.
        text: what stands at it.
    """

    points: Sequence[Point]
    text: str


class TrackPainter:
    """Draws on one frame after the other.

    Args:
        names: whether to write the class beside the id.
        trail: frames that a trail lasts; 0 draws none.
    """

    def __init__(self, names: bool = False, trail: int = 40) -> None:
        self._names = names
        self._trail = trail
        self._trails: dict[int, deque[tuple[int, Point]]] = {}
        self._frame = 0

    def paint(self, picture: np.ndarray, tracks: Tracks, marks: Sequence[Mark] = ()) -> np.ndarray:
        """The frame with its tracks.

        Args:
            picture: uint8 (H, W, 3), RGB; it is not modified.
            tracks: of this frame.
            marks: counting lines and areas with what they have counted so far.

        Returns:
            uint8 (H, W, 3).
        """
        self._frame += 1
        image = Image.fromarray(picture)
        text = max(11, round(0.019 * math.sqrt(image.width * image.height)))
        draw = ImageDraw.Draw(image)
        self._remember(tracks)
        for mark in marks:
            _draw_mark(image, mark, text)
        for id_, points in self._trails.items():
            _draw_trail(draw, [point for _, point in points], colour_of(id_), max(2, text // 5))
        order = np.argsort(tracks.boxes[:, 3], kind="stable").tolist()  # what is nearer comes over what is behind it
        boxes = tracks.boxes.tolist()
        for place in order:
            _draw_box(draw, boxes[place], colour_of(int(tracks.ids[place])), max(2, text // 7))
        for place in order:
            id_ = int(tracks.ids[place])
            label = f"{id_} {tracks.names[place]}" if self._names else str(id_)
            _paste_chip(image, boxes[place], label, colour_of(id_), text)
        return np.asarray(image)

    def _remember(self, tracks: Tracks) -> None:
        """Where the feet are; and forget what is older than a trail."""
        if not self._trail:
            return
        feet = ((tracks.boxes[:, 0] + tracks.boxes[:, 2]) / 2).tolist(), tracks.boxes[:, 3].tolist()
        for id_, x, y in zip(tracks.ids.tolist(), *feet, strict=True):
            self._trails.setdefault(id_, deque(maxlen=self._trail)).append((self._frame, (x, y)))
        for id_, points in list(self._trails.items()):
            while points and points[0][0] <= self._frame - self._trail:
                points.popleft()
            if not points:
                del self._trails[id_]


def _draw_trail(draw: ImageDraw.ImageDraw, points: Sequence[Point], colour: Colour, line: int) -> None:
    """Thin where it is old."""
    parts = 4
    for part in range(parts):
        first, last = part * len(points) // parts, (part + 1) * len(points) // parts + 1
        if len(points[first:last]) > 1:
            draw.line(points[first:last], fill=colour, width=max(1, line * (part + 1) // parts), joint="curve")


def _draw_box(draw: ImageDraw.ImageDraw, box: Sequence[float], colour: Colour, line: int) -> None:
    """A line in the colour between two thin dark ones."""
    x1, y1, x2, y2 = (round(side) for side in box)
    for inset, shade, width in ((-1, GROUND, line + 2), (0, colour, line)):
        corners = (x1 + inset, y1 + inset, max(x1 + inset, x2 - inset), max(y1 + inset, y2 - inset))
        draw.rectangle(corners, outline=shade, width=width)


@lru_cache(maxsize=2048)
def _chip(text: str, colour: Colour, size: int) -> tuple[Image.Image, Image.Image]:
    """A label, and where it is opaque."""
    name = one_line(text)
    font = load_font(font_file_for(name), size)
    padding = round(0.35 * size)
    chip = Image.new("RGB", (math.ceil(font.getlength(name)) + 2 * padding, round(1.45 * size)), colour)
    red, green, blue = colour
    ink = GROUND if 0.3 * red + 0.59 * green + 0.11 * blue > 120 else WHITE
    ImageDraw.Draw(chip).text((padding, chip.height / 2), name, fill=ink, font=font, anchor="lm")
    return chip, rounded_mask(chip.size, round(0.22 * size))


def _paste_chip(image: Image.Image, box: Sequence[float], text: str, colour: Colour, size: int) -> None:
    """On the box's upper left corner; below its upper line where the picture ends above."""
    chip, mask = _chip(text, colour, size)
    left = min(max(0, round(box[0]) - 1), max(0, image.width - chip.width))
    above = round(box[1]) - chip.height
    image.paste(chip, (left, above if above >= 0 else max(0, round(box[1]))), mask)


def _draw_mark(image: Image.Image, mark: Mark, text: int) -> None:
    line = max(2, text // 6)
    if len(mark.points) > 2:
        veil = Image.new("L", image.size)
        ImageDraw.Draw(veil).polygon(list(mark.points), fill=46)
        image.paste(_LINE_COLOUR, (0, 0, *image.size), veil)
    draw = ImageDraw.Draw(image)
    points = [*mark.points, mark.points[0]] if len(mark.points) > 2 else list(mark.points)
    draw.line(points, fill=GROUND, width=line + 2)
    draw.line(points, fill=_LINE_COLOUR, width=line)
    x, y = min(mark.points, key=lambda point: point[1]) if len(mark.points) > 2 else mark.points[0]
    _paste_chip(image, (x, y, x, y), mark.text, _LINE_COLOUR, text)
