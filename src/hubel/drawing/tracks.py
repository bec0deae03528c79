"""Tracks on the frames of a video: boxes or masks, and ids, in constant colours, trails, counting lines and zones."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from hubel.drawing.boxes import colour_of, draw_frame
from hubel.drawing.canvas import DARK, WHITE, Colour, rounded_mask, text_label
from hubel.drawing.instances import paint_mask
from hubel.masks import decode_part
from hubel.results import Tracks

Point = tuple[float, float]

_LINE_COLOUR: Colour = (255, 214, 10)


@dataclass(frozen=True)
class Mark:
    """A counting line or zone to draw: two points in pixels, or more, and the text of its label."""

    points: Sequence[Point]
    text: str


class TrackAnnotator:
    """Draws tracks on consecutive frames: boxes, or masks if there are any, ids (and classes if ``names``), and trails.

    A trail is where a track was in the last ``trail`` frames.
    """

    def __init__(self, names: bool = False, trail: int = 40) -> None:
        self._names = names
        self._trail = trail
        self._trails: dict[int, deque[tuple[int, Point]]] = {}
        self._frame = 0

    def annotate(self, image: np.ndarray, tracks: Tracks, marks: Sequence[Mark] = ()) -> np.ndarray:
        """Draw the tracks of the next frame, uint8 (H, W, 3) in RGB, on a copy of it."""
        self._frame += 1
        frame = Image.fromarray(image if tracks.masks is None else _with_masks(image, tracks))
        text = max(11, round(0.019 * math.sqrt(frame.width * frame.height)))
        draw = ImageDraw.Draw(frame)
        self._update_trails(tracks)
        for mark in marks:
            _draw_mark(frame, mark, text)
        for id_, points in self._trails.items():
            _draw_trail(draw, [point for _, point in points], colour_of(id_), max(2, text // 5))
        order = np.argsort(tracks.boxes[:, 3], kind="stable").tolist()  # nearer objects over those behind them
        boxes = tracks.boxes.tolist()
        if tracks.masks is None:
            for index in order:
                draw_frame(draw, boxes[index], colour_of(int(tracks.ids[index])), max(2, text // 7))
        for index in order:
            id_ = int(tracks.ids[index])
            label = f"{id_} {tracks.names[index]}" if self._names else str(id_)
            _paste_label(frame, boxes[index], label, colour_of(id_), text)
        return np.asarray(frame)

    def _update_trails(self, tracks: Tracks) -> None:
        feet = ((tracks.boxes[:, 0] + tracks.boxes[:, 2]) / 2).tolist(), tracks.boxes[:, 3].tolist()
        for id_, x, y in zip(tracks.ids.tolist(), *feet, strict=True):
            self._trails.setdefault(id_, deque(maxlen=self._trail)).append((self._frame, (x, y)))
        for id_, points in list(self._trails.items()):
            while points and points[0][0] <= self._frame - self._trail:
                points.popleft()
            if not points:
                del self._trails[id_]


def _with_masks(image: np.ndarray, tracks: Tracks) -> np.ndarray:
    """A copy of the frame with the masks of the tracks, nearer ones over those behind them."""
    shown, line = image.copy(), max(2, round(0.0027 * math.sqrt(image.shape[0] * image.shape[1])))
    for index in np.argsort(tracks.boxes[:, 3], kind="stable").tolist():
        paint_mask(shown, *decode_part((tracks.masks or ())[index]), colour_of(int(tracks.ids[index])), line)
    return shown


def _draw_trail(draw: ImageDraw.ImageDraw, points: Sequence[Point], colour: Colour, line: int) -> None:
    """Draw a trail, thinner where it is older."""
    parts = 4
    for part in range(parts):
        first, last = part * len(points) // parts, (part + 1) * len(points) // parts + 1
        if len(points[first:last]) > 1:
            draw.line(points[first:last], fill=colour, width=max(1, line * (part + 1) // parts), joint="curve")


@lru_cache(maxsize=2048)
def _label(text: str, colour: Colour, size: int) -> tuple[Image.Image, Image.Image]:
    """A label and its mask."""
    red, green, blue = colour
    ink = DARK if 0.3 * red + 0.59 * green + 0.11 * blue > 120 else WHITE
    label = text_label(text, size, colour, ink, round(0.35 * size), round(1.45 * size))
    return label, rounded_mask(label.size, round(0.22 * size))


def _paste_label(image: Image.Image, box: Sequence[float], text: str, colour: Colour, size: int) -> None:
    """Draw a label above the upper left corner of a box; below the upper edge where there is no room above."""
    label, mask = _label(text, colour, size)
    left = min(max(0, round(box[0]) - 1), max(0, image.width - label.width))
    above = round(box[1]) - label.height
    image.paste(label, (left, above if above >= 0 else max(0, round(box[1]))), mask)


def _draw_mark(image: Image.Image, mark: Mark, text: int) -> None:
    line = max(2, text // 6)
    if len(mark.points) > 2:
        veil = Image.new("L", image.size)
        ImageDraw.Draw(veil).polygon(list(mark.points), fill=46)
        image.paste(_LINE_COLOUR, (0, 0, *image.size), veil)
    draw = ImageDraw.Draw(image)
    points = [*mark.points, mark.points[0]] if len(mark.points) > 2 else list(mark.points)
    draw.line(points, fill=DARK, width=line + 2)
    draw.line(points, fill=_LINE_COLOUR, width=line)
    x, y = min(mark.points, key=lambda point: point[1]) if len(mark.points) > 2 else mark.points[0]
    _paste_label(image, (x, y, x, y), mark.text, _LINE_COLOUR, text)
