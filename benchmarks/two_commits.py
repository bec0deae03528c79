"""Processor seconds of the same commands at two commits, in turns: has a change made something slower?

    git worktree add ../before COMMIT
    HUBEL_DATA=... python benchmarks/two_commits.py ../before . [--rounds 5] [--only start,track] [--limit 1.03]

Each workload is a command that both commits have, run in a new process: first once by each side, not counted, which
fills that side's own cache (converted models, measured choices), then in alternating order. The figure of a round is
the ratio new / old of the processor time (user and system, all threads and child processes), which other work on the
machine changes less than the wall-clock time; the median of the ratios is printed. Exits with 1 if a median exceeds
the limit. ``coco`` is the time that ``coco_metrics.py`` prints, since its process also runs the other library.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import sklearn.datasets

PHOTOGRAPH = str(Path(sklearn.datasets.__file__).parent / "images" / "china.jpg")
HUBEL = [sys.executable, "-m", "hubel"]
# DATA is the folder in HUBEL_DATA, OUT a new folder for each run.
WORKLOADS = {
    "help": [*HUBEL, "--help"],
    "start": [*HUBEL, "predict", PHOTOGRAPH, "--engine", "openvino"],
    "predict": [*HUBEL, "predict", "DATA/flowers5/val", "--engine", "openvino", "--json"],
    "predict-torch": [*HUBEL, "predict", "DATA/flowers5/val", "--engine", "torch", "--json"],
    "train": [
        *HUBEL, "train", "DATA/flowers5", "--model", "resnet18", "--from-scratch", "--image-size", "128",
        "--epochs", "1", "--batch", "16", "--precision", "float32", "--workers", "0", "--out", "OUT/run",
    ],
    "detect-train": [
        *HUBEL, "train", "DATA/raccoon", "--task", "detect", "--epochs", "1", "--head-epochs", "0",
        "--precision", "float32", "--workers", "0", "--out", "OUT/run",
    ],
    "track-sort": [*HUBEL, "track", "--detections", "DATA/mot/PETS09-S2L1/det/det.txt", "--mot", "OUT/tracks.txt"],
    "track-video": [
        *HUBEL, "track", "DATA/mot/PETS09-S2L1/vtest.avi", "--detections", "DATA/mot/PETS09-S2L1/det/det.txt",
        "--tracker", "deepsort", "--mot", "OUT/tracks.txt",
    ],
    "coco": [sys.executable, "CHECKOUT/benchmarks/coco_metrics.py", "--rounds", "1"],
}  # fmt: skip


def main() -> None:
    """Run the chosen workloads and print a line for each."""
    arguments = _arguments()
    slower = 0
    with tempfile.TemporaryDirectory(prefix="two-commits-") as folder:
        for name in arguments.only:
            ratio = _compare(name, (arguments.old.resolve(), arguments.new.resolve()), arguments.rounds, Path(folder))
            slower += ratio > arguments.limit
    sys.exit(slower > 0)


def _compare(name: str, checkouts: tuple[Path, Path], rounds: int, folder: Path) -> float:
    for checkout in checkouts:
        _seconds(name, checkout, folder)
    old, new = [], []
    for index in range(rounds):
        for checkout in checkouts if index % 2 else reversed(checkouts):
            (old if checkout == checkouts[0] else new).append(_seconds(name, checkout, folder))
    ratios = [after / before for before, after in zip(old, new, strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"{name}: {statistics.median(old):.2f} s, {statistics.median(new):.2f} s, ratio {ratio:.3f} "
        f"({min(ratios):.3f} to {max(ratios):.3f}, {rounds} rounds)",
        flush=True,
    )
    return ratio


def _seconds(name: str, checkout: Path, folder: Path) -> float:
    """Processor seconds of one run; those that the program prints, in the case of ``coco``."""
    cache = folder / checkout.name
    out = folder / f"{checkout.name}-{time.monotonic_ns()}"
    out.mkdir(parents=True)
    folders = {"DATA": os.environ["HUBEL_DATA"], "OUT": str(out), "CHECKOUT": str(checkout)}
    command = [re.sub(r"^(DATA|OUT|CHECKOUT)(?=/)", lambda found: folders[found[1]], word) for word in WORKLOADS[name]]
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "HUBEL_CACHE": str(cache)}
    before = _children()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=out)
    if done.returncode:
        sys.exit(f"{name} failed in {checkout}:\n{done.stderr}")
    if name == "coco":
        return float(re.findall(r"hubel ([\d.]+) s", done.stdout)[0])
    return _children() - before


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="checkout of the earlier commit")
    parser.add_argument("new", type=Path, help="checkout of the later commit")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--only", type=lambda text: text.split(","), default=list(WORKLOADS), help="workloads, by comma"
    )
    parser.add_argument("--limit", type=float, default=1.03, help="largest median ratio that is not an error")
    arguments = parser.parse_args()
    if "HUBEL_DATA" not in os.environ:
        parser.error("set HUBEL_DATA to the folder of the data")
    for name in arguments.only:
        if name not in WORKLOADS:
            parser.error(f"{name} is not a workload: {', '.join(WORKLOADS)}")
    return arguments


if __name__ == "__main__":
    main()
