"""Random windows on pictures with objects: SSD's zoom out and IoU crop, scale jitter; mosaics of four pictures.

All sizes are fractions of the picture, boxes too. Where there are objects, at least one keeps its centre in the window.
"""

from __future__ import annotations

import math

import numpy as np

from hubel.data.objects.windows import WHOLE, Window

_TRIALS = 40
_FARTHEST = 4.0  # of the canvas, in widths and heights of the picture
_JITTER = (0.5, 2.0)
_SMALLEST = 0.3  # of an IoU crop, in widths and heights of the picture
_NARROWEST = 0.5  # of an IoU crop, width over height and height over width
_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
_CUT = (0.25, 0.75)


def zoomed_out(boxes: np.ndarray, aspect: float, random: np.random.Generator) -> Window:
    """In half of the cases a canvas of up to four times the width and height, the picture at any place of it.

    Liu et al. 2016, arXiv 1512.02325, section 3.6: a canvas of up to 16 times the picture's area.

    Args:
        boxes: (M, 4) of the objects.
        aspect: width over height of the picture in pixels.
        random: what is drawn from.
    """
    return WHOLE if random.random() < 0.5 else _placed(boxes, random.uniform(1, _FARTHEST), random)


def jittered(boxes: np.ndarray, aspect: float, random: np.random.Generator) -> Window:
    """The picture at 0.5 to 2 times its scale: a part of it, or all of it on a ground, at any place.

    Scale jittering as of Ghiasi et al. 2021, arXiv 2012.07177, section 3 (there 0.8 to 1.25, or 0.1 to 2), with
    enlarging as likely as reducing. Arguments as of :func:`zoomed_out`.
    """
    low, high = map(math.log, _JITTER)
    return _placed(boxes, math.exp(-random.uniform(low, high)), random)


def cropped(boxes: np.ndarray, aspect: float, random: np.random.Generator) -> Window:
    """SSD's patch: the whole picture, or a part that overlaps an object by at least so much.

    Liu et al. 2016, arXiv 1512.02325, section 2.2, "Data augmentation", with the numbers of torchvision's
    ``RandomIoUCrop``: sides of 0.3 to 1 of the picture's, aspect ratios of 1/2 to 2, least IoU with the object that the
    patch overlaps most 0 (a random patch), 0.1, 0.3, 0.5, 0.7 or 0.9, drawn anew after 40 patches in vain. Arguments as
    of :func:`zoomed_out`.
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
        overlap = np.where(inside, _iou(patches, boxes), -1).max(1)
        good = np.flatnonzero((shape >= _NARROWEST) & (shape <= 1 / _NARROWEST) & (overlap >= least))
        if len(good):
            return Window(*patches[good[0]].tolist())
    return WHOLE


def quarters(random: np.random.Generator, height: int, width: int) -> list[tuple[slice, slice]]:
    """The rows and columns of a mosaic's four parts: cut somewhere in the middle half, by whole pixels."""
    x, y = (round(random.uniform(*_CUT) * side) for side in (width, height))
    return [(rows, columns) for rows in (slice(0, y), slice(y, height)) for columns in (slice(0, x), slice(x, width))]


def in_quarter(boxes: np.ndarray, across: float, down: float, random: np.random.Generator) -> Window:
    """What a mosaic shows of a picture in a part that is so many times its own width and height.

    The picture is at full size, or as much smaller as fills the part, or anything between.

    Args:
        boxes: (M, 4) of the objects.
        across: width of the mosaic's part in widths of the mosaic.
        down: height likewise.
        random: what is drawn from.
    """
    scale = random.uniform(max(across, down), 1)
    return _placed(boxes, np.array([across, down]) / scale, random)


def _placed(boxes: np.ndarray, sides: float | np.ndarray, random: np.random.Generator) -> Window:
    """A window with these sides at any place that lies in the picture, or has the picture in it, with an object."""
    spans = np.broadcast_to(np.asarray(sides, float), 2)
    corners = random.random((_TRIALS, 2)) * (1 - spans)
    if len(boxes):
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        # The last resort, round one of them.
        around = (centres[random.integers(len(boxes))] - spans / 2).clip(
            np.minimum(0, 1 - spans), np.maximum(0, 1 - spans)
        )
        corners = np.concatenate((corners, around[None]))
        inside = ((centres > corners[:, None]) & (centres < corners[:, None] + spans)).all(2).any(1)
        corners = corners[inside]
    x, y = corners[0].tolist()
    return Window(x, y, x + float(spans[0]), y + float(spans[1]))


def _iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N, M) of boxes (N, 4) and (M, 4); plain NumPy, as these few boxes take less time than a call of torch."""
    shared = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])
    common = shared.clip(0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (a, b)]
    return common / (areas[0][:, None] + areas[1] - common)
