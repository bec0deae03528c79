"""From objects with scores and small masks to those of the original images: thresholds, then masks are pasted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from hubel.boxes import clip
from hubel.masks import RunLengthMask
from hubel.models.metadata import ModelMetadata
from hubel.results import Instances
from hubel.tasks.decoding import SourceImage, Thresholds, in_plane_of_original, scale_to_original, suppress
from hubel.tasks.instances.paste import paste_masks

OUTPUTS = ("boxes", "scores", "masks")
NMS = True
TILES = None
AVERAGED_IN_NETWORK = False

_TORCHVISIONS = ("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_v2")


def as_torchvision(metadata: ModelMetadata) -> bool:
    """Whether masks are pasted as in torchvision, whose network it is."""
    return metadata.architecture in _TORCHVISIONS


class Selected(NamedTuple):
    """Objects of one image in pixels of the network's input, best first.

    Attributes:
        boxes: float32 (K, 4), x1, y1, x2, y2.
        scores: float32 (K,), 0..1.
        labels: int64 (K,).
        masks: float32 (K, S, S), probability of each part of a box that it is of the object.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def results(
    predictions: Mapping[str, np.ndarray],
    images: Sequence[SourceImage],
    metadata: ModelMetadata,
    thresholds: Thresholds,
) -> list[Instances]:
    """The objects of each image with their masks; see :class:`hubel.tasks.decoding.Decoder`."""
    found = []
    size = (metadata.preprocessing.height, metadata.preprocessing.width)
    for image, boxes, scores, masks in zip(images, *(predictions[name] for name in OUTPUTS), strict=True):
        objects = select_instances(boxes, scores, masks, size, thresholds)
        moved, pasted = on_original(objects, metadata, image.width, image.height)
        found.append(
            Instances(
                image.source,
                image.width,
                image.height,
                moved,
                objects.scores,
                objects.labels,
                tuple(metadata.classes[label] for label in objects.labels),
                tuple(pasted),
                frame=image.frame,
                time=image.time,
            )
        )
    return found


def on_original(
    objects: Selected, metadata: ModelMetadata, width: int, height: int
) -> tuple[np.ndarray, list[RunLengthMask]]:
    """Boxes (K, 4), and masks, of objects in pixels of a ``width`` × ``height`` original.

    A box that reaches into the padding of the network's input is cut off at the image's edge, and its mask is not
    scaled to what is left of it.
    """
    place = metadata.preprocessing, width, height
    whole = in_plane_of_original(objects.boxes, *place)
    masks = paste_masks(objects.masks, whole, height, width, as_torchvision(metadata))
    return scale_to_original(objects.boxes, *place), masks


def select_instances(
    boxes: np.ndarray, scores: np.ndarray, masks: np.ndarray, size: tuple[int, int], thresholds: Thresholds
) -> Selected:
    """Objects of one image from a network that has suppressed most others before it looked for their masks.

    Boxes are float32 (K, 4) in pixels of the network's input, and are clipped to its size, height and width; scores are
    float32 (K, classes), above 0 for the class of the box and its mask only; masks are float32 (K, S, S), 0..1. The
    thresholds can only leave out more.
    """
    row, label = np.nonzero((scores >= thresholds.conf) & (scores > 0))
    best = np.argsort(-scores[row, label], kind="stable")
    row, label = row[best], label[best]
    clipped, score = clip(boxes[row], size[1], size[0]), scores[row, label]
    kept, score = suppress(clipped, score, label, thresholds)
    return Selected(clipped[kept], score, label[kept], masks[row[kept]])
