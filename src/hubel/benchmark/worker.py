"""Jobs of a benchmark, each done in a fresh process: :func:`run_job` starts it, :func:`main` runs in it.

The process reads its job from stdin and prints the result on stdout, a line of JSON each:
``echo '{"job": "limits", …}' | python -m hubel.benchmark.worker``.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from hubel.errors import HubelError, MissingExtraError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from hubel.inference.engines.base import Engine
    from hubel.inference.predictor import Predictor

_MANY = 1 << 20  # images: so many that an engine for a stream of them is chosen
_WARM_UP = 3  # batches: the first ones choose kernels and reorder weights
_IMPORT = "import time:"

Row = dict[str, Any]


class JobFailure(Exception):
    """A job failed, as this machine lacks something that it needs (``lacking``), or as something went wrong."""

    def __init__(self, reason: str, lacking: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.lacking = lacking


@dataclass(frozen=True)
class JobResult:
    """Result of a job, and seconds from the start of its process: in all, and of imports if they were timed."""

    row: Row
    seconds: float
    import_seconds: float = 0.0


def run_job(job: Row, environment: dict[str, str] | None = None, time_imports: bool = False) -> JobResult:
    """Do a job in a fresh process.

    The process has a session of its own, so that Ctrl-C at the terminal reaches this process alone, which then ends
    the other. ``job`` has its name under ``"job"``, and its arguments; ``environment`` are further variables. Python
    times the imports if asked to, which takes some hundredths of a second in all.

    Raises:
        JobFailure: it failed, or was killed.
    """
    timed = ["-X", "importtime"] if time_imports else []
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as stderr:
        begin = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *timed, "-m", "hubel.benchmark.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **(environment or {})},
            start_new_session=True,
        )
        assert process.stdin is not None and process.stdout is not None
        try:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                process.stdin.write(json.dumps(job) + "\n")
            line = process.stdout.readline()
            seconds = time.perf_counter() - begin
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        row = json.loads(line) if line else {}
        if status:
            raise _failure(status, row, stderr)
        return JobResult(row, seconds, _import_seconds(stderr) if time_imports else 0.0)


def _import_seconds(stderr: IO[str]) -> float:
    """Sum of the microseconds of each module, without those that it imports."""
    stderr.seek(0)
    lines = (line.removeprefix(_IMPORT).partition("|")[0].strip() for line in stderr if line.startswith(_IMPORT))
    return sum(int(number) for number in lines if number.isdigit()) / 1e6


def _failure(status: int, row: Row, stderr: IO[str]) -> JobFailure:
    if "error" in row:
        reason = "; ".join(part for part in (row["error"], row["hint"]) if part)
        return JobFailure(reason, row["lacking"])
    stderr.seek(0)
    printed = [line.strip() for line in stderr if line.strip() and not line.startswith(_IMPORT)]
    last = printed[-1] if printed else "it printed nothing"
    if status < 0:
        name = signal.Signals(-status).name
        why = ": the machine may have run out of memory" if name == "SIGKILL" else f": {last}"
        return JobFailure(f"its process was ended by {name}{why}")
    return JobFailure(f"its process ended with status {status}: {last}")


def limits(threads: int | None, seconds: float) -> Row:
    """Peaks of the machine."""
    import torch

    from hubel.benchmark.hardware_peaks import measure_limits
    from hubel.inference.precision import bfloat16_pays

    found = measure_limits(threads, seconds)
    return {"limits": asdict(found), "bf16_pays": bfloat16_pays(torch.device("cpu"))}


def prepare(model: str, folder: str) -> Row:
    """Find a model, or save one with random weights in ``folder`` if there are none; count its operations.

    An exported model has no network whose operations could be counted, and one ``runner``: its engine and precision.
    """
    from hubel.analysis.roofline import cost
    from hubel.inference.engines.exported import find_exported
    from hubel.models import describe, resolve_model, save_model

    network, reference = _with_random_weights(model), model
    exported = find_exported(model) if network is None else None
    if exported is not None:
        metadata = exported.metadata
    elif network is None:
        network, metadata = resolve_model(model)
    else:
        metadata = describe(network)
        save_model(folder, network, metadata)
        reference = folder
    pixels = metadata.preprocessing
    shape = (pixels.channels, pixels.height, pixels.width)
    return {
        "reference": reference,
        "random_weights": reference == folder,
        "input": list(shape),
        "cost": None if network is None else asdict(cost(network, shape)),
        "runner": None if exported is None else [exported.backend.name, exported.precision],
    }


def _with_random_weights(model: str) -> Any:
    """A network with random weights, for a name whose default weights are not on this machine; else None.

    Nothing is downloaded for a measurement of speed.
    """
    import torch

    from hubel.models import create_model, list_models
    from hubel.weights import default_entry, is_here

    if model not in list_models():
        return None
    entry = default_entry(model)
    if entry is not None and is_here(entry):
        return None
    torch.manual_seed(0)
    return create_model(model).eval()


def cached(model: str) -> Row:
    """Check if the cache has a quantized model."""
    from hubel.inference.engines.convert import ModelSource
    from hubel.inference.int8 import find_quantized

    return {"cached": find_quantized(ModelSource(model)) is not None}


def start(image: str, **options: Any) -> Row:
    """As ``hubel predict IMAGE``."""
    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    predictor = Predictor(**options)
    (result,) = predictor([image])
    return {"predicted": result.to_json()}


def measure(images: list[str], seconds: float, **options: Any) -> Row:
    """Speed and latency of a network alone, speed from files to results, memory."""
    import numpy as np

    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    predictor = Predictor(**options)
    # First what a command does, so that memory is that of nothing else.
    files_seconds = _seconds_per_image(predictor, [Path(name) for name in images], seconds)
    memory = _peak_resident_bytes()
    preprocessing = predictor.metadata.preprocessing
    size = (options["batch"], preprocessing.height, preprocessing.width, preprocessing.channels)
    pixels = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    engine = predictor.engine_for(_MANY)
    return {
        "seconds_per_image": files_seconds,
        "peak_memory_bytes": memory,
        "seconds_per_batch": _seconds_per_batch(engine, pixels, seconds),
        "latencies": _latencies(predictor.engine_for(1), pixels, seconds) if options["batch"] == 1 else [],
        "device": engine.device,
        "threads": engine.threads,
    }


def _seconds_per_batch(engine: Engine, pixels: np.ndarray, seconds: float) -> float:
    """Time per batch (uint8, (N, H, W, C)) when batches follow each other for about ``seconds``, but at least two."""
    for _ in engine.run(itertools.repeat(pixels, _WARM_UP)):
        pass
    start = time.perf_counter()
    count = sum(1 for _ in engine.run(_until(start + seconds, itertools.repeat(pixels), at_least=2)))
    return (time.perf_counter() - start) / count


def _latencies(engine: Engine, pixels: np.ndarray, seconds: float) -> list[float]:
    """Seconds from each batch to its predictions, one batch after the other; at least two."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < seconds:
        start = time.perf_counter()
        for _ in engine.run([pixels]):
            pass
        times.append(time.perf_counter() - start)
    return times


def _seconds_per_image(predictor: Predictor, files: list[Path], seconds: float) -> float:
    """Time per image from its file to its result, when files follow each other, again and again, without a pause.

    Measured for about ``seconds``, but at least two batches.
    """
    from hubel.inference.engines.selection import MIN_IMAGES_TO_CONVERT
    from hubel.inference.pipeline import FailedImage

    endless = itertools.cycle(files)
    for _ in predictor.stream(itertools.islice(endless, MIN_IMAGES_TO_CONVERT)):
        pass
    batch = predictor.engine_for(MIN_IMAGES_TO_CONVERT).batch
    start = time.perf_counter()
    count = 0
    for outcome in predictor.stream(_until(start + seconds, endless, at_least=max(MIN_IMAGES_TO_CONVERT, 2 * batch))):
        if isinstance(outcome, FailedImage):
            raise outcome.error
        count += 1
    return (time.perf_counter() - start) / count


def _peak_resident_bytes() -> int:
    """Peak of this process's resident memory."""
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux it is at least the peak of the process that started this one.
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
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


_JOBS: dict[str, Callable[..., Row]] = {job.__name__: job for job in (limits, prepare, cached, start, measure)}


def main() -> int:
    """Run the job on stdin; none is there if Ctrl-C came while this process was being started."""
    line = sys.stdin.readline()
    if not line:
        return 1
    job = json.loads(line)
    # Output of libraries must not get between the results.
    results = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        row = _JOBS[job.pop("job")](**job)
    except HubelError as error:
        lacking = isinstance(error, UsageError | MissingExtraError)
        row = {"error": error.message, "hint": error.hint, "lacking": lacking}
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        row = {"error": f"{type(error).__name__}: {first}", "hint": "", "lacking": False}
    print(json.dumps(row), file=results, flush=True)
    return int("error" in row)


if __name__ == "__main__":
    sys.exit(main())
