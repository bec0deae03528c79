"""From small mask probabilities to masks of the whole image.

"The m×m floating-number mask output is then resized to the RoI size, and binarized at a threshold of 0.5" (He et al.
2017, arXiv 1703.06870, section 3.1). The paper leaves open how; this is torchvision's way (``paste_masks_in_image``),
which Detectron had: the probabilities get a border of zeros, the box grows by it and is cut to whole pixels, and what
lies between the probabilities is interpolated.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hubel.masks import RunLengthMask, encode_runs

_BORDER = 1
_THRESHOLD = 0.5


def paste_masks(probabilities: np.ndarray, boxes: np.ndarray, height: int, width: int) -> list[RunLengthMask]:
    """The masks of an image of ``height`` × ``width`` pixels, from probabilities (N, S, S) of the pixels of boxes.

    Boxes are (N, 4), x1, y1, x2, y2 in pixels of the image. The pixels themselves are never made: along a column of
    the image the interpolated probability is a line between two neighbours of S + 2, so it is computed where it crosses
    the threshold. The time depends on the width of a box, not on its area.
    """
    padded = np.pad(np.asarray(probabilities, np.float32), ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER)))
    corners = _whole_pixels(np.asarray(boxes, np.float32), probabilities.shape[-1])
    return [_pasted(mask, box, height, width) for mask, box in zip(padded, corners.tolist(), strict=True)]


def _whole_pixels(boxes: np.ndarray, side: int) -> np.ndarray:
    """Boxes with the border around them, as the first and the last of their pixels, int (N, 4)."""
    centre, half = (boxes[:, 2:] + boxes[:, :2]) * 0.5, (boxes[:, 2:] - boxes[:, :2]) * 0.5
    half = half * np.float32((side + 2 * _BORDER) / side)
    return np.concatenate((centre - half, centre + half), 1).astype(np.int64)


def _pasted(mask: np.ndarray, box: Sequence[int], height: int, width: int) -> RunLengthMask:
    x1, y1, x2, y2 = box
    rows, across = max(1, y2 - y1 + 1), max(1, x2 - x1 + 1)
    columns = np.arange(max(0, x1), max(0, min(width, x1 + across)))
    if not len(columns):
        return encode_runs(np.zeros(0, np.int64), height, width)
    side = len(mask)
    # Probabilities along each column: (columns, side).
    position = ((columns - x1 + np.float32(0.5)) * np.float32(side / across) - np.float32(0.5)).clip(0, side - 1)
    left = np.minimum(position.astype(np.int64), side - 2)
    part = (position - left).astype(np.float32)[:, None]
    lines = mask.T[left] * (1 - part) + mask.T[left + 1] * part
    inside = lines > _THRESHOLD
    column, node = np.nonzero(inside[:, 1:] != inside[:, :-1])  # in turn up and down, as the border is 0
    before, after = lines[column, node], lines[column, node + 1]
    crossing = node + (_THRESHOLD - before) / (after - before)
    row = (crossing + 0.5) * (rows / side) - 0.5
    # The first row above the threshold, and the first one that is not.
    first = np.where(before < after, np.floor(row) + 1, np.ceil(row)).astype(np.int64) + y1
    return encode_runs(columns[column] * height + first.clip(0, height), height, width)
