"""Class maps laid over images, with a legend."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from hubel.drawing.boxes import BoxLabel, colour_of, draw_boxes

_OPACITY = 0.55
_NAMED = 0.005  # of the pixels: smaller classes get no label


def draw_class_map(image: Image.Image, classes: np.ndarray, names: Sequence[str]) -> Image.Image:
    """A copy of ``image`` (RGB) with every class in its colour, and its name where most of it is.

    Args:
        image: any size.
        classes: (H, W), indices into ``names``.
        names: of the classes.
    """
    palette = np.array([colour_of(index) for index in range(len(names))], np.uint8)
    size = (image.width, image.height)
    overlay = Image.fromarray(palette[classes]).resize(size, Image.Resampling.NEAREST)
    blended = Image.blend(image.convert("RGB"), overlay, _OPACITY)
    labels = []
    for index in np.unique(classes).tolist():
        rows, columns = np.nonzero(classes == index)
        if len(rows) >= _NAMED * classes.size:
            x, y = (float(np.median(each)) for each in (columns, rows))
            x, y = x * image.width / classes.shape[1], y * image.height / classes.shape[0]
            labels.append(BoxLabel((x - 1, y - 1, x + 1, y + 1), names[index], index))
    return draw_boxes(blended, labels)
