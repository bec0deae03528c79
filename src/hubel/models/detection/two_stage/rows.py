"""Regions as rows: those that are looked at, and what was found put back to its place.

On the meta device, where nothing has a value, all are looked at: the most that it may cost.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hubel.models.detection.two_stage.proposals import valid


def as_rows(proposals: Tensor) -> tuple[Tensor, Tensor]:
    """Proposals (N, P, 4) that have an area; if there are none, the very first, as layers fail at none.

    Returns:
        Index of the image, x1, y1, x2, y2 (R, 5), and the indices (R,) of these rows among all N · P.
    """
    images, count = proposals.shape[:2]
    if proposals.is_meta:
        return proposals.new_empty(images * count, 5), torch.empty(images * count, dtype=torch.int64, device="meta")
    exists = valid(proposals)
    first = torch.arange(images * count, device=exists.device) == 0
    rows = (exists.flatten() | (first & (exists.sum() == 0))).nonzero()[:, 0]
    image = torch.arange(images, dtype=proposals.dtype, device=proposals.device).view(-1, 1, 1)
    return torch.cat((image.expand(-1, count, 1), proposals), 2).flatten(0, 1)[rows], rows


def from_rows(found: Tensor, rows: Tensor, images: int, count: int) -> Tensor:
    """What was found of the rows (R, …) as (N, P, …), with zeros for all others."""
    if not found.is_meta:
        found = found.new_zeros(images * count, *found.shape[1:]).index_copy(0, rows, found)
    placed: Tensor = found.unflatten(0, (images, count))
    return placed
