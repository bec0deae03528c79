"""From a detector's raw outputs to objects, in NumPy: whatever engine has computed them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hubel.boxes import SSD_VARIANCES, clip, decode, nms
from hubel.config import CONF, IOU


@dataclass(frozen=True)
class NMSConfig:
    """How raw outputs become a list of objects.

    Attributes:
        conf: boxes of a lower score are dropped, 0..1.
        iou: of two boxes of a class that overlap by more, the worse is dropped.
        most: objects of an image at most.
        candidates: boxes of a class that are looked at.
    """

    conf: float = CONF
    iou: float = IOU
    most: int = 300
    candidates: int = 1000


class FoundObjects(NamedTuple):
    """Objects of one image, best first.

    Attributes:
        boxes: float32 (K, 4), x1, y1, x2, y2 in pixels of the network's input.
        scores: float32 (K,), 0..1.
        labels: int64 (K,), classes from 0.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def decode_detections(
    scores: np.ndarray, offsets: np.ndarray, anchors: np.ndarray, size: tuple[int, int], rule: NMSConfig
) -> FoundObjects:
    """Objects of one image from raw outputs.

    Args:
        scores: float32 (A, 1 + classes), "nothing" first.
        offsets: float32 (A, 4).
        anchors: float32 (A, 4), x1, y1, x2, y2 in pixels.
        size: height and width of the network's input in pixels; boxes are cut off there.
        rule: thresholds.
    """
    # A class of probability conf beats "nothing" by log(conf / (1 - conf)) at least: most anchors are out of it before
    # anything is computed of them. The margin is for rounding.
    lead = math.log(rule.conf / (1 - rule.conf)) - 1e-3 if 0 < rule.conf < 1 else -math.inf
    hopeful = np.flatnonzero(scores[:, 1:].max(axis=1) >= scores[:, 0] + lead)
    powers = np.exp(scores[hopeful] - scores[hopeful].max(axis=1, keepdims=True))
    probabilities = powers[:, 1:] / powers.sum(axis=1, keepdims=True)
    place, label = np.nonzero(probabilities >= rule.conf)
    score = probabilities[place, label]
    best = np.argsort(-score, kind="stable")
    if len(best) > rule.candidates:
        best = best[_rank_in_class(label[best]) < rule.candidates]
    anchor, label, score = hopeful[place[best]], label[best], score[best]
    boxes = clip(decode(offsets[anchor], anchors[anchor], SSD_VARIANCES), size[1], size[0])
    kept = nms(boxes, score, label, rule.iou, rule.most)
    return FoundObjects(boxes[kept], score[kept], label[kept])


def select_objects(boxes: np.ndarray, scores: np.ndarray, size: tuple[int, int], config: NMSConfig) -> FoundObjects:
    """Objects of one image from dense predictions: score threshold, then NMS within each class.

    Args:
        boxes: float32 (A, 4) in pixels of the network's input.
        scores: float32 (A, classes), 0..1.
        size: height and width of the network's input in pixels; boxes are clipped to it.
        config: thresholds.
    """
    anchor, label = np.nonzero(scores >= config.conf)
    score = scores[anchor, label]
    best = np.argsort(-score, kind="stable")
    if len(best) > config.candidates:
        best = best[_rank_in_class(label[best]) < config.candidates]
    anchor, label, score = anchor[best], label[best], score[best]
    clipped = clip(boxes[anchor], size[1], size[0])
    kept = nms(clipped, score, label, config.iou, config.most)
    return FoundObjects(clipped[kept], score[kept], label[kept])


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Of each entry, how many of its class stand before it (N,)."""
    order = np.argsort(labels, kind="stable")
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return ranks
