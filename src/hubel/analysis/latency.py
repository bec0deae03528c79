"""Time of a network on this machine."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

_RUNS = 5
_WARM_UP = 2  # the first runs choose kernels and reorder weights


def milliseconds_an_image(
    network: nn.Module, input_shape: tuple[int, int, int], batch: int = 1, dtype: torch.dtype = torch.float32
) -> float:
    """Median time per image of batches of random images on the CPU, channels last.

    Args:
        network: in evaluation mode, its parameters of ``dtype``.
        input_shape: channels, height, width.
        batch: batch size.
        dtype: of the images.
    """
    images = torch.rand(batch, *input_shape).to(dtype).to(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(_WARM_UP + _RUNS):
            start = time.perf_counter()
            network(images)
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[_WARM_UP:]) / batch
