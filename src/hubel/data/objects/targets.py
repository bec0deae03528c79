"""What a network is to find in one image."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Targets(NamedTuple):
    """The labelled objects of one image, in pixels of the network's input.

    Attributes:
        boxes: float32 (M, 4), x1, y1, x2, y2, of positive width and height.
        labels: int64 (M,), classes from 0.
    """

    boxes: Tensor
    labels: Tensor
