"""From a detector's raw outputs to objects, in NumPy: whatever engine has computed them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from hubel.config import CONF, IOU

SSD_VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""What SSD divides offsets by (Liu et al. 2016, arXiv 1512.02325; in its published code, not in the paper)."""

# Largest log of a size's ratio that is decoded, as in hubel.boxes.
_LARGEST_LOG_RATIO = math.log(1000 / 16)


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
    boxes = decode_boxes(offsets[anchor], anchors[anchor], size)
    kept = keep_best(boxes, label, rule.iou, rule.most)
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
    clipped = boxes[anchor].clip(0, np.array((size[1], size[0], size[1], size[0]), np.float32)).astype(np.float32)
    kept = keep_best(clipped, label, config.iou, config.most)
    return FoundObjects(clipped[kept], score[kept], label[kept])


def decode_boxes(offsets: np.ndarray, anchors: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Boxes (K, 4) of offsets (K, 4) from anchors (K, 4), cut off at the picture's ``size``, height and width.

    Equation 2 of Liu et al. 2016, arXiv 1512.02325, with :data:`SSD_VARIANCES`.
    """
    dx, dy, dw, dh = (offsets * np.array(SSD_VARIANCES, np.float32)).T
    x1, y1, x2, y2 = anchors.T
    width, height = x2 - x1, y2 - y1
    x, y = x1 + width / 2 + dx * width, y1 + height / 2 + dy * height
    half_width = width / 2 * np.exp(np.minimum(dw, _LARGEST_LOG_RATIO))
    half_height = height / 2 * np.exp(np.minimum(dh, _LARGEST_LOG_RATIO))
    boxes = np.stack((x - half_width, y - half_height, x + half_width, y + half_height), 1)
    return boxes.clip(0, np.array((size[1], size[0], size[1], size[0]), np.float32)).astype(np.float32)


def keep_best(boxes: np.ndarray, labels: np.ndarray, iou: float, most: int) -> np.ndarray:
    """Greedy suppression within each class: indices (K,) of the boxes that stay, ``most`` at most.

    The same as :func:`hubel.boxes.nms`, without torch, and done as soon as there are enough.

    Args:
        boxes: (N, 4), best first.
        labels: int64 (N,).
        iou: boxes go whose IoU with a better one of their class is greater.
        most: how many are wanted.
    """
    # Classes lie side by side, so that boxes of different ones never overlap.
    apart = boxes.astype(np.float64) + (labels * (boxes.max(initial=0) + 1.0))[:, None]
    areas = (apart[:, 2] - apart[:, 0]) * (apart[:, 3] - apart[:, 1])
    remaining = np.arange(len(boxes))
    kept: list[int] = []
    while len(remaining) and len(kept) < most:
        best, remaining = remaining[0], remaining[1:]
        kept.append(int(best))
        others = apart[remaining]
        corner = np.minimum(others[:, 2:], apart[best, 2:]) - np.maximum(others[:, :2], apart[best, :2])
        shared = corner.clip(min=0).prod(axis=1)
        remaining = remaining[shared <= iou * (areas[remaining] + areas[best] - shared)]
    return np.array(kept, np.int64)


def _rank_in_class(labels: np.ndarray) -> np.ndarray:
    """Of each entry, how many of its class stand before it (N,)."""
    order = np.argsort(labels, kind="stable")
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(labels[order], labels[order])
    return ranks
