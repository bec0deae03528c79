"""The measuring process: does one job and prints its results on stdout, as lines of JSON.

``echo '{"job": "limits", …}' | python -m hubel.benchmark.worker``
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

from hubel.errors import HubelError, MissingExtraError, UsageError

_MANY = 1 << 20  # images: so many that an engine for a stream of them is chosen

Report = Callable[[dict[str, Any]], None]


def limits(report: Report, threads: int | None, seconds: float) -> None:
    """Peaks of the machine."""
    from dataclasses import asdict

    import torch

    from hubel.benchmark.hardware_peaks import measure_limits
    from hubel.inference.precision import bfloat16_pays

    found = measure_limits(threads, seconds)
    report({"limits": asdict(found), "bf16_pays": bfloat16_pays(torch.device("cpu"))})


def prepare(report: Report, model: str, folder: str) -> None:
    """Find a model, or make one with random weights if there are none; count its operations."""
    from dataclasses import asdict

    from hubel.analysis.roofline import cost
    from hubel.models import describe, resolve_model, save_model

    network = random_weights(model)
    if network is None:
        network, metadata = resolve_model(model)
        reference = model
    else:
        metadata = describe(network)
        save_model(folder, network, metadata)
        reference = folder
    pixels = metadata.preprocessing
    shape = (pixels.channels, pixels.height, pixels.width)
    report({
        "reference": reference,
        "random_weights": reference != model,
        "input": list(shape),
        "cost": asdict(cost(network, shape)),
    })  # fmt: skip


def random_weights(model: str) -> Any:
    """A network with random weights, for a name whose default weights are not on this machine; else None.

    Nothing is downloaded for a measurement of speed.
    """
    import torch

    from hubel.models import create_model, list_models
    from hubel.weights import cache_path, default_entry

    if model not in list_models():
        return None
    entry = default_entry(model)
    if entry is not None and (not entry.needs_download or cache_path(entry).is_file()):
        return None
    torch.manual_seed(0)
    return create_model(model).eval()


def cached(report: Report, model: str) -> None:
    """Check if the cache has a quantized model."""
    from hubel.inference.engines.convert import ModelSource, find_newest
    from hubel.inference.int8 import QuantizedOpenVino

    report({"cached": find_newest(ModelSource(model), QuantizedOpenVino(), "int8") is not None})


def start(report: Report, image: str, **options: Any) -> None:
    """As ``hubel predict IMAGE``."""
    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    predictor = Predictor(**options)
    (result,) = predictor([image])
    report({"predicted": result.to_json()})


def measure(report: Report, images: list[str], seconds: float, **options: Any) -> None:
    """Speed and latency of a network alone, speed from files to results, memory."""
    from pathlib import Path

    import numpy as np

    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    from hubel.benchmark.measure import (
        latencies,
        peak_resident_bytes,
        seconds_per_batch,
        seconds_per_image,
    )

    predictor = Predictor(**options)
    # First what a command does, so that memory is that of nothing else.
    files_seconds = seconds_per_image(predictor, [Path(name) for name in images], seconds)
    memory = peak_resident_bytes()
    preprocessing = predictor.metadata.preprocessing
    size = (options["batch"], preprocessing.height, preprocessing.width, preprocessing.channels)
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    engine = predictor.engine_for(_MANY)
    report({
        "seconds_per_image": files_seconds,
        "peak_memory_bytes": memory,
        "seconds_per_batch": seconds_per_batch(engine, pixels, seconds),
        "latencies": latencies(predictor.engine_for(1), pixels, seconds) if options["batch"] == 1 else [],
        "device": engine.device,
        "threads": engine.threads,
    })  # fmt: skip


JOBS: dict[str, Callable[..., None]] = {
    "limits": limits,
    "prepare": prepare,
    "cached": cached,
    "start": start,
    "measure": measure,
}


def main() -> int:
    """Run the job on stdin."""
    job = json.loads(sys.stdin.readline())
    # Output of libraries must not get between the results.
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def report(row: dict[str, Any]) -> None:
        print(json.dumps(row), file=results, flush=True)

    try:
        JOBS[job.pop("job")](report, **job)
    except HubelError as error:
        lacking = isinstance(error, UsageError | MissingExtraError)
        report({"error": error.message, "hint": error.hint, "lacking": lacking})
        return 1
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        report({"error": f"{type(error).__name__}: {first}", "hint": "", "lacking": False})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())


_IMPORT = "import time:"


class JobFailure(Exception):
    """A job failed.

    Args:
        reason: in one line.
        lacking: this machine lacks something that the job needs; otherwise something went wrong.
    """

    def __init__(self, reason: str, lacking: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lacking = lacking


@dataclass(frozen=True)
class JobResult:
    """Results of a job.

    Attributes:
        row: all its lines, merged.
        times: seconds from the start of the process to each key.
        import_seconds: of imports, if they were timed.
    """

    row: dict[str, Any]
    times: dict[str, float]
    import_seconds: float = 0.0


def run_job(job: dict[str, Any], environment: dict[str, str] | None = None, time_imports: bool = False) -> JobResult:
    """Do a job of :mod:`hubel.benchmark.worker` in a fresh process.

    The process has a session of its own, so that Ctrl-C at the terminal reaches this process alone, which then ends
    the other.

    Args:
        job: its name under ``"job"``, and its arguments.
        environment: further variables of the process.
        time_imports: let Python time them, which takes some hundredths of a second in all.

    Raises:
        JobFailure: it failed, or was killed.
    """
    timed = ["-X", "importtime"] if time_imports else []
    command = [sys.executable, *timed, "-m", "hubel.benchmark.worker"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        row: dict[str, Any] = {}
        times: dict[str, float] = {}
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps(job) + "\n")
            for line in process.stdout:
                elapsed = time.perf_counter() - begin
                row_part = json.loads(line)
                row |= row_part
                times |= dict.fromkeys(row_part, elapsed)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if status:
            raise _failure(status, row, stderr)
        return JobResult(row, times, _import_seconds(stderr) if time_imports else 0.0)


def _import_seconds(stderr: IO[str]) -> float:
    """Sum of the microseconds of each module, without those that it imports."""
    stderr.seek(0)
    lines = (line.removeprefix(_IMPORT).partition("|")[0].strip() for line in stderr if line.startswith(_IMPORT))
    return sum(int(number) for number in lines if number.isdigit()) / 1e6


def _failure(status: int, row: dict[str, Any], stderr: IO[str]) -> JobFailure:
    if "error" in row:
        reason = "; ".join(part for part in (row["error"], row["hint"]) if part)
        return JobFailure(reason, row["lacking"])
    last = next((line.strip() for line in reversed(_lines(stderr)) if line.strip()), "it printed nothing")
    if status < 0:
        name = signal.Signals(-status).name
        why = ": the machine may have run out of memory" if name == "SIGKILL" else f": {last}"
        return JobFailure(f"its process was ended by {name}{why}")
    return JobFailure(f"its process ended with status {status}: {last}")


def _lines(stderr: IO[str]) -> list[str]:
    stderr.seek(0)
    return [line for line in stderr if not line.startswith(_IMPORT)]
