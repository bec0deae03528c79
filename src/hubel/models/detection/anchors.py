"""Anchors of every cell of feature maps, and the head's outputs in their order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


def at_cells(sizes: Tensor, grid: tuple[int, int], steps: tuple[float, float]) -> Tensor:
    """Boxes of given widths and heights (B, 2) around the centre of every cell: float32 (rows · columns · B, 4).

    Row by row; x1, y1, x2, y2 in pixels. ``grid`` is rows and columns, ``steps`` the pixels from a cell to the next,
    down and to the right.
    """
    rows, columns = grid
    y, x = torch.meshgrid(
        (torch.arange(rows) + 0.5) * steps[0], (torch.arange(columns) + 0.5) * steps[1], indexing="ij"
    )
    centres = torch.stack((x, y), -1).view(-1, 1, 2)
    halves = sizes / 2
    return torch.cat((centres - halves, centres + halves), -1).view(-1, 4)


def by_anchor(maps: Tensor, values: int) -> Tensor:
    """(N, anchors · values, H, W) → (N, H · W · anchors, values), the order of :func:`at_cells`."""
    rows: Tensor = maps.permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, values))
    return rows


@dataclass(frozen=True)
class PyramidAnchors:
    """Several sizes and shapes at every cell, in proportion to its stride.

    RetinaNet: Lin et al. 2017, arXiv 1708.02002, section 4.

    Attributes:
        scale: side of the smallest square over the stride.
        octaves: sizes between one level and the next, by powers of 2 ** (1 / octaves).
        shapes: width and height over the side of the square, of each aspect ratio.
    """

    scale: float = 4.0
    octaves: int = 3
    shapes: tuple[tuple[float, float], ...] = ((1.0, 1.0), (1.4, 0.7), (0.7, 1.4))

    @property
    def per_cell(self) -> int:
        """Anchors at each cell."""
        return self.octaves * len(self.shapes)

    def boxes(self, grids: Sequence[tuple[int, int]], height: int, width: int) -> Tensor:
        """All anchors of an image whose maps have these heights and widths: float32 (A, 4), x1, y1, x2, y2 in pixels.

        Map by map, row by row, and at a cell the smallest size first. They may reach over the image's edge.
        """
        sides = (self.scale * 2 ** (octave / self.octaves) for octave in range(self.octaves))
        cells = torch.tensor([(side * wide, side * high) for side in sides for wide, high in self.shapes])
        boxes = []
        for rows, columns in grids:
            step_y, step_x = height / rows, width / columns
            boxes.append(at_cells(cells * torch.tensor([step_x, step_y]), (rows, columns), (step_y, step_x)))
        return torch.cat(boxes)


@dataclass(frozen=True)
class CornerAnchors:
    """Sizes in pixels and aspect ratios around the first pixel of every cell: torchvision's, for its weights.

    Their sides are rounded to whole pixels from the middle, and cells are a whole number of pixels apart.

    Attributes:
        sizes: of each map, square roots of the anchors' areas in pixels.
        ratios: height over width.
    """

    sizes: tuple[tuple[int, ...], ...]
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    @property
    def per_cell(self) -> int:
        """Anchors at each cell of the first map, and in detectors of all maps."""
        return len(self.sizes[0]) * len(self.ratios)

    def boxes(self, grids: Sequence[tuple[int, int]], height: int, width: int) -> Tensor:
        """As those of :class:`PyramidAnchors`; at a cell all sizes of the first ratio come first."""
        boxes = []
        for of_map, (rows, columns) in zip(self.sizes, grids, strict=True):
            halves = [
                (round(side / math.sqrt(ratio) / 2), round(side * math.sqrt(ratio) / 2))
                for ratio in self.ratios
                for side in of_map
            ]
            steps = float(height // rows), float(width // columns)
            # at_cells has them around the middle of a cell.
            corner = torch.tensor([steps[1], steps[0]]) / 2
            cells = at_cells(2.0 * torch.tensor(halves), (rows, columns), steps)
            boxes.append(cells - torch.cat((corner, corner)))
        return torch.cat(boxes)
