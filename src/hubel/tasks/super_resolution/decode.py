"""From the network's output to enlarged images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from PIL import Image

from hubel.models.metadata import ModelMetadata
from hubel.results import Enlarged, InMemory
from hubel.tasks.decoding import SourceImage, Thresholds

OUTPUTS = ("image",)
NMS = False
TILES = None
AVERAGED_IN_NETWORK = False


def results(
    predictions: Mapping[str, np.ndarray],
    images: Sequence[SourceImage],
    metadata: ModelMetadata,
    thresholds: Thresholds,
) -> list[Enlarged]:
    """The enlarged image of each, or of each tile; see :class:`hubel.tasks.decoding.Decoder`."""
    return [
        Enlarged(
            image.source,
            image.width,
            image.height,
            metadata.preprocessing.scale,
            InMemory(partial(_to_image, values)),
            frame=image.frame,
            time=image.time,
        )
        for image, values in zip(images, predictions["image"], strict=True)
    ]


def merge_mirrored(
    predictions: Mapping[str, np.ndarray],
    mirrored: Mapping[str, np.ndarray],
    metadata: ModelMetadata,
    thresholds: Thresholds,
) -> dict[str, np.ndarray]:
    """The mean of both images; see :class:`hubel.tasks.decoding.Decoder`."""
    return {"image": (predictions["image"] + mirrored["image"][:, :, ::-1]) / 2}


def _to_image(values: np.ndarray) -> Image.Image:
    pixels = to_bytes(values)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("RGB")


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Pixels of 0..255 as uint8, rounded."""
    return np.asarray(np.rint(values).clip(0, 255), np.uint8)
