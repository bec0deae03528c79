"""The part of an image that is shown, and where boxes, pixels and masks come to lie in it.

A window is a rectangle in fractions of an image, which may go beyond it. All changes of geometry here are windows,
turned round or not; one after another they are one window, so that pixels are scaled once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from hubel.boxes import iou


@dataclass(frozen=True)
class Window:
    """A part of an image in fractions of its width and height, below 0 or above 1 beside it; may be mirrored."""

    x1: float = 0.0
    y1: float = 0.0
    x2: float = 1.0
    y2: float = 1.0
    flipped: bool = False

    def compose(self, outer: Window) -> Window:
        """The window on the image that shows, of what ``outer`` shows, this part."""
        width, height = outer.x2 - outer.x1, outer.y2 - outer.y1
        left, right = (1 - self.x2, 1 - self.x1) if outer.flipped else (self.x1, self.x2)
        return Window(
            outer.x1 + left * width,
            outer.y1 + self.y1 * height,
            outer.x1 + right * width,
            outer.y1 + self.y2 * height,
            self.flipped != outer.flipped,
        )

    def transform_boxes(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (M, 4) in fractions of the image as they lie in the window, in fractions of it, and their indices.

        A box stays if its centre is in the window, and is cut off at the window's edge (Liu et al. 2016, arXiv
        1512.02325, section 2.2, "Data augmentation").
        """
        width, height = self.x2 - self.x1, self.y2 - self.y1
        moved = (boxes - (self.x1, self.y1, self.x1, self.y1)) / (width, height, width, height)
        centres = (moved[:, :2] + moved[:, 2:]) / 2
        kept = np.flatnonzero(((centres > 0) & (centres < 1)).all(1))
        moved = moved[kept].clip(0, 1)
        if self.flipped:
            moved = flip_boxes(moved, 1)
        return moved, kept

    def transform_regions(self, boxes: np.ndarray) -> np.ndarray:
        """As :meth:`transform_boxes`, but what is seen of every box stays, however little: (K, 4)."""
        width, height = self.x2 - self.x1, self.y2 - self.y1
        moved = ((boxes - (self.x1, self.y1, self.x1, self.y1)) / (width, height, width, height)).clip(0, 1)
        moved = moved[(moved[:, 2:] > moved[:, :2]).all(1)]
        return flip_boxes(moved, 1) if self.flipped else moved


IDENTITY = Window()


def flip_boxes(boxes: np.ndarray, width: float) -> np.ndarray:
    """Boxes (M, 4) in an image of a width, mirrored from left to right."""
    return np.stack((width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]), 1)


@dataclass(frozen=True)
class View:
    """A window on an image, drawn in ``height`` × ``width`` pixels."""

    window: Window
    height: int
    width: int

    def pixels(
        self, image: np.ndarray, extent: tuple[float, float], background: np.ndarray, filter: Image.Resampling
    ) -> np.ndarray:
        """Cut and scale in one antialiased pass: uint8 (height, width, C), which may be (a view of) ``image``.

        Args:
            image: uint8 (h, w, C) with C of 1 or 3.
            extent: width and height of the image in pixels of ``image``; less than w and h by a fraction where it
                was reduced by averaging blocks, of which the last ones are not full.
            background: uint8 (C,), the colour beside the image.
            filter: of the scaling.
        """
        window, size = self.window, (self.width, self.height)
        columns, left, right = _covered(window.x1, window.x2, self.width, extent[0])
        rows, upper, lower = _covered(window.y1, window.y2, self.height, extent[1])
        inside = (columns.stop - columns.start, rows.stop - rows.start)
        if min(inside) < 1:
            return np.broadcast_to(background, (self.height, self.width, len(background)))
        part = _scaled(image, (left, upper, right, lower), inside, filter)
        if inside != size:
            row = np.tile(background, self.width)  # whole rows are copied many times as fast as single pixels
            whole = np.repeat(row[None], self.height, 0).reshape(self.height, self.width, -1)
            whole[rows, columns] = part
            part = whole
        return part[:, ::-1] if window.flipped else part

    def masks(self, masks: np.ndarray, fill: int = 0) -> np.ndarray:
        """Masks of the image as the view shows them: (M, h, w) to (M, height, width), the same type.

        Each pixel is the one that its centre falls on; beside the image there is ``fill``.
        """
        rows, columns = self.sources(*masks.shape[1:])
        columns = columns[::-1] if self.window.flipped else columns
        drawn = masks[:, rows.clip(0, masks.shape[1] - 1)][:, :, columns.clip(0, masks.shape[2] - 1)]
        drawn[:, (rows < 0) | (rows >= masks.shape[1])] = fill
        drawn[:, :, (columns < 0) | (columns >= masks.shape[2])] = fill
        return drawn

    def sources(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows and columns, of an image of a size, that the centres of the view's fall on before it is mirrored.

        Some may be beside the image.
        """
        window = self.window
        rows = _centres(window.y1, window.y2, self.height, height)
        return rows, _centres(window.x1, window.x2, self.width, width)


def _covered(start: float, end: float, drawn: int, extent: float) -> tuple[slice, float, float]:
    """The drawn pixels that lie on the image along an axis, and the stretch of the image that they show."""
    first = max(0, math.floor(-start / (end - start) * drawn + 0.5))
    last = min(drawn, math.floor((1 - start) / (end - start) * drawn + 0.5))
    step = (end - start) / drawn
    # Drawn pixels are whole: the image's edge is moved by up to half of one.
    low, high = (start + first * step) * extent, (start + last * step) * extent
    return slice(first, max(first, last)), max(0.0, low), min(extent, high)


def _centres(start: float, end: float, drawn: int, pixels: int) -> np.ndarray:
    centres = start + (np.arange(drawn) + 0.5) * (end - start) / drawn
    return np.floor(centres * pixels + 1e-6).astype(np.int64)  # a centre between two pixels is on the second


def _scaled(
    image: np.ndarray, box: tuple[float, float, float, float], size: tuple[int, int], filter: Image.Resampling
) -> np.ndarray:
    height, width, channels = image.shape
    if (width, height) == size and box == (0, 0, width, height):
        return image
    # What lies well outside need not become an image first; at the edges the filter reaches a little beyond.
    reach_x, reach_y = (2 + 3 * max(1.0, (box[at + 2] - box[at]) / size[at]) for at in (0, 1))
    left, upper = max(0, int(box[0] - reach_x)), max(0, int(box[1] - reach_y))
    part = image[upper : math.ceil(box[3] + reach_y), left : math.ceil(box[2] + reach_x)]
    around = Image.fromarray(part[:, :, 0] if channels == 1 else part)
    inner = (box[0] - left, box[1] - upper, min(box[2] - left, around.width), min(box[3] - upper, around.height))
    return np.asarray(around.resize(size, filter, box=inner)).reshape(size[1], size[0], channels)


_TRIALS = 40
_SMALLEST = 0.3  # of an IoU crop, in widths and heights of the image
_NARROWEST = 0.5  # of an IoU crop, width over height and height over width
_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_CUT = (0.25, 0.75)


def random_zoom_out(boxes: np.ndarray, aspect: float, random: np.random.Generator) -> Window:
    """In half of the cases a canvas of up to four times the width and height, the image at any place of it.

    Liu et al. 2016, arXiv 1512.02325, section 3.6: a canvas of up to 16 times the image's area. ``boxes`` (M, 4) are
    those of the objects, in fractions of the image; ``aspect`` is its width over its height in pixels.
    """
    return IDENTITY if random.random() < 0.5 else _placed(boxes, random.uniform(1, 4), random)


def scale_jitter(boxes: np.ndarray, aspect: float, random: np.random.Generator) -> Window:
    """The image at 0.5 to 2 times its scale: a part of it, or all of it on a plain background, anywhere.

    Scale jittering as of Ghiasi et al. 2021, arXiv 2012.07177, section 3 (there 0.8 to 1.25, or 0.1 to 2), with
    enlarging as likely as reducing. Arguments as of :func:`random_zoom_out`.
    """
    return _placed(boxes, math.exp(-random.uniform(math.log(0.5), math.log(2))), random)


def large_scale_jitter(boxes: np.ndarray, aspect: float, random: np.random.Generator) -> Window:
    """The image at 0.1 to 2 times its scale, all equally likely: a part of it, or all on a plain background, anywhere.

    Large scale jittering of Ghiasi et al. 2021, arXiv 2012.07177, section 3. Arguments as of :func:`random_zoom_out`.
    """
    return _placed(boxes, 1 / random.uniform(0.1, 2), random)


def random_iou_crop(boxes: np.ndarray, aspect: float, random: np.random.Generator) -> Window:
    """SSD's patch: the whole image, or a part that overlaps an object by at least so much.

    Liu et al. 2016, arXiv 1512.02325, section 2.2, "Data augmentation", with the numbers of torchvision's
    ``RandomIoUCrop``: sides of 0.3 to 1 of the image's, aspect ratios of 1/2 to 2, minimum IoU with the object that
    the patch overlaps most 0 (a random patch), 0.1, 0.3, 0.5, 0.7 or 0.9, drawn again after 40 unsuccessful patches.
    Arguments as of :func:`random_zoom_out`.
    """
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    while len(boxes):
        least = random.choice(_OVERLAPS)
        if least == 1:
            break
        sides = random.uniform(_SMALLEST, 1, (_TRIALS, 2))
        corners = random.random((_TRIALS, 2)) * (1 - sides)
        shape = aspect * sides[:, 0] / sides[:, 1]
        patches = np.concatenate((corners, corners + sides), 1)
        inside = ((centres > patches[:, None, :2]) & (centres < patches[:, None, 2:])).all(2)
        overlap = np.where(inside, iou(patches, boxes), -1).max(1)
        good = np.flatnonzero((shape >= _NARROWEST) & (shape <= 1 / _NARROWEST) & (overlap >= least))
        if len(good):
            return Window(*patches[good[0]].tolist())
    return IDENTITY


RANDOM_WINDOWS = {"zoom": random_zoom_out, "scale": scale_jitter, "crop": random_iou_crop}
"""Random changes of geometry by name, in the order in which they are applied."""


def mosaic_cells(random: np.random.Generator, height: int, width: int) -> list[tuple[slice, slice]]:
    """The rows and columns of a mosaic's four parts: cut somewhere in the middle half, by whole pixels."""
    x, y = (round(random.uniform(*_CUT) * side) for side in (width, height))
    return [(rows, columns) for rows in (slice(0, y), slice(y, height)) for columns in (slice(0, x), slice(x, width))]


def mosaic_cell(boxes: np.ndarray, across: float, down: float, random: np.random.Generator) -> Window:
    """The window that a mosaic's part shows of an image, ``across`` widths and ``down`` heights of the mosaic large.

    The image is at full size, or as much smaller as fills the part, or anything between.
    """
    scale = random.uniform(max(across, down), 1)
    return _placed(boxes, np.array([across, down]) / scale, random)


def _placed(boxes: np.ndarray, sides: float | np.ndarray, random: np.random.Generator) -> Window:
    """A window with these sides at any place that lies in the image, or has the image in it, with an object."""
    spans = np.broadcast_to(np.asarray(sides, float), 2)
    corners = random.random((_TRIALS, 2)) * (1 - spans)
    if len(boxes):
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        low, high = np.minimum(0, 1 - spans), np.maximum(0, 1 - spans)
        around = (centres[random.integers(len(boxes))] - spans / 2).clip(low, high)  # the last resort
        corners = np.concatenate((corners, around[None]))
        inside = ((centres > corners[:, None]) & (centres < corners[:, None] + spans)).all(2).any(1)
        corners = corners[inside]
    x, y = corners[0].tolist()
    return Window(x, y, x + float(spans[0]), y + float(spans[1]))
