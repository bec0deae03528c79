"""Masks of objects, drawn from their shapes at the size at which a network sees them.

Outlines are moved with the view and then rasterized as the COCO API does; of a mask each pixel is the one that its
centre falls on. Either way an image's own pixels are never drawn first, so time and memory are those of the view.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hubel.data.transforms.geometry import View
from hubel.masks import Outline, RunLengthMask, Shape, mask_box, mask_runs, rasterize


def draw_shapes(shapes: Sequence[Shape], width: int, height: int, view: View) -> np.ndarray:
    """The shapes of an image of ``width`` × ``height`` pixels as a view shows them: uint8 (M, H, W), 0 and 1."""
    drawn = np.zeros((len(shapes), view.height, view.width), np.uint8)
    window = view.window
    spans = np.array([window.x2 - window.x1, window.y2 - window.y1])
    # The scale is exactly 1 where the view is the image: no coordinate changes.
    scale = np.array([view.width, view.height]) / (spans * (width, height))
    shift = -np.array([window.x1, window.y1]) / spans * (view.width, view.height)
    for canvas, shape in zip(drawn, shapes, strict=True):
        if isinstance(shape, RunLengthMask):
            _draw_runs(canvas[:, ::-1] if window.flipped else canvas, shape, view)
        else:
            _draw_outline(canvas, shape, scale, shift, window.flipped)
    return drawn


def _draw_outline(canvas: np.ndarray, outline: Outline, scale: np.ndarray, shift: np.ndarray, flipped: bool) -> None:
    height, width = canvas.shape
    moved = [[np.asarray(polygon, np.float64).reshape(-1, 2) * scale + shift for polygon in part] for part in outline]
    if flipped:
        for points in (*moved[0], *moved[1]):
            points[:, 0] = width - points[:, 0]
    # Only the part of the canvas around the outline is rasterized, with a pixel more on each side.
    every = np.concatenate(moved[0])
    left, top = (np.floor(every.min(0)).clip(0, (width, height)).astype(int) - 1).clip(0).tolist()
    right, bottom = (np.ceil(every.max(0)).clip(0, (width, height)).astype(int) + 1).tolist()
    part = canvas[top:bottom, left:right]
    if not part.size:
        return
    polygons, holes = (
        [(points - (left, top)).ravel().tolist() for points in part_of_outline] for part_of_outline in moved
    )
    try:
        part[:] = rasterize(polygons, holes, *part.shape)
    except ValueError:  # enlarged to millions of pixels: forged, and an object without pixels is left out
        return


def _draw_runs(canvas: np.ndarray, mask: RunLengthMask, view: View) -> None:
    x1, y1, x2, y2 = mask_box(mask)
    rows, columns = view.sources(mask.height, mask.width)
    down = slice(*np.searchsorted(rows, (y1, y2)).tolist())
    across = slice(*np.searchsorted(columns, (x1, x2)).tolist())
    # The pixels of the mask that are shown, in the order of its runs; those that lie in every other interval are set.
    once, repeated = np.unique(columns[across], return_inverse=True)
    shown = once[:, None] * mask.height + rows[down]
    bounds = np.searchsorted(shown.ravel(), mask_runs(mask).ravel())
    lengths = np.diff(bounds, prepend=0, append=shown.size)
    inside = np.repeat(np.arange(len(lengths), dtype=np.uint8) & 1, lengths)
    canvas[down, across] = inside.reshape(shown.shape)[repeated].T


def fit_cut_boxes(boxes: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Boxes (M, 4) of which those that reach an edge of their masks (M, H, W) end where the mask does.

    What an edge has cut off may have been the widest part of an object. Other boxes stay as they were drawn.
    """
    height, width = masks.shape[1:]
    at_edge = (boxes <= 0).any(1) | (boxes[:, 2] >= width) | (boxes[:, 3] >= height)
    return fit_boxes(boxes, masks, at_edge)


def fit_boxes(boxes: np.ndarray, masks: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Boxes (M, 4) of which the ``chosen`` (M,) are cut off where their masks (M, H, W) end; of no area without any."""
    boxes = boxes.copy()
    for index in np.flatnonzero(chosen):
        columns, rows = (np.flatnonzero(masks[index].any(axis)) for axis in (0, 1))
        if not len(rows):
            boxes[index, 2:] = boxes[index, :2]
            continue
        boxes[index, :2] = np.maximum(boxes[index, :2], (columns[0], rows[0]))
        boxes[index, 2:] = np.minimum(boxes[index, 2:], (columns[-1] + 1, rows[-1] + 1))
    return boxes
