"""The part of a padded input that shows the image.

torchvision is told the size of each image of a batch, and clips proposals and objects to it. Here the input itself
tells: what is beside the image has the mean colour, which is 0 after normalization.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hubel.layers.padding import plain_size

_FILL = 0.01  # the mean colour in whole grey levels is up to 0.5 / 57.12 off, the nearest other one 0.5 / 58.395


def image_areas(images: Tensor) -> Tensor:
    """x1, y1, x2, y2 in pixels of what each normalized input (N, C, H, W) shows: float32 (N, 4).

    Lines along its edges that are all of the mean colour are left out; an input of nothing else is taken whole.
    """
    if images.is_meta:
        return images.new_empty(images.shape[0], 4, dtype=torch.float32)
    height, width = plain_size(images)
    strength = images.detach().abs().amax(1)
    top, bottom = _span(strength.amax(2) > _FILL, height)
    left, right = _span(strength.amax(1) > _FILL, width)
    return torch.stack((left, top, right, bottom), 1).float()


def clip_to(boxes: Tensor, areas: Tensor) -> Tensor:
    """Clip the boxes (N, K, 4) of each image to its area (N, 4)."""
    low, high = (torch.cat((corner, corner), 1)[:, None] for corner in (areas[:, :2], areas[:, 2:]))
    return torch.minimum(torch.maximum(boxes, low), high)


def _span(filled: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first of ``count`` lines that are filled, bool (N, count), and the one after the last: int64 (N,) each."""
    lines = torch.arange(count, device=filled.device)
    first = torch.where(filled, lines, count).amin(1)
    end = torch.where(filled, lines + 1, 0).amax(1)
    nothing = end == 0
    return torch.where(nothing, 0, first), torch.where(nothing, count, end)
