"""Runs a network with torch, prepared once: folded, fused, channels-last, in the precision the machine is good at."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import numpy as np
import torch
from torch import nn

from hubel.data.preprocessing import Preprocessing
from hubel.runtime.fusion import fuse
from hubel.runtime.number_formats import NumberFormat

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class TorchEngine:
    """From batches of pixels to raw outputs.

    Args:
        model: a network with one output; it is left as it is, a copy is prepared.
        preprocessing: the model's.
        device: where to run.
        precision: the number format of weights and feature maps.
        batch: pictures that go through the network at once.
    """

    name = "torch"

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, device: torch.device, precision: NumberFormat, batch: int
    ) -> None:
        self.device = str(device)
        self.precision = precision
        self.threads = torch.get_num_threads()
        self.batch = batch
        self._preprocessing = preprocessing
        self._dtype = DTYPES[precision.name]
        self._network = fuse(model, device, self._dtype)

    def run(self, batches: Iterable[np.ndarray]) -> Generator[tuple[np.ndarray, ...], None, None]:
        """See :meth:`hubel.runtime.engine.Engine.run`."""
        for pixels in batches:
            yield (self._scores(pixels),)

    @torch.inference_mode()
    def _scores(self, pixels: np.ndarray) -> np.ndarray:
        # (N, H, W, C) in memory, seen as (N, C, H, W), is torch's channels-last: nothing is copied.
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
        scores: np.ndarray = self._network(self._preprocessing.normalize(images).to(self._dtype)).float().cpu().numpy()
        return scores
