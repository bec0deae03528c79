"""What is measured in a process that has nothing else to do: speed, latency, memory."""

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


def seconds_a_batch(engine: Engine, pixels: np.ndarray, seconds: float) -> float:
    """Time that one batch takes when batches come without a pause, for about ``seconds``; at least two come.

    Args:
        engine: what runs the network.
        pixels: the batch, uint8 (N, height, width, channels).
        seconds: how long batches come.
    """
    for _ in engine.run(itertools.repeat(pixels, _WARM_UP)):
        pass
    start = time.perf_counter()
    answered = sum(1 for _ in engine.run(_until(start + seconds, itertools.repeat(pixels), at_least=2)))
    return (time.perf_counter() - start) / answered


def latencies(engine: Engine, pixels: np.ndarray, seconds: float) -> list[float]:
    """Seconds from handing over a batch to having its outputs, one batch after the other; at least two."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < seconds:
        start = time.perf_counter()
        for _ in engine.run([pixels]):
            pass
        times.append(time.perf_counter() - start)
    return times


def seconds_a_picture(predictor: Predictor, files: list[Path], seconds: float) -> float:
    """Time that one picture takes from its file to its answer, when files come without a pause.

    The files are taken again and again, for about ``seconds``; two batches come at least, and all are answered.

    Raises:
        ImageError: one of the files is no picture.
    """
    endless = itertools.cycle(files)
    for _ in predictor.stream(itertools.islice(endless, MIN_IMAGES_TO_CONVERT)):
        pass
    batch = predictor.engine_for(MIN_IMAGES_TO_CONVERT).batch
    start = time.perf_counter()
    answered = 0
    for outcome in predictor.stream(_until(start + seconds, endless, at_least=max(MIN_IMAGES_TO_CONVERT, 2 * batch))):
        if isinstance(outcome, FailedImage):
            raise ImageError(outcome.error.message, outcome.error.hint)
        answered += 1
    return (time.perf_counter() - start) / answered


def peak_resident_bytes() -> int:
    """The most memory that this process has had resident."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: what it says on Linux is at least what the process had that started this one.
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
