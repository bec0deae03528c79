"""From dense boxes and scores to objects: score threshold, then non-maximum suppression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hubel.boxes import clip, iou
from hubel.data.transforms.geometry import flip_boxes
from hubel.metrics.coco import PredictedObjects
from hubel.models.metadata import ModelMetadata
from hubel.results import Detections
from hubel.tasks.decoding import SourceImage, Thresholds, scale_to_original, suppress

OUTPUTS = ("boxes", "scores")
NMS = True
TILES = "objects"
AVERAGED_IN_NETWORK = False

_FUSION_IOU = 0.55  # of Solovyev et al. 2019, section 3
_LOWEST_SCORE = 0.001  # of what is fused: that from which boxes count in COCO's evaluation
_NO_SCORE = -1.0  # below every threshold


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
    kept, score = suppress(clipped, score, label, thresholds)
    return PredictedObjects(clipped[kept], score, label[kept])


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Number of entries of the same class before each entry (N,)."""
    order = np.argsort(labels, kind="stable")
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return ranks


def merge_mirrored(
    predictions: Mapping[str, np.ndarray],
    mirrored: Mapping[str, np.ndarray],
    metadata: ModelMetadata,
    thresholds: Thresholds,
) -> dict[str, np.ndarray]:
    """The fused objects of an image and its mirror image; see :class:`hubel.tasks.decoding.Decoder`.

    Each row of ``"boxes"`` (N, K, 4) has a score for one class in ``"scores"`` (N, K, classes), and -1 for the others,
    as have the rows that are left over in images with fewer objects than others.
    """
    size = (metadata.preprocessing.height, metadata.preprocessing.width)
    limits = replace(thresholds, conf=_LOWEST_SCORE)
    fused = []
    for image in range(len(predictions["boxes"])):
        here, there = (
            select_objects(view["boxes"][image], view["scores"][image], size, limits)
            for view in (predictions, mirrored)
        )
        back = PredictedObjects(flip_boxes(there.boxes, size[1]), there.scores, there.labels)
        fused.append(fuse_views(here, back))
    rows = max([1, *(len(objects.scores) for objects in fused)])
    boxes = np.zeros((len(fused), rows, 4), np.float32)
    scores = np.full((len(fused), rows, predictions["scores"].shape[2]), _NO_SCORE, np.float32)
    for image, objects in enumerate(fused):
        boxes[image, : len(objects.boxes)] = objects.boxes
        scores[image, np.arange(len(objects.scores)), objects.labels] = objects.scores
    return {"boxes": boxes, "scores": scores}


def fuse_views(a: PredictedObjects, b: PredictedObjects) -> PredictedObjects:
    """Weighted boxes fusion of two views' objects (Solovyev et al. 2019, arXiv 1910.13302, section 3).

    Boxes of a class that overlap by an IoU above 0.55 become one: the mean of the two, weighted by their scores, with
    the mean of these as its score. A box that only one view has keeps its place, and half of its score.

    Deviation: a fused box is made of one box of each view at most. What suppression has left apart in a view, such as
    neighbours in a crowd, stays apart.
    """
    overlap = iou(a.boxes, b.boxes) * (a.labels[:, None] == b.labels[None])
    row, column = np.nonzero(overlap > _FUSION_IOU)
    # In order of score, each box takes the free one that it overlaps most, of those with a higher score.
    order = np.lexsort((-overlap[row, column], -np.minimum(a.scores[row], b.scores[column])))
    of_a, of_b = np.full(len(a.scores), -1), np.full(len(b.scores), -1)
    for i, j in zip(row[order].tolist(), column[order].tolist(), strict=True):
        if of_a[i] < 0 and of_b[j] < 0:
            of_a[i], of_b[j] = j, i
    paired, alone = of_a >= 0, of_b < 0
    boxes, scores = a.boxes.astype(np.float64), a.scores / 2
    weight, others = a.scores[paired, None], b.scores[of_a[paired]]
    boxes[paired] = (weight * a.boxes[paired] + others[:, None] * b.boxes[of_a[paired]]) / (weight + others[:, None])
    scores[paired] += others / 2
    return PredictedObjects(
        np.concatenate((boxes, b.boxes[alone])).astype(np.float32),
        np.concatenate((scores, b.scores[alone] / 2)),
        np.concatenate((a.labels, b.labels[alone])),
    )
