"""How long a network takes on this machine."""

from __future__ import annotations

import statistics
import time

import torch
from torch import nn

_RUNS = 7
_WARM_UP = 2  # the first runs choose kernels and reorder weights


def milliseconds_an_image(module: nn.Module, input_shape: tuple[int, int, int]) -> float:
    """Median time of one image (channels, height, width) through a network on the CPU, float32, channels last."""
    network = module.eval().to(memory_format=torch.channels_last)
    image = torch.rand(1, *input_shape).to(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode():
        for _ in range(_WARM_UP + _RUNS):
            start = time.perf_counter()
            network(image)
            times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times[_WARM_UP:])
