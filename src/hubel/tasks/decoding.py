"""From pixels of the network's input to those of the original image."""

from __future__ import annotations

import numpy as np

from hubel.data.preprocessing import Preprocessing


def scale_to_original(boxes: np.ndarray, preprocessing: Preprocessing, width: int, height: int) -> np.ndarray:
    """Boxes (K, 4) in pixels of the network's input as float32 boxes of a ``width`` × ``height`` original."""
    left, top, right, bottom = preprocessing.crop_box(width, height)
    scale = np.array([(right - left) / preprocessing.width, (bottom - top) / preprocessing.height] * 2)
    moved = boxes * scale + np.array([left, top] * 2)
    return moved.clip(0, [width, height] * 2).astype(np.float32)
