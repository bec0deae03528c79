"""Recall of region proposals: what the second stage of a detector never sees, it cannot find.

As COCO's average recall with ``useCats=0``: the best proposals of each image are matched in their order with the free
object that they overlap most, whatever its class. Against the number of proposals, as in Hosang et al. 2016, "What
makes for effective detection proposals?", arXiv 1502.05082, figure 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hubel.boxes import iou

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)

NUMBERS = np.unique(np.geomspace(10, 1000, 41).round().astype(int))
"""Proposals of an image: 10 to 1000, evenly on a logarithmic scale."""


@dataclass(frozen=True)
class ProposalRecall:
    """Recall over the number of proposals.

    Attributes:
        numbers: (K,), the first proposals of an image that count; up to the most that an image has.
        recall: (K, 10), fraction of the objects that they find by each of :data:`IOU_THRESHOLDS`.
    """

    numbers: np.ndarray
    recall: np.ndarray

    @property
    def average(self) -> np.ndarray:
        """COCO's average recall (K,): the mean over the thresholds."""
        return np.asarray(self.recall.mean(1))


@dataclass(frozen=True)
class ImageProposals:
    """What the proposals of an image find.

    Attributes:
        count: proposals of the image.
        ranks: (10, M), which proposal finds each object by each threshold, from 1; 0 where none does.
    """

    count: int
    ranks: np.ndarray


def rank_proposals(proposals: np.ndarray, boxes: np.ndarray) -> ImageProposals:
    """Proposals (P, 4), best first, of an image with objects (M, 4); those without an area are none."""
    proposals = np.asarray(proposals, np.float64)
    proposals = proposals[(proposals[:, 2:] > proposals[:, :2]).all(1)]
    overlap = iou(proposals, np.asarray(boxes, np.float64).reshape(-1, 4))
    ranks = np.zeros((len(IOU_THRESHOLDS), overlap.shape[1]), np.int64)
    largest = overlap.max(1, initial=0)
    for threshold, found in zip(IOU_THRESHOLDS, ranks, strict=True):
        for index in np.flatnonzero(largest >= threshold).tolist():
            candidates = np.where(found == 0, overlap[index], 0)
            if candidates.max() >= threshold:
                found[candidates.argmax()] = index + 1
    return ImageProposals(len(proposals), ranks)


def proposal_recall(images: Sequence[ImageProposals]) -> ProposalRecall | None:
    """Recall of all images together; ``None`` without objects or proposals."""
    ranks = np.concatenate([np.zeros((len(IOU_THRESHOLDS), 0), np.int64), *(image.ranks for image in images)], 1)
    most = max((image.count for image in images), default=0)
    if not ranks.size or not most:
        return None
    numbers = np.append(NUMBERS[most > NUMBERS], most)
    found = (ranks > 0) & (ranks <= numbers[:, None, None])
    return ProposalRecall(numbers, found.mean(2))
