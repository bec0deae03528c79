"""Rows of tensors by a mask, in the graphs of exported networks and on the meta device, too."""

from __future__ import annotations

import torch
from torch import Tensor


def rows_where(mask: Tensor) -> Tensor:
    """Indices of the rows (K,) for which a mask, bool (M,), is true.

    On the meta device, where there are no values, all of them: the most that it may cost.
    """
    if mask.is_meta:
        return torch.arange(len(mask), device=mask.device)
    return mask.nonzero()[:, 0]


def is_graph() -> bool:
    """True while a graph is captured, in which Python's loops over images would be fixed to their number."""
    return torch.compiler.is_exporting() or torch._C._is_tracing()
