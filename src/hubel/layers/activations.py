"""Activation functions that torch.nn lacks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScaledTanh(nn.Module):
    """``f(a) = A tanh(S a)`` with A = 1.7159 and S = 2/3 (LeCun et al. 1998, equation 6 and appendix A).

    The constants make f(1) = 1 and f(-1) = -1, put the greatest curvature there, and keep the slope near 1 in
    between, so that signals of variance 1 stay so.
    """

    amplitude = 1.7159
    slope = 2 / 3

    def forward(self, signal: Tensor) -> Tensor:
        """The function of each element; any shape, results in -1.7159..1.7159."""
        return self.amplitude * torch.tanh(self.slope * signal)
