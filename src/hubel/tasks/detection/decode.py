"""From dense boxes and scores to objects: score threshold, then NMS within each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hubel.boxes import clip, nms
from hubel.metrics.coco import PredictedObjects
from hubel.models.metadata import ModelMetadata
from hubel.results import Detections
from hubel.tasks.decoding import SourceImage, Thresholds, scale_to_original

OUTPUTS = ("boxes", "scores")
NMS = True


def results(
    predictions: Mapping[str, np.ndarray],
    images: Sequence[SourceImage],
    metadata: ModelMetadata,
    thresholds: Thresholds,
) -> list[Detections]:
    """The objects of each image; see :class:`hubel.tasks.decoding.Decoder`."""
    size = (metadata.preprocessing.height, metadata.preprocessing.width)
    detected = []
    for image, boxes, scores in zip(images, predictions["boxes"], predictions["scores"], strict=True):
        objects = select_objects(boxes, scores, size, thresholds)
        detected.append(
            Detections(
                image.source,
                image.width,
                image.height,
                scale_to_original(objects.boxes, metadata.preprocessing, image.width, image.height),
                objects.scores,
                objects.labels,
                tuple(metadata.classes[label] for label in objects.labels),
                frame=image.frame,
                time=image.time,
            )
        )
    return detected


def select_objects(
    boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int], thresholds: Thresholds
) -> PredictedObjects:
    """Objects of one image from dense predictions.

    Boxes are float32 (A, 4) in pixels of the network's input, and are clipped to its size, height and width; scores are
    float32 (A, classes), 0..1.
    """
    box, label = np.nonzero(scores >= thresholds.conf)
    score = scores[box, label]
    best = np.argsort(-score, kind="stable")
    if len(best) > thresholds.topk_candidates:
        best = best[_rank_in_class(label[best]) < thresholds.topk_candidates]
    box, label, score = box[best], label[best], score[best]
    clipped = clip(boxes[box], size[1], size[0])
    kept = nms(clipped, score, label, thresholds.iou, thresholds.max_detections)
    return PredictedObjects(clipped[kept], score[kept], label[kept])


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Number of entries of the same class before each entry (N,)."""
    order = np.argsort(labels, kind="stable")
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return ranks
