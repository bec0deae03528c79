"""RoIPool on one map: Girshick 2015, "Fast R-CNN", arXiv 1504.08083, section 2.1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from hubel.layers.padding import plain_size


@dataclass(frozen=True)
class RoIPool:
    """Squares of ``side`` × ``side`` greatest values of a map's cells, to which regions and bins are rounded."""

    stride: int
    side: int = 7

    def __call__(self, levels: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Squares (R, channels, side, side) of regions (R, 5): index of the image, x1, y1, x2, y2 in pixels."""
        (maps,) = levels
        if regions.is_meta:
            return maps.new_empty(regions.shape[0], maps.shape[1], self.side, self.side)
        if torch.compiler.is_exporting() or torch._C._is_tracing():
            return pooled(maps, regions, self.stride, self.side)
        import torchvision  # noqa: F401 – registers its operators

        squares, _ = torch.ops.torchvision.roi_pool(maps.float(), regions, 1 / self.stride, self.side, self.side)
        found: Tensor = squares.to(maps.dtype)
        return found


def pooled(maps: Tensor, regions: Tensor, stride: int, side: int) -> Tensor:
    """As torchvision's operator, of regions within the image, in operators that every format has.

    The greatest value of a bin is that of four rectangles with sides of powers of 2, which may overlap: the greatest
    values of such rectangles at every cell are computed once for all regions.
    """
    size = plain_size(maps)
    rows, columns = (_bins(regions[:, axis::2] / stride, cells, side) for axis, cells in ((2, size[0]), (1, size[1])))
    powers = [range(_longest(cells, side).bit_length()) for cells in size]
    flat = []
    for down in powers[0]:
        for across in powers[1]:
            # What the padding adds at the right and the bottom is never read.
            padded = functional.pad(maps, (0, 2**across - 1, 0, 2**down - 1))
            flat.append(functional.max_pool2d(padded, (2**down, 2**across), 1).permute(0, 2, 3, 1).flatten(1, 2))
    tables = torch.stack(flat, 1)  # (N, powers, cells, channels)
    image = regions[:, 0].long()[:, None, None] * (len(powers[0]) * len(powers[1]))
    table = image + rows.power[:, :, None] * len(powers[1]) + columns.power[:, None]
    of_cells = tables.flatten(0, 2)
    corners = [
        of_cells[(table * (size[0] * size[1]) + y[:, :, None] * size[1] + x[:, None]).flatten()]
        for y in (rows.first, rows.last)
        for x in (columns.first, columns.last)
    ]
    greatest = torch.maximum(torch.maximum(corners[0], corners[1]), torch.maximum(corners[2], corners[3]))
    exists = rows.exists[:, :, None] & columns.exists[:, None]
    squares: Tensor = greatest.unflatten(0, (-1, side, side)) * exists[..., None].to(maps.dtype)
    return squares.permute(0, 3, 1, 2)


@dataclass(frozen=True)
class _Bins:
    """Bins of regions along one axis, each (R, side).

    Attributes:
        first: cell where a bin begins.
        last: the last cell at which a rectangle of the bin's power ends with it.
        power: of 2, the greatest that is no longer than the bin.
        exists: a bin has cells.
    """

    first: Tensor
    last: Tensor
    power: Tensor
    exists: Tensor


def _longest(cells: int, side: int) -> int:
    """Cells of a bin at most: regions have one more than the map at most, and bins are rounded outwards."""
    return min(cells, (cells + 1) // side + 2)


def _bins(ends: Tensor, cells: int, side: int) -> _Bins:
    """Bins of regions with the ``ends`` (R, 2) in cells.

    They depend on a region's number of cells alone: a table of them, as an engine may divide in another way.
    """
    rounded = (ends + 0.5).floor().long()
    begin, count = rounded[:, 0], (rounded[:, 1] - rounded[:, 0] + 1).clamp(1, cells + 1)
    step = torch.arange(cells + 2, dtype=torch.float32)[:, None] / side
    bins = torch.arange(side + 1, dtype=torch.float32)
    starts, stops = (bins[:-1] * step).floor().long(), (bins[1:] * step).ceil().long()
    starts, stops = (each.to(ends.device)[count] + begin[:, None] for each in (starts, stops))
    starts, stops = starts.clamp(0, cells), stops.clamp(0, cells)
    length = stops - starts
    powers = torch.tensor([0, *(number.bit_length() - 1 for number in range(1, cells + 1))], device=ends.device)
    power = powers[length.clamp(0, cells)]
    sides = 2 ** torch.arange(cells.bit_length(), device=ends.device)
    return _Bins(starts.clamp(max=cells - 1), (stops - sides[power]).clamp(min=0), power, length > 0)
