"""From a box and class scores to one located object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hubel.data.transforms.geometry import flip_boxes
from hubel.models.metadata import ModelMetadata
from hubel.results import Localization
from hubel.tasks.decoding import SourceImage, Thresholds, scale_to_original

OUTPUTS = ("boxes", "scores")
NMS = False
TILES = None
AVERAGED_IN_NETWORK = False


def results(
    predictions: Mapping[str, np.ndarray],
    images: Sequence[SourceImage],
    metadata: ModelMetadata,
    thresholds: Thresholds,
) -> list[Localization]:
    """The most probable class and its box; see :class:`hubel.tasks.decoding.Decoder`."""
    located = []
    for image, boxes, scores in zip(images, predictions["boxes"], predictions["scores"], strict=True):
        box, label = boxes[0], int(scores[0].argmax())
        located.append(
            Localization(
                image.source,
                image.width,
                image.height,
                scale_to_original(box[None], metadata.preprocessing, image.width, image.height),
                scores[0, label : label + 1].astype(np.float32),
                np.array([label], np.int64),
                (metadata.classes[label],),
                frame=image.frame,
                time=image.time,
            )
        )
    return located


def merge_mirrored(
    predictions: Mapping[str, np.ndarray],
    mirrored: Mapping[str, np.ndarray],
    metadata: ModelMetadata,
    thresholds: Thresholds,
) -> dict[str, np.ndarray]:
    """Mean box and mean probabilities of an image and its mirror image; see :class:`hubel.tasks.decoding.Decoder`."""
    back = flip_boxes(mirrored["boxes"][:, 0], metadata.preprocessing.width)[:, None]
    return {"boxes": (predictions["boxes"] + back) / 2, "scores": (predictions["scores"] + mirrored["scores"]) / 2}
