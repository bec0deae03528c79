"""What every detector is: images in, raw scores and offsets from anchors out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hubel.analysis.tracing import Tracing, meta_copy
from hubel.models.registry import Network


class Detector(Network):
    """A network that says for each of many anchors what is there and how it lies.

    ``forward`` maps images (N, C, H, W) to scores (N, A, …) and offsets (N, A, 4), in training and evaluation alike;
    what they mean is the task's (:mod:`hubel.tasks.detection`).

    Args:
        backbone: named parts applied one after the other, as a classifier's are.
        head: what is made for the classes at hand.
        num_classes: what it tells apart, without "nothing".
    """

    divisible = False  # the head reads several maps

    def __init__(self, backbone: nn.Sequential, head: nn.Module, num_classes: int) -> None:
        super().__init__(backbone, head, {})
        self.num_classes = num_classes
        self._grids: dict[tuple[int, int], list[tuple[int, int]]] = {}

    def maps(self, images: Tensor) -> list[Tensor]:
        """The maps that the heads read, large to small."""
        raise TypeError(f"{type(self).__name__} does not say which maps its heads read")

    def anchors(self, height: int, width: int) -> Tensor:
        """The anchors of images of that size: float32 (A, 4), x1, y1, x2, y2 in pixels."""
        raise TypeError(f"{type(self).__name__} does not say what its anchors are")

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of the maps that the heads read, for images of that size; nothing is computed."""
        if (height, width) not in self._grids:
            shapes = meta_copy(self, torch.float32)
            assert isinstance(shapes, Detector)
            channels = next(module.in_channels for module in self.modules() if isinstance(module, nn.Conv2d))
            # Two images: normalization that trains has nothing to average on one of 1 × 1.
            with torch.no_grad(), Tracing():
                maps = shapes.maps(torch.empty(2, channels, height, width, device="meta"))
            self._grids[height, width] = [(each.shape[2], each.shape[3]) for each in maps]
        return self._grids[height, width]
