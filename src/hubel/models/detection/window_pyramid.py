"""Windows of several sizes on a picture: the picture at several sizes under a window that stays as it is.

Sermanet et al. 2014, "OverFeat", arXiv 1312.6229, section 3.3 (multi-scale classification).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class WindowPyramid:
    """Which windows there are.

    Attributes:
        window: side in pixels of what the network looks at.
        stride: pixels from window to window.
        per_octave: window sizes from one size to its double.
    """

    window: int
    stride: int
    per_octave: int = 2

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width to which a picture is scaled, large to small.

        They begin with its own and end where a window fills its shorter side, in even steps of the factor; each is
        as many strides longer than a window as comes nearest, so that windows reach from edge to edge. A picture that
        is smaller than a window is enlarged.
        """
        shorter = max(self.window, min(height, width))
        steps = math.ceil(self.per_octave * math.log2(shorter / self.window))
        factors = [(self.window / shorter) ** (step / max(1, steps)) * shorter for step in range(steps + 1)]
        scaled = [
            (self.fitted(height * factor / min(height, width)), self.fitted(width * factor / min(height, width)))
            for factor in factors
        ]
        return list(dict.fromkeys(scaled))

    def fitted(self, side: float) -> int:
        """The length that is some strides longer than a window, and comes nearest to ``side`` pixels."""
        return self.window + max(0, round((side - self.window) / self.stride)) * self.stride

    def boxes(self, scaled: tuple[int, int], height: int, width: int) -> Tensor:
        """The windows on a picture that was scaled, row by row.

        Args:
            scaled: its height and width then, of :meth:`sizes`.
            height: its own in pixels.
            width: likewise.

        Returns:
            float32 (A, 4), x1, y1, x2, y2 in pixels of the picture.
        """
        y, x = (torch.arange(0, side - self.window + 1, self.stride) for side in scaled)
        corners = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1).view(-1, 2)
        scale = torch.tensor([width / scaled[1], height / scaled[0]])
        return torch.cat((corners * scale, (corners + self.window) * scale), 1)
