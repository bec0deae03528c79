"""Runs a network with torch, prepared once: folded, fused, channels-last, in the precision the machine is good at."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from hubel.data.preprocessing import Preprocessing
from hubel.runtime.fusion import fuse
from hubel.runtime.precision import PrecisionChoice


class TorchEngine:
    """From batches of pixels to probabilities.

    Args:
        model: a classifier; it is left as it is, a copy is prepared.
        preprocessing: the model's.
        device: where to run.
        precision: the number format of weights and feature maps; probabilities are computed in float32.
    """

    name = "torch"

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, device: torch.device, precision: PrecisionChoice
    ) -> None:
        self.device = device
        self.precision = precision
        self._preprocessing = preprocessing
        self._network = fuse(model, device, precision.dtype)

    @torch.inference_mode()
    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Probabilities of a batch.

        Args:
            pixels: uint8 (N, height, width, channels), as :meth:`Preprocessing.pixels` gives them.

        Returns:
            float32 (N, classes), each row of sum 1.
        """
        # (N, H, W, C) in memory, seen as (N, C, H, W), is torch's channels-last: nothing is copied.
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        scores = self._network(self._preprocessing.normalize(images).to(self.precision.dtype))
        probabilities: np.ndarray = torch.softmax(scores.float(), dim=1).cpu().numpy()
        return probabilities
