"""MultiBox: SSD's default boxes, which of them answer for which object, and the loss.

Liu et al. 2016, "SSD: Single Shot MultiBox Detector", arXiv 1512.02325, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hubel.boxes import encode, iou
from hubel.models.base import ObjectTargets
from hubel.models.detection.anchors import at_cells
from hubel.models.partly_labelled import without_unknown_of_batch

NEG_POS_RATIO = 3
"""Background anchors that count for each positive one ("Hard negative mining")."""

MATCHING_IOU = 0.5

IGNORED = -1
"""Label of an anchor in an ignored region that is not matched to an object."""

VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""Scale of the offsets; in the published code, not in the paper."""


@dataclass(frozen=True)
class DefaultBoxes:
    """Shapes and spacing of the default boxes of each map.

    Attributes:
        sizes: of each map, width and height of the boxes at a cell, in their order; 1 is the side of the image.
        steps: pixels between the boxes of each map; ``None``: the image's side over the map's.
    """

    sizes: tuple[tuple[tuple[float, float], ...], ...]
    steps: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if len(self.steps or self.sizes) != len(self.sizes):
            raise ValueError(f"{len(self.sizes)} maps need as many steps")

    @property
    def per_cell(self) -> tuple[int, ...]:
        """Boxes at each cell of each map."""
        return tuple(map(len, self.sizes))

    def boxes(self, grids: Sequence[tuple[int, int]], height: int, width: int) -> Tensor:
        """All boxes of an image whose maps have these heights and widths: float32 (A, 4), x1, y1, x2, y2 in pixels.

        Map by map, row by row, and at a cell in the order of their sizes. They may reach over the image's edge.
        """
        return torch.cat([self._of_map(index, grid, height, width) for index, grid in enumerate(grids)])

    def _of_map(self, index: int, grid: tuple[int, int], height: int, width: int) -> Tensor:
        rows, columns = grid
        steps = (height / rows, width / columns) if self.steps is None else 2 * (self.steps[index],)
        return at_cells(torch.tensor(self.sizes[index]) * torch.tensor([width, height]), grid, steps)


def scaled_boxes(
    scales: Sequence[float], ratios: Sequence[Sequence[float]], steps: tuple[int, ...] | None = None
) -> DefaultBoxes:
    """The paper's boxes: at a cell two squares, then each aspect ratio lying and standing; no side is above 1.

    Args:
        scales: of each map, and one more for the last map's larger square; 1 is the side of the image.
        ratios: of each map: aspect ratios other than 1; a stands for 1 / a too.
        steps: see :class:`DefaultBoxes`.
    """
    if len(scales) != len(ratios) + 1:
        raise ValueError(f"{len(ratios)} maps need {len(ratios) + 1} scales")
    sizes = []
    for scale, following, of_map in zip(scales[:-1], scales[1:], ratios, strict=True):
        sides = [(scale, scale), 2 * (math.sqrt(scale * following),)]
        for ratio in of_map:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            sides += [(long, short), (short, long)]
        sizes.append(tuple((min(width, 1.0), min(height, 1.0)) for width, height in sides))
    return DefaultBoxes(tuple(sizes), steps)


def evenly_scaled(maps: int, smallest: float, largest: float) -> tuple[float, ...]:
    """Scales from ``smallest`` to ``largest``, evenly (the paper's equation 4), and 1 after them."""
    step = (largest - smallest) / (maps - 1)
    return (*(smallest + step * index for index in range(maps)), 1.0)


class Matches(NamedTuple):
    """Targets of the anchors of one image."""

    labels: Tensor  # int64 (A,): 0 for background, else class + 1; IGNORED for neither
    objects: Tensor  # int64 (A,): index of the matched object; 0 for background


def match(anchors: Tensor, targets: ObjectTargets, earlier: bool = False) -> Matches:
    """Match each anchor (A, 4) to the object it overlaps most, by IoU 0.5 or more, and each object to its best anchor.

    "Matching strategy"; of two objects with the same best anchor the later one gets it, or the ``earlier``.
    """
    background = torch.where(targets.ignores(anchors), IGNORED, 0)
    if not len(targets.boxes):
        return Matches(background, torch.zeros_like(background))
    overlap = iou(targets.boxes, anchors)
    best, objects = overlap.max(0)
    for index, anchor in sorted(enumerate(overlap.argmax(1).tolist()), reverse=earlier):
        best[anchor], objects[anchor] = 1.0, index
    return Matches(torch.where(best >= MATCHING_IOU, targets.labels[objects] + 1, background), objects)


def _softmax_loss(scores: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(scores, labels, reduction="none")


def multibox_loss(
    scores: Tensor,
    offsets: Tensor,
    anchors: Tensor,
    targets: Sequence[ObjectTargets],
    class_loss: Callable[[Tensor, Tensor], Tensor] = _softmax_loss,
) -> dict[str, Tensor]:
    """The two terms of equations 1 to 3, each a sum over the batch divided by the number of positive anchors.

    Args:
        scores: raw (N, A, 1 + classes), background first.
        offsets: (N, A, 4).
        anchors: (A, 4).
        class_loss: of each row of scores (M, 1 + classes) with the labels (M,), 0 for background; cross-entropy by
            default.

    Returns:
        ``"class"``: that loss of the positive anchors and the hardest three times as many background ones, of those
        in no ignored region; scores of classes that an image does not label have no part in it;
        ``"box"``: smooth L1 of the positive anchors' offsets.
    """
    matches = [match(anchors, each) for each in targets]
    labels = torch.stack([each.labels for each in matches])
    positive = labels > 0
    known = without_unknown_of_batch(scores.float(), labels - 1, targets)
    losses = class_loss(known.flatten(0, 1), labels.flatten().clamp(min=0)).view_as(labels)
    hardness = losses.detach().masked_fill(labels != 0, -torch.inf)
    rank = hardness.argsort(1, descending=True).argsort(1)
    counted = positive | ((labels == 0) & (rank < NEG_POS_RATIO * positive.sum(1, keepdim=True)))
    box = [
        functional.smooth_l1_loss(
            predicted[own].float(), encode(target.boxes[matched.objects[own]], anchors[own], VARIANCES), reduction="sum"
        )
        for predicted, target, matched, own in zip(offsets, targets, matches, positive, strict=True)
        if own.any()
    ]
    count = positive.sum().clamp(min=1)
    # Without any object the offsets have to stay in the graph.
    total = torch.stack(box).sum() if box else 0 * offsets.sum()
    return {"class": (losses * counted).sum() / count, "box": total / count}
