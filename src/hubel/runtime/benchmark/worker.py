"""The measuring process: does one job, says on stdout what came of it, and ends.

``echo '{"job": "limits", …}' | python -m hubel.runtime.benchmark.worker``; answers are lines of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from hubel.errors import HubelError, MissingExtraError, UsageError

_MANY = 1 << 20  # pictures: so many that the engine makes itself ready for a stream of them

Answer = Callable[[dict[str, Any]], None]


def limits(answer: Answer, threads: int | None, seconds: float) -> None:
    """What the machine can do at most."""
    from dataclasses import asdict

    import torch

    from hubel.runtime.machine_limits import measure_limits
    from hubel.runtime.precision import bfloat16_pays

    found = measure_limits(threads, seconds)
    answer({"limits": asdict(found), "bf16_pays": bfloat16_pays(torch.device("cpu"))})


def prepare(answer: Answer, model: str, folder: str) -> None:
    """Find a model, or make one of random weights where there are none; count what it takes."""
    from dataclasses import asdict

    from hubel.insight.roofline import cost
    from hubel.models import describe, resolve_model, save_model

    network = made_up(model)
    if network is None:
        network, card = resolve_model(model)
        reference = model
    else:
        card = describe(network)
        save_model(folder, network, card)
        reference = folder
    pixels = card.preprocessing
    shape = (pixels.channels, pixels.height, pixels.width)
    answer({
        "reference": reference,
        "random_weights": reference != model,
        "input": list(shape),
        "cost": asdict(cost(network, shape)),
    })  # fmt: skip


def made_up(model: str) -> Any:
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


def kept(answer: Answer, model: str) -> None:
    """Whether a model has been quantized before, on this machine."""
    from hubel.runtime.conversion import find_newest
    from hubel.runtime.int8 import QuantizedFormat
    from hubel.runtime.model_source import ModelSource

    answer({"kept": find_newest(ModelSource(model), QuantizedFormat(), "int8") is not None})


def start(answer: Answer, picture: str, **wanted: Any) -> None:
    """What ``hubel predict PICTURE`` does."""
    from hubel.runtime import Predictor, tune_allocator

    tune_allocator()
    predictor = Predictor(**wanted)
    (result,) = predictor([picture])
    answer({"answered": result.to_json()})


def measure(answer: Answer, pictures: list[str], seconds: float, **wanted: Any) -> None:
    """Speed and latency of a network alone, speed from files to answers, memory."""
    from pathlib import Path

    import numpy as np

    from hubel.runtime import Predictor, tune_allocator

    tune_allocator()
    from hubel.runtime.benchmark.measurements import (
        latencies,
        peak_resident_bytes,
        seconds_a_batch,
        seconds_a_picture,
    )

    predictor = Predictor(**wanted)
    # First what a command would do, as memory is to be that of nothing else.
    files_seconds = seconds_a_picture(predictor, [Path(name) for name in pictures], seconds)
    memory = peak_resident_bytes()
    preprocessing = predictor.card.preprocessing
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
    "kept": kept,
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
        answer({"fault": error.fault, "remedy": error.remedy, "lacking": lacking})
        return 1
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        answer({"fault": f"{type(error).__name__}: {first}", "remedy": "", "lacking": False})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
