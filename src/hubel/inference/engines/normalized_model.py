"""A network together with its normalization, as one graph from uint8 pixels to raw outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from hubel.data.preprocessing import Preprocessing

INPUT_NAME = "pixels"
OUTPUT_NAMES = {"classify": ("scores",), "detect": ("scores", "offsets")}
"""Of a network's raw outputs, by task."""


class NormalizedModel(nn.Module):
    """Normalization and network: what engines convert and what is exported.

    Cropping and scaling stay outside, as a graph has no antialiased resizing that equals Pillow's: they travel beside
    it, as :meth:`~hubel.data.preprocessing.Preprocessing.to_json` writes them.

    Args:
        model: maps images (N, C, H, W) to raw outputs; taken as it is, in evaluation mode.
        preprocessing: the model's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model.eval()
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        self.register_buffer("mean", mean.view(1, -1, 1, 1))
        self.register_buffer("std", std.view(1, -1, 1, 1))

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Raw outputs of uint8 pixels (N, H, W, C), as :meth:`Preprocessing.pixels` gives them, stacked."""
        images = pixels.permute(0, 3, 1, 2).float()
        outputs: Tensor | tuple[Tensor, ...] | dict[str, Tensor] = self.model((images - self.mean) / self.std)
        return tuple(outputs.values()) if isinstance(outputs, dict) else outputs


def capture(model: nn.Module, preprocessing: Preprocessing, alone: bool = False) -> torch.export.ExportedProgram:
    """The graph of a :class:`NormalizedModel`, for any number of images of the preprocessing's size, or for one."""
    size = (preprocessing.height, preprocessing.width, preprocessing.channels)
    # Two images: torch.export would take a batch of one for a constant.
    pixels = torch.zeros(1 if alone else 2, *size, dtype=torch.uint8)
    batch: dict[str, Any] | None = None if alone else {INPUT_NAME: {0: torch.export.Dim("batch", min=1)}}
    with torch.no_grad():
        return torch.export.export(NormalizedModel(model, preprocessing), (pixels,), dynamic_shapes=batch)
