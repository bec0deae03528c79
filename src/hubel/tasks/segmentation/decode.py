"""From class maps of the network's input to those of the original images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hubel.data.preprocessing import Preprocessing
from hubel.models.metadata import ModelMetadata
from hubel.results import SegmentationMap
from hubel.tasks.decoding import SourceImage, Thresholds

OUTPUTS = ("class_map",)
NMS = False
TILES = "maps"
AVERAGED_IN_NETWORK = True


def results(
    predictions: Mapping[str, np.ndarray],
    images: Sequence[SourceImage],
    metadata: ModelMetadata,
    thresholds: Thresholds,
) -> list[SegmentationMap]:
    """The class map of each image; see :class:`hubel.tasks.decoding.Decoder`."""
    return [
        SegmentationMap(
            image.source,
            image.width,
            image.height,
            to_original(class_map, metadata.preprocessing, image.width, image.height),
            tuple(metadata.classes),
            image.frame,
            image.time,
        )
        for image, class_map in zip(images, predictions["class_map"], strict=True)
    ]


def to_original(class_map: np.ndarray, preprocessing: Preprocessing, width: int, height: int) -> np.ndarray:
    """A class map (H, W) of the network's input at the size of the original: uint8 (height, width).

    Each pixel takes the class of the nearest one; outside what the network has seen, that of the nearest edge.
    """
    left, top, right, bottom = preprocessing.crop_box(width, height)
    x_scale, y_scale = class_map.shape[1] / (right - left), class_map.shape[0] / (bottom - top)
    columns = ((np.arange(width) + 0.5 - left) * x_scale).astype(int).clip(0, class_map.shape[1] - 1)
    rows = ((np.arange(height) + 0.5 - top) * y_scale).astype(int).clip(0, class_map.shape[0] - 1)
    return np.asarray(class_map[rows[:, None], columns], np.uint8)
