"""The benchmark of the architectures' speed: its statistics, and that a long table can be run in pieces."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

PROGRAM = Path(__file__).resolve().parent.parent / "benchmarks" / "zoo_speed.py"


@pytest.fixture(scope="module")
def benchmark() -> dict[str, Any]:
    return runpy.run_path(str(PROGRAM))


@pytest.mark.parametrize("count", [6, 7, 20, 21, 200])
def test_interval_of_the_median_is_the_narrowest_that_is_confident_enough(
    benchmark: dict[str, Any], count: int
) -> None:
    values = np.random.default_rng(0).permutation(count).tolist()
    low, high = benchmark["interval"](values)
    k = int(low) + 1  # the values are their own ranks
    assert high == count - k

    def coverage(k: int) -> float:
        return float(1 - 2 * stats.binom.cdf(k - 1, count, 0.5))

    assert coverage(k) >= 0.95 > coverage(k + 1)


def test_intervals_hold_the_median_as_often_as_they_say(benchmark: dict[str, Any]) -> None:
    samples = np.random.default_rng(1).lognormal(size=(2000, 25))
    held = [low <= 1 <= high for low, high in (benchmark["interval"](row.tolist()) for row in samples)]
    assert 0.95 - 0.015 < np.mean(held) < 1


def test_even_drift_falls_out_of_a_rounds_ratio(benchmark: dict[str, Any]) -> None:
    # Each step takes one more than the last; ours is as fast as theirs.
    clock = iter(range(10, 34))
    seconds: dict[str, list[float]] = {"hubel": [], "theirs": []}
    for _ in range(6):
        for side in ("hubel", "theirs", "theirs", "hubel"):
            seconds[side].append(next(clock))
    assert benchmark["ratios"](seconds) == [1.0] * 6


def row_of(name: str, forward: list[float], training: list[float]) -> dict[str, Any]:
    timings = [
        {"hubel": 2.0, "theirs": 2.0, "low": low, "ratio": mid, "high": high} for low, mid, high in (forward, training)
    ]
    kinds = {
        kind: {"by_clock": each, "computed": each} for kind, each in zip(("forward", "training"), timings, strict=True)
    }
    head = {"name": name, "counterpart": "timm: other", "batch": 4, "input": [3, 224, 224], "threads": 2}
    return {**head, "machine": "a processor", "versions": "torch 2", **kinds}


def test_only_what_is_slow_for_certain_is_called_slow(benchmark: dict[str, Any], tmp_path: Path) -> None:
    rows = [
        row_of("even", [0.99, 1.0, 1.01], [0.98, 1.01, 1.03]),
        row_of("unsure", [0.99, 1.07, 1.2], [1.04, 1.06, 1.09]),
        row_of("slow", [0.99, 1.0, 1.01], [1.06, 1.09, 1.12]),
    ]
    assert benchmark["slower"](rows) == ["slow"]
    kept = tmp_path / "rows.jsonl"
    kept.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run([sys.executable, PROGRAM, "--table", kept], capture_output=True, text=True)
    assert done.returncode == 1
    assert "| unsure | timm: other | 4 × 3×224×224 | 2.0 / 2.0 | 1.070 [0.990, 1.200]" in done.stdout
    assert "training: median ratio 1.060 over 3 networks" in done.stdout
    assert done.stdout.endswith("above 1.05 for certain: slow\n")


def test_a_table_is_measured_in_pieces(tmp_path: Path) -> None:
    kept = tmp_path / "rows.jsonl"
    command = [sys.executable, PROGRAM, "--match", "lenet5*", "--seconds", "0", "--threads", "1", "--out", kept]
    subprocess.run(command, check=True)
    first = kept.read_text()
    rows = [json.loads(line) for line in first.splitlines()]
    assert [(row["name"], row["counterpart"], row["input"]) for row in rows] == [
        ("lenet5", None, [1, 32, 32]),
        ("lenet5_modern", None, [1, 32, 32]),
    ]
    kept.write_text(first.splitlines()[1] + "\n")  # the first is missing
    subprocess.run(command, check=True)
    assert [json.loads(line)["name"] for line in kept.read_text().splitlines()] == ["lenet5_modern", "lenet5"]
