"""MultiBox: SSD's default boxes, which of them answer for which object, and the loss.

Liu et al. 2016, "SSD: Single Shot MultiBox Detector", arXiv 1512.02325, section 2.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from hubel.boxes import encode, iou
from hubel.models.base import ObjectTargets

NEG_POS_RATIO = 3
"""Background anchors that count for each positive one ("Hard negative mining")."""

MATCHING_IOU = 0.5

VARIANCES = (0.1, 0.1, 0.2, 0.2)
"""Scale of the offsets; in the published code, not in the paper."""


@dataclass(frozen=True)
class DefaultBoxes:
    """Scales, aspect ratios and spacing of the default boxes of each map.

    Attributes:
        scales: of each map, and one more for the last map's larger square; 1 is the side of the image.
        ratios: of each map: aspect ratios other than 1; a stands for 1 / a too.
        steps: pixels between the boxes of each map; ``None``: the image's side over the map's.
    """

    scales: tuple[float, ...]
    ratios: tuple[tuple[float, ...], ...]
    steps: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        maps = len(self.ratios)
        if len(self.scales) != maps + 1 or len(self.steps or self.ratios) != maps:
            raise ValueError(f"{maps} maps need {maps + 1} scales and {maps} steps")

    @property
    def per_cell(self) -> tuple[int, ...]:
        """Boxes at each cell of each map."""
        return tuple(2 + 2 * len(ratios) for ratios in self.ratios)

    def boxes(self, grids: Sequence[tuple[int, int]], height: int, width: int) -> Tensor:
        """All boxes of an image whose maps have these heights and widths: float32 (A, 4), x1, y1, x2, y2 in pixels.

        Map by map, row by row, and at a cell the two squares before the others. They may reach over the image's edge.
        """
        return torch.cat([self._of_map(index, grid, height, width) for index, grid in enumerate(grids)])

    def _of_map(self, index: int, grid: tuple[int, int], height: int, width: int) -> Tensor:
        rows, columns = grid
        step_y, step_x = (height / rows, width / columns) if self.steps is None else 2 * (self.steps[index],)
        y, x = torch.meshgrid(
            (torch.arange(rows) + 0.5) * step_y, (torch.arange(columns) + 0.5) * step_x, indexing="ij"
        )
        centres = torch.stack((x, y), -1).view(-1, 1, 2)
        halves = torch.tensor(self._sizes(index)).clamp(max=1) * torch.tensor([width, height]) / 2
        return torch.cat((centres - halves, centres + halves), -1).view(-1, 4)

    def _sizes(self, index: int) -> list[tuple[float, float]]:
        """Width and height of the boxes of one map, as fractions of the image's."""
        scale, following = self.scales[index : index + 2]
        square = math.sqrt(scale * following)
        sizes = [(scale, scale), (square, square)]
        for ratio in self.ratios[index]:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            sizes += [(long, short), (short, long)]
        return sizes


def evenly_scaled(maps: int, smallest: float, largest: float) -> tuple[float, ...]:
    """Scales from ``smallest`` to ``largest``, evenly (the paper's equation 4), and 1 after them."""
    step = (largest - smallest) / (maps - 1)
    return (*(smallest + step * index for index in range(maps)), 1.0)


class Matches(NamedTuple):
    """Targets of the anchors of one image."""

    labels: Tensor  # int64 (A,): 0 for background, else class + 1
    objects: Tensor  # int64 (A,): index of the matched object; 0 for background


def match(anchors: Tensor, targets: ObjectTargets) -> Matches:
    """Match each anchor (A, 4) to the object it overlaps most, by IoU 0.5 or more, and each object to its best anchor.

    "Matching strategy"; of two objects with the same best anchor the later one gets it.
    """
    if not len(targets.boxes):
        background = torch.zeros(len(anchors), dtype=torch.int64, device=anchors.device)
        return Matches(background, background)
    overlap = iou(targets.boxes, anchors)
    best, objects = overlap.max(0)
    for index, anchor in enumerate(overlap.argmax(1).tolist()):
        best[anchor], objects[anchor] = 1.0, index
    return Matches(torch.where(best >= MATCHING_IOU, targets.labels[objects] + 1, 0), objects)


def multibox_loss(
    scores: Tensor, offsets: Tensor, anchors: Tensor, targets: Sequence[ObjectTargets]
) -> dict[str, Tensor]:
    """The two terms of equations 1 to 3, each a sum over the batch divided by the number of positive anchors.

    Args:
        scores: raw (N, A, 1 + classes), background first.
        offsets: (N, A, 4).
        anchors: (A, 4).

    Returns:
        ``"class"``: cross-entropy of the positive anchors and the hardest three times as many background ones;
        ``"box"``: smooth L1 of the positive anchors' offsets.
    """
    matches = [match(anchors, each) for each in targets]
    labels = torch.stack([each.labels for each in matches])
    positive = labels > 0
    cross_entropy = functional.cross_entropy(scores.flatten(0, 1).float(), labels.flatten(), reduction="none")
    cross_entropy = cross_entropy.view_as(labels)
    hardness = cross_entropy.detach().masked_fill(positive, -torch.inf)
    rank = hardness.argsort(1, descending=True).argsort(1)
    counted = positive | (rank < NEG_POS_RATIO * positive.sum(1, keepdim=True))
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
    return {"class": (cross_entropy * counted).sum() / count, "box": total / count}
