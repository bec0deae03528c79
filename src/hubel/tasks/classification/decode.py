"""From class probabilities to the best classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hubel.models.metadata import ModelMetadata
from hubel.results import Classification, ClassScore
from hubel.tasks.decoding import SourceImage, Thresholds

OUTPUTS = ("probabilities",)
NMS = False
TILES = None
AVERAGED_IN_NETWORK = False


def results(
    predictions: Mapping[str, np.ndarray],
    images: Sequence[SourceImage],
    metadata: ModelMetadata,
    thresholds: Thresholds,
) -> list[Classification]:
    """The most probable classes of each image; see :class:`hubel.tasks.decoding.Decoder`."""
    return [
        Classification(
            image.source,
            image.width,
            image.height,
            top_k(probabilities, metadata.classes, thresholds.top_k),
            image.frame,
            image.time,
        )
        for image, probabilities in zip(images, predictions["probabilities"], strict=True)
    ]


def merge_mirrored(
    predictions: Mapping[str, np.ndarray],
    mirrored: Mapping[str, np.ndarray],
    metadata: ModelMetadata,
    thresholds: Thresholds,
) -> dict[str, np.ndarray]:
    """The mean probabilities of an image and its mirror image; see :class:`hubel.tasks.decoding.Decoder`."""
    return {"probabilities": (predictions["probabilities"] + mirrored["probabilities"]) / 2}


def top_k(probabilities: np.ndarray, names: Sequence[str], k: int) -> tuple[ClassScore, ...]:
    """The ``k`` most probable classes of one image (classes,), best first; ties go to the lower index."""
    order = np.argsort(-probabilities, kind="stable")[:k]
    return tuple(ClassScore(int(index), names[index], float(probabilities[index])) for index in order)
