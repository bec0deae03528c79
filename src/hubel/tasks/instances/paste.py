"""From small mask probabilities to masks of the whole image.

"The m×m floating-number mask output is then resized to the RoI size, and binarized at a threshold of 0.5" (He et al.
2017, arXiv 1703.06870, section 3.1). The paper leaves open how. Here a probability belongs to its part of the box, and
what lies between is interpolated, with zeros around; a mask that fills its box has just the pixels of the box.
torchvision's networks are pasted as they are there (``paste_masks_in_image``, as in Detectron): boxes become whole
pixels before, about one more in width and height than they are, which small objects lose accuracy by.
"""

from __future__ import annotations

import numpy as np

from hubel.masks import RunLengthMask, encode_runs

_BORDER = 1
_THRESHOLD = 0.5


def paste_masks(
    probabilities: np.ndarray, boxes: np.ndarray, height: int, width: int, whole_pixels: bool = False
) -> list[RunLengthMask]:
    """The masks of an image of ``height`` × ``width`` pixels, from probabilities (N, S, S) of the parts of boxes.

    Boxes are (N, 4), x1, y1, x2, y2 in pixels of the image; ``whole_pixels`` rounds them as torchvision does. Pixels
    of masks are never made: along a column of the image the interpolated probability is a line between two neighbours
    of S, so it is computed where it crosses the threshold. The time depends on the width of a box, not on its area.
    """
    padded = np.pad(np.asarray(probabilities, np.float32), ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER)))
    areas = _with_border(np.asarray(boxes, np.float32), probabilities.shape[-1], whole_pixels)
    return [_pasted(mask, area, height, width) for mask, area in zip(padded, areas, strict=True)]


def _with_border(boxes: np.ndarray, side: int, whole_pixels: bool) -> np.ndarray:
    """Where masks with their border of zeros are: x, y, width and height, float64 (N, 4)."""
    centre, half = (boxes[:, 2:] + boxes[:, :2]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5
    half = half * np.float32((side + 2 * _BORDER) / side)
    if not whole_pixels:
        return np.concatenate((centre - half, 2 * half), 1).astype(np.float64)
    low, high = (centre - half).astype(np.int64), (centre + half).astype(np.int64)
    return np.concatenate((low, np.maximum(high - low + 1, 1)), 1).astype(np.float64)


def _pasted(mask: np.ndarray, area: np.ndarray, height: int, width: int) -> RunLengthMask:
    x, y, across, down = area.tolist()
    columns = np.arange(max(0, int(x)), max(0, min(width, int(np.ceil(x + across)))))
    if not len(columns) or across <= 0 or down <= 0:
        return encode_runs(np.zeros(0, np.int64), height, width)
    side = len(mask)
    # Probabilities along each column: (columns, side).
    position = ((columns - x + 0.5) * (side / across) - 0.5).clip(0, side - 1)
    left = np.minimum(position.astype(np.int64), side - 2)
    part = (position - left).astype(np.float32)[:, None]
    lines = mask.T[left] * (1 - part) + mask.T[left + 1] * part
    inside = lines > _THRESHOLD
    column, node = np.nonzero(inside[:, 1:] != inside[:, :-1])  # in turn up and down, as the border is 0
    before, after = lines[column, node].astype(np.float64), lines[column, node + 1].astype(np.float64)
    crossing = node + (_THRESHOLD - before) / (after - before)
    row = (crossing + 0.5) * (down / side) - 0.5 + y
    # The first row above the threshold, and the first one that is not.
    first = np.where(before < after, np.floor(row) + 1, np.ceil(row)).astype(np.int64)
    return encode_runs(columns[column] * height + first.clip(0, height), height, width)
