"""``hubel bench``: what its rows say, what fails alone, what an interrupt leaves."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image
from typer.testing import CliRunner

from hubel.benchmark import session
from hubel.benchmark.session import Runner, plan
from hubel.benchmark.worker import JobFailure, JobResult, run_job
from hubel.cli.main import app, main
from hubel.data.sources import write_in_sizes
from hubel.errors import UsageError

_FIGURES = {
    "model", "engine", "precision", "batch", "device", "threads", "input", "random_weights", "rounds",
    "seconds_per_batch", "images_per_second", "end_to_end_seconds_per_image", "end_to_end_images_per_second",
    "latency_p50_seconds", "latency_p90_seconds", "latency_p99_seconds", "peak_memory_bytes", "first_start_seconds",
    "cold_start_seconds", "import_fraction", "macs", "bytes_per_image", "peak_macs_per_second",
    "peak_bytes_per_second", "bound_images_per_second", "bound_by", "bound_fraction",
}  # fmt: skip


def _hangs_together(row: dict[str, Any]) -> None:
    assert set(row) == _FIGURES
    assert row["images_per_second"] == pytest.approx(row["batch"] / row["seconds_per_batch"])
    assert row["end_to_end_images_per_second"] == pytest.approx(1 / row["end_to_end_seconds_per_image"])
    percentiles = [row[f"latency_p{percent}_seconds"] for percent in (50, 90, 99)]
    if row["batch"] == 1:
        assert 0 < percentiles[0] <= percentiles[1] <= percentiles[2]
    else:
        assert percentiles == [None] * 3
    compute = row["peak_macs_per_second"] / row["macs"]
    memory = row["peak_bytes_per_second"] / row["bytes_per_image"]
    assert row["bound_images_per_second"] == pytest.approx(min(compute, memory))
    assert row["bound_by"] == ("compute" if compute <= memory else "memory")
    assert row["bound_fraction"] == pytest.approx(row["images_per_second"] / row["bound_images_per_second"])


@pytest.mark.timeout(900)  # seven processes that load torch; seconds each, but not on a machine that is busy
def test_real_processes_until_an_interrupt(tmp_path: Path) -> None:
    """Rounds without end; what is printed after Ctrl-C in the second is whole, and no process is left behind."""
    options = "--engine torch --precision fp32 --batch 1 --seconds 0 --rounds 1000 --threads 1 --json"
    command = [sys.executable, "-m", "hubel", "bench", "lenet5", *options.split()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line.startswith("round 2 of 1000: lenet5 torch fp32, start"):
                children = psutil.Process(process.pid).children()
                os.kill(process.pid, signal.SIGINT)
                break
        out, rest = process.communicate()
    assert process.returncode == 130, "".join(lines) + rest
    assert "lenet5: its weights are not on this machine" in "".join(lines)
    # One whose start itself was interrupted finds no job on its stdin, and ends by itself.
    deadline = time.monotonic() + 60
    while left := [child for child in children if _runs(child)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    (row,) = json.loads(out)
    _hangs_together(row)
    assert (row["engine"], row["precision"], row["batch"], row["rounds"]) == ("torch", "fp32", 1, 1)
    assert (row["device"], row["threads"], row["input"]) == ("cpu", 1, [1, 32, 32])
    # LeNet-5 is small; torch is not, and no photograph takes a gigabyte.
    assert 1e8 < row["peak_memory_bytes"] < 3e9
    assert 0 < row["import_fraction"] < 1 and row["cold_start_seconds"] > 0


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class _Machine:
    """Stands for the measuring processes: answers with figures of its own, in the order in which it was asked."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.fails: dict[tuple[str, int], JobFailure] = {}
        self.bf16_pays = True
        self.quantized = False
        self.interrupted_by: int | None = None

    def __call__(self, job: dict[str, Any], environment: Any = None, time_imports: bool = False) -> JobResult:
        if len(self.jobs) == self.interrupted_by:
            raise KeyboardInterrupt
        self.jobs.append(job)
        if job["job"] == "limits":
            speeds = {"fp32": 100e9, "bf16": 200e9}
            limits = {"macs_per_second": speeds, "bytes_per_second": 10e9, "threads": 2}
            return JobResult({"limits": limits, "bf16_pays": self.bf16_pays}, 1.0)
        if job["job"] == "prepare":
            if job["model"] == "missing":
                raise JobFailure("missing is not a saved model")
            cost = {"macs": 10**9, "weights": 10**6, "moved": 10**7}
            row = {"reference": "r", "random_weights": False, "input": [3, 8, 8], "cost": cost, "runner": None}
            return JobResult(row, 1.0)
        if job["job"] == "cached":
            return JobResult({"cached": self.quantized}, 1.0)
        if failure := self.fails.get((job["precision"], job["batch"] if job["job"] == "measure" else 0)):
            raise failure
        if job["job"] == "start":
            return JobResult({"predicted": "cat"}, 2.0, import_seconds=0.5)
        number = len(self.jobs)
        latencies = [0.01 * number + 0.001 * each for each in range(7)]
        return JobResult(
            {
                "seconds_per_image": 0.02 * number, "seconds_per_batch": 0.1 * number,
                "latencies": latencies if job["batch"] == 1 else [],
                "peak_memory_bytes": 10**9 + number, "device": "cpu", "threads": 2,
            },
            1.0,
        )  # fmt: skip

    @property
    def measured(self) -> list[tuple[str, int]]:
        return [(job["precision"], job["batch"]) for job in self.jobs if job["job"] == "measure"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> _Machine:
    machine = _Machine()
    here = tmp_path_factory.mktemp("models")
    for name in ("m", "missing"):  # a name that is neither known nor on the disk is refused before anything starts
        (here / name).mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(session, "run_job", machine)
    return machine


def _bench(*words: str) -> tuple[int, Any]:
    done = CliRunner().invoke(app, ["bench", "m", *words, "--json"])
    return done.exit_code, json.loads(done.stdout)


def test_turns_and_medians(machine: _Machine) -> None:
    status, rows = _bench("--engine", "openvino", "--precision", "fp32", "--precision", "bf16", "--batch", "1")
    assert status == 0
    assert machine.measured == [("fp32", 1), ("bf16", 1)] * 3
    numbers = [number for number, job in enumerate(machine.jobs, start=1) if job["job"] == "measure"]
    for row, own in zip(rows, (numbers[::2], numbers[1::2]), strict=True):
        _hangs_together(row)
        assert row["rounds"] == 3
        assert row["seconds_per_batch"] == pytest.approx(statistics.median(0.1 * number for number in own))
        assert row["peak_memory_bytes"] == 10**9 + own[1]
        everything = [0.01 * number + 0.001 * each for number in own for each in range(7)]
        for percent in (50, 90, 99):
            assert row[f"latency_p{percent}_seconds"] == pytest.approx(np.percentile(everything, percent))
        assert (row["cold_start_seconds"], row["import_fraction"]) == (2.0, 0.25)


def test_what_fails_is_reported_and_the_rest_goes_on(machine: _Machine) -> None:
    machine.fails["bf16", 16] = JobFailure("its process was ended by SIGKILL")
    status, rows = _bench("--engine", "openvino", "--precision", "bf16", "--precision", "fp32")
    assert status == 1
    found = {(row["precision"], row["batch"]): row for row in rows}
    assert found.pop(("bf16", 16)) == {
        "model": "m", "engine": "openvino", "precision": "bf16", "batch": 16,
        "error": "its process was ended by SIGKILL",
    }  # fmt: skip
    assert machine.measured.count(("bf16", 16)) == 1  # and is not tried again
    for key, row in found.items():
        _hangs_together(row)
        assert machine.measured.count(key) == row["rounds"] == 3


def test_a_model_that_cannot_be_had_stops_no_other(machine: _Machine) -> None:
    done = CliRunner().invoke(app, ["bench", "missing", "m", "--engine", "torch", "--precision", "fp32", "--json"])
    *measured, missing = json.loads(done.stdout)
    assert done.exit_code == 1
    assert missing == {
        "model": "missing", "engine": None, "precision": None, "batch": None,
        "error": "missing is not a saved model",
    }  # fmt: skip
    assert [row["images_per_second"] > 0 for row in measured] == [True, True]


def test_what_the_machine_lacks_is_no_failure(machine: _Machine) -> None:
    machine.fails["fp32", 0] = JobFailure("no such device", lacking=True)
    machine.bf16_pays = False
    machine.quantized = True
    status, rows = _bench("--engine", "torch", "--engine", "openvino", "--rounds", "1")
    assert status == 0
    assert {(row["engine"], row["precision"]): row["left_out"] for row in rows if "left_out" in row} == {
        ("torch", "bf16"): "this processor has no instructions for bf16",
        ("openvino", "bf16"): "this processor has no instructions for bf16",
        ("torch", "fp32"): "no such device",
        ("openvino", "fp32"): "no such device",
    }
    assert {(row["engine"], row["precision"], row["batch"]) for row in rows if "rounds" in row} == {
        ("openvino", "int8", 1), ("openvino", "int8", 16)
    }  # fmt: skip


def test_int8_is_measured_where_it_is_there_or_asked_for(machine: _Machine) -> None:
    def tolerances(*words: str) -> set[float | None]:
        machine.jobs.clear()
        _, rows = _bench("--engine", "openvino", "--batch", "1", "--rounds", "1", *words)
        assert len([row for row in rows if row["precision"] == "int8"]) == 1
        return {job.get("tolerance") for job in machine.jobs if job.get("precision") == "int8"}

    assert tolerances() == set()  # not begun: it would quantize
    assert tolerances("--precision", "int8") == {None}  # as predict does it
    machine.quantized = True
    assert tolerances() == {0.999}  # whatever it lost


def test_what_was_quantized_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hubel.benchmark.worker import cached
    from hubel.inference.engines.cache import CACHE_VERSION, ConvertedCache
    from hubel.inference.engines.convert import ModelSource
    from hubel.models import create_model, describe, save_model

    monkeypatch.setattr("hubel.inference.int8.exact_weight_bits", lambda: 8)
    model = create_model("lenet5").eval()
    save_model(tmp_path / "run", model, describe(model))
    outcomes: list[dict[str, Any]] = []
    outcomes.append(cached(str(tmp_path / "run")))
    found = ModelSource(tmp_path / "run").found
    assert found is not None
    facts = {"model": "m", "engine": "openvino", "origin": found.digest, "metadata": describe(model).to_json()}
    # An older version's conversion is not read: it ends in raw outputs.
    old = {**facts, "precision": "int8", "version": "1"}
    ConvertedCache().put("old", lambda folder: _write_model(folder), old)
    outcomes.append(cached(str(tmp_path / "run")))
    assert outcomes.pop() == {"cached": False}
    facts["version"] = CACHE_VERSION
    for precision in ("fp32", "int8"):
        ConvertedCache().put(precision, lambda folder: _write_model(folder), {**facts, "precision": precision})
        outcomes.append(cached(str(tmp_path / "run")))
    assert outcomes == [{"cached": False}, {"cached": False}, {"cached": True}]
    monkeypatch.setattr("hubel.inference.int8.exact_weight_bits", lambda: 7)  # another processor, other weights
    assert cached(str(tmp_path / "run")) == {"cached": False}


def _write_model(folder: Path) -> None:
    import openvino
    from openvino import opset13 as op

    from hubel.inference.accuracy_control import QuantizationReport
    from hubel.inference.int8 import QuantizedOpenVino

    pixels = op.parameter([1, 2], openvino.Type.f32)
    report = QuantizationReport("top-1", 0.9, 0.8, 100, 100, 0.95, (), 3, 1.0)
    QuantizedOpenVino().save((openvino.Model([op.relu(pixels)], [pixels], "m"), report), folder)


def test_an_interrupt_in_the_first_round_leaves_what_is_there(
    machine: _Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.interrupted_by = 5  # limits, prepare, first start, start, batch 1, and no more
    with pytest.raises(SystemExit) as exit_:
        main(["bench", "m", "--engine", "torch", "--precision", "fp32"])
    assert exit_.value.code == 130
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if line.strip().startswith("m ")]
    # 0.5 s and 0.1 s; 1 GB; 2 s, a quarter of them imports; 10 ms of computing for 4.4 of moving.
    figures = "m torch fp32 1 2.0 10.0 53.0 / 55.4 / 55.9 1000 2.00 (25%) 100 compute 2%"
    assert " ".join(line.split()) == figures
    assert "left out: m torch fp32 batch 16: interrupted" in out


def test_nothing_measured_is_a_failure(machine: _Machine) -> None:
    status, rows = _bench("--engine", "torch", "--precision", "int8")
    assert status == 1
    assert [row["left_out"] for row in rows] == ["torch does not support int8 on this machine"]


def test_what_is_planned() -> None:
    everything = plan()
    assert everything.batches == (1, 16) and not everything.left_out
    assert set(everything.runners) == {
        Runner("torch", "fp32"), Runner("torch", "bf16"), Runner("openvino", "fp32"), Runner("openvino", "bf16"),
        Runner("openvino", "int8"), Runner("onnx", "fp32"),
    }  # fmt: skip
    # Asked for, it is measured even where it does not pay.
    assert plan(["torch"], ["bfloat16"], [4], bf16_pays=False).runners == (Runner("torch", "bf16"),)
    for wrong in ({"engines": ["tensorflow"]}, {"precisions": ["fp8"]}, {"precisions": ["auto"]}, {"batches": [0]}):
        with pytest.raises(UsageError):
            plan(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -9 $$", "SIGKILL: the machine may have run out of memory"),
        ("echo 'import time: 1 | 1 | x' >&2; echo illegal instruction >&2; exit 3", "status 3: illegal instruction"),
        ("kill -ILL $$", "SIGILL: it printed nothing"),
    ],
)
def test_a_process_that_dies_is_a_failure_with_a_reason(
    script: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interpreter = tmp_path / "python"
    interpreter.write_text(f"#!/bin/sh\n{script}\n")
    interpreter.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(interpreter))
    with pytest.raises(JobFailure) as failure:
        run_job({"job": "limits"})
    assert reason in failure.value.reason and not failure.value.lacking


def test_folders_of_images(machine: _Machine, tmp_path: Path) -> None:
    for bad in (tmp_path / "missing", tmp_path):
        done = CliRunner().invoke(app, ["bench", "m", "--images", str(bad)])
        assert str(bad) in str(done.exception) and not machine.jobs
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg")
    (tmp_path / "notes.txt").write_text("not an image")
    _bench("--images", str(tmp_path), "--engine", "torch", "--precision", "fp32", "--rounds", "1")
    assert {tuple(job["images"]) for job in machine.jobs if job["job"] == "measure"} == {(str(tmp_path / "a.jpg"),)}


def test_sample_photographs_in_sizes(tmp_path: Path) -> None:
    from sklearn.datasets import load_sample_images

    paths = write_in_sizes(tmp_path, (320, 640))
    assert [path.name for path in paths] == ["china-320.jpg", "china-640.jpg", "flower-320.jpg", "flower-640.jpg"]
    for path, original in zip(paths[1::2], load_sample_images().images, strict=True):
        written = np.asarray(Image.open(path)).astype(float)
        assert written.shape == original.shape
        assert np.abs(written - original).mean() < 5  # of 255: JPEG's losses, not another image
    assert Image.open(paths[0]).size == (320, 214)
