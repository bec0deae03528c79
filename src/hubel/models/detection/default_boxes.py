"""SSD's default boxes: for each place of each feature map, boxes of several sizes and shapes.

Liu et al. 2016, "SSD: Single Shot MultiBox Detector", arXiv 1512.02325, section 2.2: a map of scale s has at each place
a square of side s, one of side √(s · s') with the next map's scale s', and for each aspect ratio a a box of width
s · √a and height s / √a, lying and standing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class DefaultBoxes:
    """Which boxes there are.

    Attributes:
        scales: of each map, and one more for the last map's larger square; 1 is the side of the image.
        ratios: of each map: aspect ratios other than 1; a stands for 1 / a too.
        steps: pixels between the boxes of each map; ``None``: the image's side over the map's.

    Raises:
        ValueError: there are not as many of one as of the others.
    """

    scales: tuple[float, ...]
    ratios: tuple[tuple[float, ...], ...]
    steps: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        maps = len(self.ratios)
        if len(self.scales) != maps + 1 or len(self.steps or self.ratios) != maps:
            raise ValueError(f"{maps} maps need {maps + 1} scales and {maps} steps")

    @property
    def per_place(self) -> tuple[int, ...]:
        """Boxes at each place of each map."""
        return tuple(2 + 2 * len(ratios) for ratios in self.ratios)

    def boxes(self, grids: Sequence[tuple[int, int]], height: int, width: int) -> Tensor:
        """All boxes of an image.

        Args:
            grids: height and width of each map.
            height: of the image in pixels.
            width: of the image in pixels.

        Returns:
            float32 (A, 4), x1, y1, x2, y2 in pixels of the image: map by map, row by row, and at a place the two
            squares before the others. Boxes may reach over the image's edge.
        """
        return torch.cat([self._of_map(number, grid, height, width) for number, grid in enumerate(grids)])

    def _of_map(self, number: int, grid: tuple[int, int], height: int, width: int) -> Tensor:
        rows, columns = grid
        step_y, step_x = (
            (height / rows, width / columns) if self.steps is None else (self.steps[number], self.steps[number])
        )
        y, x = torch.meshgrid(
            (torch.arange(rows) + 0.5) * step_y, (torch.arange(columns) + 0.5) * step_x, indexing="ij"
        )
        places = torch.stack((x, y), -1).view(-1, 1, 2)
        halves = torch.tensor(self._sizes(number)).clamp(max=1) * torch.tensor([width, height]) / 2
        return torch.cat((places - halves, places + halves), -1).view(-1, 4)

    def _sizes(self, number: int) -> list[tuple[float, float]]:
        """Width and height of the boxes of one map, as shares of the image's."""
        scale, following = self.scales[number : number + 2]
        square = math.sqrt(scale * following)
        sizes = [(scale, scale), (square, square)]
        for ratio in self.ratios[number]:
            long, short = scale * math.sqrt(ratio), scale / math.sqrt(ratio)
            sizes += [(long, short), (short, long)]
        return sizes


def evenly_scaled(maps: int, smallest: float, largest: float) -> tuple[float, ...]:
    """Scales from ``smallest`` to ``largest``, evenly (the paper's equation 4), and 1 after them."""
    step = (largest - smallest) / (maps - 1)
    return (*(smallest + step * number for number in range(maps)), 1.0)
