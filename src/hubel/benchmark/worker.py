"""The measuring process: does one job, says on stdout what came of it, and ends.

``echo '{"job": "limits", …}' | python -m hubel.benchmark.worker``; answers are lines of JSON.
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

_MANY = 1 << 20  # pictures: so many that the engine makes itself ready for a stream of them

Answer = Callable[[dict[str, Any]], None]


def limits(answer: Answer, threads: int | None, seconds: float) -> None:
    """What the machine can do at most."""
    from dataclasses import asdict

    import torch

    from hubel.benchmark.hardware_peaks import measure_limits
    from hubel.inference.precision import bfloat16_pays

    found = measure_limits(threads, seconds)
    answer({"limits": asdict(found), "bf16_pays": bfloat16_pays(torch.device("cpu"))})


def prepare(answer: Answer, model: str, folder: str) -> None:
    """Find a model, or make one of random weights where there are none; count what it takes."""
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
    answer({
        "reference": reference,
        "random_weights": reference != model,
        "input": list(shape),
        "cost": asdict(cost(network, shape)),
    })  # fmt: skip


def random_weights(model: str) -> Any:
    """A network of random weights, for a name whose default weights are not on this machine; else None.

    Measuring speed is no reason to download anything.
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


def cached(answer: Answer, model: str) -> None:
    """Whether a model has been quantized before, on this machine."""
    from hubel.inference.engines.convert import ModelSource, find_newest
    from hubel.inference.int8 import QuantizedOpenVino

    answer({"cached": find_newest(ModelSource(model), QuantizedOpenVino(), "int8") is not None})


def start(answer: Answer, picture: str, **wanted: Any) -> None:
    """What ``hubel predict PICTURE`` does."""
    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    predictor = Predictor(**wanted)
    (result,) = predictor([picture])
    answer({"answered": result.to_json()})


def measure(answer: Answer, pictures: list[str], seconds: float, **wanted: Any) -> None:
    """Speed and latency of a network alone, speed from files to answers, memory."""
    from pathlib import Path

    import numpy as np

    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    from hubel.benchmark.measure import (
        latencies,
        peak_resident_bytes,
        seconds_a_batch,
        seconds_a_picture,
    )

    predictor = Predictor(**wanted)
    # First what a command would do, as memory is to be that of nothing else.
    files_seconds = seconds_a_picture(predictor, [Path(name) for name in pictures], seconds)
    memory = peak_resident_bytes()
    preprocessing = predictor.metadata.preprocessing
    size = (wanted["batch"], preprocessing.height, preprocessing.width, preprocessing.channels)
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    engine = predictor.engine_for(_MANY)
    answer({
        "seconds_a_picture": files_seconds,
        "peak_memory_bytes": memory,
        "seconds_a_batch": seconds_a_batch(engine, pixels, seconds),
        "latencies": latencies(predictor.engine_for(1), pixels, seconds) if wanted["batch"] == 1 else [],
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
    """Do the job that stdin names."""
    job = json.loads(sys.stdin.readline())
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(row: dict[str, Any]) -> None:
        print(json.dumps(row), file=answers, flush=True)

    try:
        JOBS[job.pop("job")](answer, **job)
    except HubelError as error:
        lacking = isinstance(error, UsageError | MissingExtraError)
        answer({"fault": error.message, "remedy": error.hint, "lacking": lacking})
        return 1
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        answer({"fault": f"{type(error).__name__}: {first}", "remedy": "", "lacking": False})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())


_IMPORT = "import time:"


class JobFailure(Exception):
    """A job came to nothing.

    Args:
        reason: in one line.
        lacking: whether this machine lacks what the job needs; otherwise something went wrong.
    """

    def __init__(self, reason: str, lacking: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lacking = lacking


@dataclass(frozen=True)
class Answers:
    """What a job said.

    Attributes:
        row: all its lines put together.
        times: for each key, the seconds from the start of the process until it was said.
        import_seconds: that imports took, where they were timed.
    """

    row: dict[str, Any]
    times: dict[str, float]
    import_seconds: float = 0.0


def run_job(job: dict[str, Any], environment: dict[str, str] | None = None, time_imports: bool = False) -> Answers:
    """Do a job of :mod:`hubel.benchmark.worker` in a fresh process.

    The process has a session of its own, so that Ctrl-C at the terminal reaches this process alone, which then ends
    the other.

    Args:
        job: its name under ``"job"``, and its arguments.
        environment: variables that the process has besides those of this one.
        time_imports: let Python time them, which takes some hundredths of a second in all.

    Raises:
        JobFailure: it failed, or was killed.
    """
    timed = ["-X", "importtime"] if time_imports else []
    command = [sys.executable, *timed, "-m", "hubel.benchmark.worker"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        begin = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
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
                answer = json.loads(line)
                row |= answer
                times |= dict.fromkeys(answer, elapsed)
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        if status:
            raise _failure(status, row, said)
        return Answers(row, times, _import_seconds(said) if time_imports else 0.0)


def _import_seconds(said: IO[str]) -> float:
    """The sum of what Python says that each module took, without those that it imported: microseconds each."""
    said.seek(0)
    lines = (line.removeprefix(_IMPORT).partition("|")[0].strip() for line in said if line.startswith(_IMPORT))
    return sum(int(number) for number in lines if number.isdigit()) / 1e6


def _failure(status: int, row: dict[str, Any], said: IO[str]) -> JobFailure:
    if "fault" in row:
        reason = "; ".join(part for part in (row["fault"], row["remedy"]) if part)
        return JobFailure(reason, row["lacking"])
    last = next((line.strip() for line in reversed(_lines(said)) if line.strip()), "it said nothing")
    if status < 0:
        name = signal.Signals(-status).name
        why = ": the machine had no memory left, perhaps" if name == "SIGKILL" else f": {last}"
        return JobFailure(f"its process was ended by {name}{why}")
    return JobFailure(f"its process ended with status {status}: {last}")


def _lines(said: IO[str]) -> list[str]:
    said.seek(0)
    return [line for line in said if not line.startswith(_IMPORT)]
