"""Proposals: from what the first stage says of every anchor to the regions that the second stage looks at.

Ren et al. 2015, "Faster R-CNN", arXiv 1506.01497, section 3.3; level by level, Lin et al. 2017, arXiv 1612.03144,
section 4.1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubel.boxes import clip, decode, nms
from hubel.models.detection.two_stage.padded_images import clip_to

_SMALLEST = 1e-3  # pixels of a side


@dataclass(frozen=True)
class Selection:
    """How many regions are proposed.

    Attributes:
        before: the best anchors of each level that suppression looks at.
        after: regions of an image.
        least: lowest probability of an object.
        iou: above it, the worse of two regions of a level is dropped.
    """

    before: int
    after: int
    least: float = 0.0
    iou: float = 0.7

    def regions(self, counts: Sequence[int]) -> int:
        """Regions of an image whose levels have so many anchors."""
        return min(self.after, sum(min(self.before, count) for count in counts))

    def __call__(
        self,
        objectness: Sequence[Tensor],
        offsets: Sequence[Tensor],
        anchors: Tensor,
        counts: Sequence[int],
        size: tuple[int, int],
        areas: Tensor | None = None,
    ) -> Tensor:
        """The best regions, clipped to the image, best first: float32 (N, P, 4), without gradient.

        ``P`` is that of :meth:`regions`. What remains where an image has fewer is zeros: see :func:`valid`. On the meta
        device nothing is computed.

        Args:
            objectness: raw scores of each level's anchors (N, A).
            offsets: likewise (N, A, 4), from the anchors.
            anchors: of all levels (A, 4).
            counts: anchors of each level.
            size: height and width of the images.
            areas: the part of each that regions are clipped to (N, 4), if it is not the whole.
        """
        if objectness[0].is_meta:  # what follows would make PyTorch import its compiler
            return offsets[0].new_empty(offsets[0].shape[0], self.regions(counts), 4, dtype=torch.float32)
        boxes, scores = [], []
        levels: list[int] = []
        of_levels = zip(objectness, offsets, anchors.split(list(counts)), strict=True)
        for level, (count, of_level) in enumerate(zip(counts, of_levels, strict=True)):
            of_anchors, moved, fixed = (each.detach().float() for each in of_level)
            best = of_anchors.topk(min(self.before, count), 1)
            found = decode(moved.gather(1, of_boxes(best.indices)), fixed[best.indices])
            boxes.append(clip(found, size[1], size[0]) if areas is None else clip_to(found, areas))
            scores.append(best.values)
            levels += min(self.before, count) * [level]
        every, score = torch.cat(boxes, 1), torch.cat(scores, 1)
        group = torch.tensor(levels, device=every.device).expand_as(score)
        kept = unsuppressed(every, score, group, len(counts), self.iou, size)
        kept &= valid(every) & (torch.sigmoid(score) >= self.least)
        best = score.masked_fill(~kept, -torch.inf).topk(self.regions(counts), 1)
        return every.gather(1, of_boxes(best.indices)).masked_fill((best.values == -torch.inf)[..., None], 0)


def of_boxes(indices: Tensor) -> Tensor:
    """Indices of boxes (N, K) for each of their four numbers (N, K, 4)."""
    return indices[..., None].expand(-1, -1, 4)


def valid(boxes: Tensor, smallest: float = _SMALLEST) -> Tensor:
    """Which boxes (..., 4) have sides of so many pixels, bool (...): the others fill up tensors."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= smallest).all(-1)


def unsuppressed(
    boxes: Tensor, scores: Tensor, groups: Tensor, count: int, iou: float, size: tuple[int, int]
) -> Tensor:
    """Which boxes (N, K, 4) remain of those of the same image and group (N, K), one of ``count``: bool (N, K)."""
    if not (torch.compiler.is_exporting() or torch._C._is_tracing()):
        kept = torch.zeros_like(scores, dtype=torch.bool)
        for of_image, own, score, group in zip(kept, boxes, scores, groups, strict=True):
            of_image[nms(own, score, group, iou)] = True
        return kept
    # A loop in a graph is of a fixed number of images. Side by side, images and groups never overlap: one call for all.
    # Groups fill a square, since float32 rounds large coordinates.
    side = math.isqrt(count - 1) + 1
    image = torch.arange(boxes.shape[0], device=boxes.device)[:, None]
    place = torch.stack((groups % side, groups // side + image * side), 2) * (max(size) + 1)
    apart = boxes + torch.cat((place, place), 2)
    found = nms(apart.flatten(0, 1), scores.flatten(), iou=iou)
    flat = torch.zeros_like(scores).flatten()
    return flat.index_copy(0, found, torch.ones_like(found, dtype=flat.dtype)).view_as(scores) > 0
