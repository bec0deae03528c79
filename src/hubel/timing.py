"""Measured times and what is divided by them: a clock can show no time at all.

Clocks tick. Under a limit on CPU time (``ulimit -t``, as batch systems set it) Linux counts a process's seconds in
steps of some milliseconds, and Windows always does: what is shorter takes no time, or a whole tick. Neither is a speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

_TICKS = 20  # in a measurement: an error of one is 5 % then
_FINE = 1e-3
_MOST_READINGS = 1_000_000  # of a clock that stands still: a tenth of a second
_MOST_RUNS = 1000


def per_second(count: float, seconds: float) -> float:
    """Rate of ``count`` things in so many measured seconds; 0, which no rate is, where the clock has not moved."""
    return count / seconds if seconds > 0 else 0.0


def speedup(before: float, after: float) -> float:
    """Measured seconds ``before`` over those ``after``; 1, no gain, where the clock has not moved for one of them."""
    return before / after if before > 0 and after > 0 else 1.0


def tick(clock: Callable[[], float]) -> float:
    """The step, in seconds, in which a clock counts while this thread computes; 0 for one that stands still."""
    before = first = clock()
    for _ in range(_MOST_READINGS):
        now = clock()
        if now > before:
            if before > first:
                return now - before  # from one tick to the next: the first step may have begun earlier
            before = now
    return 0.0


def computing_clock() -> Callable[[], float]:
    """The seconds that this thread computes, whatever else the machine does; those that pass, where it ticks coarsely.

    Only for work that no other thread takes part in.
    """
    return time.thread_time if 0 < tick(time.thread_time) < _FINE else time.perf_counter


def seconds_per_run(
    run: Callable[[], Any], clock: Callable[[], float] = time.perf_counter, repeats: int = 3, ticks: int = _TICKS
) -> float:
    """Seconds of a run, the best of a few measurements, after one run to warm up.

    A measurement is as many runs as the clock needs to count ``ticks`` steps; 0 where it stands still.
    """
    shortest = ticks * tick(clock)
    run()
    measured = []
    for _ in range(repeats):
        start, runs, seconds = clock(), 0, 0.0
        while not runs or (seconds < shortest and runs < _MOST_RUNS):
            run()
            runs += 1
            seconds = clock() - start
        measured.append(seconds / runs)
    return min(measured)
