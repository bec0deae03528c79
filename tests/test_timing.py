"""Measured times that a coarse clock rounds to nothing."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest
import torch

from hubel.inference.precision import bfloat16_gain, choose_precision
from hubel.timing import computing_clock, per_second, seconds_per_run, speedup, tick


class Work:
    """A clock of work that takes a fixed time, counted in whole ticks; asking it takes 0.01 ms."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def clock(self) -> float:
        self.now += 1e-5
        return round(self.now // self.step * self.step, 9) if self.step else 0.0

    def taking(self, seconds: float) -> Callable[[], None]:
        def run() -> None:
            self.now += seconds

        return run


def test_no_time_gives_neither_a_rate_nor_a_gain() -> None:
    assert per_second(12, 4.0) == 3.0 and per_second(12, 0.0) == 0.0
    assert speedup(6.0, 2.0) == 3.0
    assert speedup(0.0, 2.0) == speedup(6.0, 0.0) == speedup(0.0, 0.0) == 1.0


@pytest.mark.parametrize("step", [1e-4, 4e-3, 1.6e-2])
def test_a_coarse_clock_measures_short_work_by_repeating_it(step: float) -> None:
    work = Work(step)
    assert tick(work.clock) == pytest.approx(step)
    assert seconds_per_run(work.taking(1e-3), work.clock) == pytest.approx(1e-3, rel=0.06)


def test_a_clock_that_stands_still_ends_the_measurement() -> None:
    work = Work(0.0)
    assert tick(work.clock) == 0.0
    assert seconds_per_run(work.taking(1e-3), work.clock) == 0.0


@pytest.mark.parametrize("step", [0.0, 1e-3, 1.6e-2])
def test_a_probe_by_a_coarse_clock_ends_without_faking_a_gain(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    real, start = time.perf_counter, time.perf_counter()
    ticking = (lambda: (real() - start) // step * step) if step else (lambda: 0.0)

    for name in ("thread_time", "perf_counter"):
        monkeypatch.setattr(time, name, ticking)
    gain = bfloat16_gain(torch.device("cpu"))
    assert gain == 1.0 if not step else 0 < gain < 100
    if not step:
        assert choose_precision(torch.device("cpu")).name == "fp32"


def test_the_clock_of_computing_counts_finely_enough() -> None:
    assert 0 < tick(computing_clock()) < 2e-3


@pytest.mark.skipif(sys.platform != "linux", reason="a limit on CPU time makes clocks coarse on Linux only")
def test_precision_is_chosen_under_a_limit_on_cpu_time() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (100_000 if hard < 0 else hard, hard))
    try:
        assert choose_precision(torch.device("cpu")).name in ("fp32", "bf16")
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
