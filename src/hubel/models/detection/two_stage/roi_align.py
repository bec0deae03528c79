"""RoIAlign on the levels of a pyramid.

He et al. 2017, "Mask R-CNN", arXiv 1703.06870, section 3; which level a region is taken from: Lin et al. 2017, "Feature
Pyramid Networks for Object Detection", arXiv 1612.03144, equation 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hubel.boxes import area

_CANONICAL_SIDE, _CANONICAL_LEVEL = 224, 4
_SAMPLES = 2  # along each side of a bin: four values are averaged


@dataclass(frozen=True)
class PyramidRoIAlign:
    """Squares of ``side`` × ``side`` values from maps of some strides, powers of 2, each twice the one before.

    Attributes:
        aligned: a map's value lies at the centre of its cell; otherwise at its corner, as in torchvision's detectors.
    """

    strides: tuple[int, ...]
    side: int = 7
    aligned: bool = True

    def __call__(self, levels: Sequence[Tensor], regions: Tensor) -> Tensor:
        """Squares (R, channels, side, side) of regions (R, 5): index of the image, x1, y1, x2, y2 in pixels.

        Of more levels than strides, the first ones are used. On the meta device nothing is computed.
        """
        shape = (regions.shape[0], levels[0].shape[1], self.side, self.side)
        if regions.is_meta:  # the import takes a second
            return levels[0].new_empty(shape)
        import torchvision  # noqa: F401 – registers its operators

        # The operator itself: the function around it checks shapes in a way that ends traces.
        roi_align = torch.ops.torchvision.roi_align

        def pooled(maps: Tensor, stride: int, some: Tensor) -> Tensor:
            # In float32: half floats are too coarse for coordinates.
            size = (self.side, self.side)
            squares: Tensor = roi_align(maps.float(), some, 1 / stride, *size, _SAMPLES, self.aligned)
            return squares.to(maps.dtype)

        if len(self.strides) == 1:
            return pooled(levels[0], self.strides[0], regions)
        level = self.level_of(regions[:, 1:])
        squares = levels[0].new_zeros(shape)
        for index, (maps, stride) in enumerate(zip(levels, self.strides, strict=False)):
            rows = (level == index).nonzero()[:, 0]
            squares = squares.index_copy(0, rows, pooled(maps, stride, regions[rows]))
        return squares

    def level_of(self, boxes: Tensor) -> Tensor:
        """Index of the map for each box (R, 4), int64 (R,): a square of 224 pixels belongs to that of stride 16.

        Equation 1, whose k0 is 4; boxes too small or large for all maps belong to the first or last.
        """
        finest = int(math.log2(self.strides[0]))
        # 1e-6: of a side of 112 pixels rounding must not make one of less.
        level = torch.floor(_CANONICAL_LEVEL + torch.log2(area(boxes).sqrt() / _CANONICAL_SIDE) + 1e-6)
        return level.clamp(finest, finest + len(self.strides) - 1).long() - finest
