"""Anchors of a data set: the shapes of boxes that its objects have most often.

Redmon and Farhadi 2017, "YOLO9000: Better, Faster, Stronger", arXiv 1612.08242, section 2 ("Dimension Clusters"):
k-means of widths and heights under the distance 1 - IoU, since Euclidean distance would fit large boxes at the cost of
small ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hubel.boxes import shape_iou
from hubel.errors import DataError

_STARTS = 10  # the best of several: k-means finds a local optimum
_MOST_STEPS = 300


class Anchors(NamedTuple):
    """Shapes of boxes, the smallest first.

    Attributes:
        sizes: float64 (K, 2), width and height, in the unit of the boxes.
        mean_iou: mean over the boxes of the IoU with the anchor that fits best, both at the same place: "Avg IOU" of
            the paper's table 1.
    """

    sizes: np.ndarray
    mean_iou: float


def cluster_anchors(sizes: np.ndarray, count: int, seed: int = 0) -> Anchors:
    """The anchors that fit boxes of widths and heights (N, 2) best.

    Raises:
        DataError: there are fewer different shapes than anchors.
    """
    sizes = np.asarray(sizes, float).reshape(-1, 2)
    different = len(np.unique(sizes, axis=0))
    if different < count:
        message = f"{count} anchors cannot be found among {different} different shapes of boxes"
        raise DataError(message, f"use --count {different} or fewer" if different else "label objects with boxes")
    generator = np.random.default_rng(seed)
    found = [_k_means(sizes, _spread_start(sizes, count, generator)) for _ in range(_STARTS)]
    best = max(found, key=lambda anchors: anchors.mean_iou)
    return Anchors(best.sizes[np.argsort(best.sizes.prod(1), kind="stable")], best.mean_iou)


def _spread_start(sizes: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """Boxes to start from, each drawn in proportion to its distance from those before (k-means++)."""
    chosen = [sizes[generator.integers(len(sizes))]]
    while len(chosen) < count:
        distance = 1 - shape_iou(sizes, np.array(chosen)).max(1)
        # Shapes that are equal but for rounding are at a distance of about 1e-16, some of them below 0.
        distance = np.where(distance > 1e-12, distance, 0.0)
        chosen.append(sizes[generator.choice(len(sizes), p=distance / distance.sum())])
    return np.array(chosen)


def _k_means(sizes: np.ndarray, anchors: np.ndarray) -> Anchors:
    """Assign each box to the anchor of largest IoU, move anchors to the mean shape of theirs, until none changes.

    A mean does not maximize the IoU, so a step may make the fit worse: the best one on the way is kept.
    """
    best, assigned = Anchors(anchors, -1.0), None
    for _ in range(_MOST_STEPS):
        overlap = shape_iou(sizes, anchors)
        fit = float(overlap.max(1).mean())
        if fit > best.mean_iou:
            best = Anchors(anchors, fit)
        nearest = overlap.argmax(1)
        if assigned is not None and np.array_equal(nearest, assigned):
            break
        assigned = nearest
        # An anchor without boxes stays where it is.
        anchors = np.array(
            [
                sizes[nearest == index].mean(0) if (nearest == index).any() else anchor
                for index, anchor in enumerate(anchors)
            ]
        )
    return best
