"""How many processes load images, chosen by trying: a core that decodes is one that does not compute."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

TRIAL_BATCHES = 4  # the first of them starts the processes and is not timed
_NEGLIGIBLE = 0.02  # of a step's time
_WORTH_A_PROCESS = 1.03


@dataclass(frozen=True)
class Workers:
    """A number of processes, 0 for none beside the one that trains, and one sentence with the figures that decided."""

    count: int
    reason: str


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def choose_workers(loader: Callable[[int], DataLoader[Any]], step: Callable[[Any], None], most: int) -> Workers:
    """Try none, one, two, four, … while each is faster than the one before.

    Args:
        loader: of a number of processes; gives :data:`TRIAL_BATCHES` batches.
        step: trains on a batch, and leaves nothing of it.
        most: processes.
    """
    alone = loader(0)
    for batch in alone:  # fills the cache where there is one; the first steps are slow
        last = batch
    step(last)
    loading = _seconds(lambda: next(iter(alone)))
    stepping = _seconds(lambda: step(last))
    images = max(1, len(last.indices))
    if loading < _NEGLIGIBLE * stepping:
        each = f"{loading / images * 1e3:.2g} ms, and a training step {stepping / images * 1e3:.2g} ms"
        return Workers(0, f"no processes that load images: preparing an image takes {each}")
    speeds: dict[int, float] = {}
    count = 0
    while count <= most:
        speeds[count] = _images_per_second(loader(count), step)
        faster = max(speeds, key=speeds.__getitem__)
        if count > 1 and faster != count:
            break
        count = max(1, 2 * count) if 2 * count <= most or count == 0 else most + 1
    best = 0
    for count, speed in speeds.items():
        best = count if speed > _WORTH_A_PROCESS * speeds[best] else best
    measured = ", ".join(f"{count or 'none'} {speed:.1f}" for count, speed in speeds.items())
    return Workers(best, f"{best or 'no'} processes that load images; images/s measured: {measured}")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _images_per_second(batches: DataLoader[Any], step: Callable[[Any], None]) -> float:
    rows = iter(batches)
    step(next(rows))
    start, seen = time.perf_counter(), 0
    for batch in islice(rows, TRIAL_BATCHES - 1):
        step(batch)
        seen += len(batch.indices)
    return seen / (time.perf_counter() - start)
