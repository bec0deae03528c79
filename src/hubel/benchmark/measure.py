"""Measures speed, latency and memory in a process of their own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hubel.errors import ImageError
from hubel.inference.engines.base import Engine
from hubel.inference.engines.selection import MIN_IMAGES_TO_CONVERT
from hubel.inference.pipeline import FailedImage
from hubel.inference.predictor import Predictor

_WARM_UP = 3  # batches: the first ones choose kernels and reorder weights


def seconds_per_batch(engine: Engine, pixels: np.ndarray, seconds: float) -> float:
    """Time per batch when batches follow each other without a pause, for about ``seconds``, but at least two.

    Args:
        engine: runs the network.
        pixels: the batch, uint8 (N, height, width, channels).
        seconds: length of the measurement.
    """
    for _ in engine.run(itertools.repeat(pixels, _WARM_UP)):
        pass
    start = time.perf_counter()
    count = sum(1 for _ in engine.run(_until(start + seconds, itertools.repeat(pixels), at_least=2)))
    return (time.perf_counter() - start) / count


def latencies(engine: Engine, pixels: np.ndarray, seconds: float) -> list[float]:
    """Seconds from each batch to its predictions, one batch after the other; at least two."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < seconds:
        start = time.perf_counter()
        for _ in engine.run([pixels]):
            pass
        times.append(time.perf_counter() - start)
    return times


def seconds_per_image(predictor: Predictor, files: list[Path], seconds: float) -> float:
    """Time per image from its file to its result, when files follow each other without a pause.

    The files are used again and again, for about ``seconds``, but at least two batches.

    Raises:
        ImageError: one of the files is not an image.
    """
    endless = itertools.cycle(files)
    for _ in predictor.stream(itertools.islice(endless, MIN_IMAGES_TO_CONVERT)):
        pass
    batch = predictor.engine_for(MIN_IMAGES_TO_CONVERT).batch
    start = time.perf_counter()
    count = 0
    for outcome in predictor.stream(_until(start + seconds, endless, at_least=max(MIN_IMAGES_TO_CONVERT, 2 * batch))):
        if isinstance(outcome, FailedImage):
            raise ImageError(outcome.error.message, outcome.error.hint)
        count += 1
    return (time.perf_counter() - start) / count


def peak_resident_bytes() -> int:
    """Peak of this process's resident memory."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux it is at least the peak of the process that started this one.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import sys

    if sys.platform == "win32":
        import psutil

        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _until(end: float, items: Iterator[Any], at_least: int) -> Iterator[Any]:
    for number, item in enumerate(items):
        if number >= at_least and time.perf_counter() >= end:
            return
        yield item
