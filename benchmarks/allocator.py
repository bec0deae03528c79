"""Effect of the allocator's thresholds and of OpenMP's waiting policy on efficientnet_lite0.

    python benchmarks/allocator.py --rounds 3

Training steps (float32, channels-last, batch 32 at 224 px) and eager prediction (batch 16), each variant in a new
process, in turns: glibc's own settings; ``hubel.inference.tune_allocator``, which keeps 512 MiB of freed memory, or
all of it, as in training; and the same with 64 MiB more allocated at a time (M_TOP_PAD). Prints medians of the speed
and the minor page faults of the timed steps, and of the process's peak resident memory.

With ``--waiting`` the variants are OpenMP's: spinning, torch's default, and ``hubel.system``, each next to a
process that computes all the time.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

TRAIN_BATCH, PREDICT_BATCH, SIZE = 32, 16, 224
STEPS = {"train": 4, "predict": 8}
ALLOCATORS = {"glibc": "", "512 MiB kept": "tune", "all kept": "tune all", "all kept, top pad": "tune all pad"}
WAITING = {"spinning": "tune all", "soon asleep": "tune all wait"}
_M_TOP_PAD = -2


def measure(work: str, how: str) -> dict[str, float]:
    """Seconds, page faults and peak memory of one variant, in this new process."""
    if "wait" in how:
        from hubel.system import set_passive_omp_wait

        set_passive_omp_wait()
    if "tune" in how:
        from hubel.system import tune_allocator

        tune_allocator(None) if "all" in how else tune_allocator()
    if "pad" in how:
        import ctypes

        ctypes.CDLL("libc.so.6").mallopt(_M_TOP_PAD, 64 << 20)
    import torch

    from hubel.models import create_model

    model = create_model("efficientnet_lite0", num_classes=5).to(memory_format=torch.channels_last)
    images = torch.randn(TRAIN_BATCH if work == "train" else PREDICT_BATCH, 3, SIZE, SIZE)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(len(images), dtype=torch.int64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        if work == "predict":
            with torch.inference_mode():
                model(images)
            return
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    model.train(work == "train")
    for _ in range(2):
        step()
    faults, start, computing = _faults(), time.perf_counter(), time.process_time()
    for _ in range(STEPS[work]):
        step()
    seconds, computed = time.perf_counter() - start, time.process_time() - computing
    done = STEPS[work] * len(images)
    return {
        "images/s": done / seconds,
        "processor ms an image": 1e3 * computed / done,
        "faults an image": (_faults() - faults) / done,
        "peak MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def _faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def main() -> None:
    """Run the variants in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--waiting", action="store_true", help="compare OpenMP's waiting policies instead")
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    ways = WAITING if arguments.waiting else ALLOCATORS
    neighbour = [sys.executable, "-c", "while True: pass"]
    found: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(arguments.rounds):
        for work in STEPS:
            for name, how in ways.items():
                beside = subprocess.Popen(neighbour) if arguments.waiting else None
                again = [sys.executable, __file__, "--measure", work, how]
                environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP", "GOMP"))}
                done = subprocess.run(again, check=True, capture_output=True, text=True, env=environment)
                if beside is not None:
                    beside.kill()
                    beside.wait()
                row = json.loads(done.stdout)
                found.setdefault((work, name), []).append(row)
                print(f"{work:<8} {name:<20} {_figures(row)}", file=sys.stderr, flush=True)
    for (work, name), rows in found.items():
        print(f"{work:<8} {name:<20} {_figures({key: statistics.median(row[key] for row in rows) for key in rows[0]})}")


def _figures(row: dict[str, float]) -> str:
    return "   ".join(f"{key} {value:.1f}" for key, value in row.items())


if __name__ == "__main__":
    main()
