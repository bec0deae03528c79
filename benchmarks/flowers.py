"""Accuracy of ``hubel train`` with all defaults on flowers5, over several seeds.

    HUBEL_DATA=/path/to/data python benchmarks/flowers.py --seeds 3

Each seed is a new process of the command itself; the figures are those that it prints. The best epoch is chosen on the
validation images, so the figure is slightly optimistic, equally for every recipe that is compared here.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def main() -> None:
    """Train once per seed and print a row each, then the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HUBEL_DATA", ".")) / "flowers5")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("options", nargs="*", help="further options of hubel train, after --")
    arguments = parser.parse_args()
    accuracies = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "hubel", "train", str(arguments.data), "--seed", str(seed), "--json"]
            start = time.perf_counter()
            done = subprocess.run(
                [*command, "--out", f"{folder}/run", *arguments.options], stdout=subprocess.PIPE, check=True, text=True
            )
            elapsed = time.perf_counter() - start
        row = json.loads(done.stdout)
        metrics = row["validation"]
        accuracies.append(metrics["top1"])
        print(
            f"seed {seed}: top-1 {metrics['top1']:.4f}  loss {metrics['loss']:.4f}  ECE {metrics['ece']:.4f}  "
            f"epochs {row['seconds']:.0f} s, whole command {elapsed:.0f} s",
            flush=True,
        )
    print(f"mean top-1 of {len(accuracies)} seeds: {statistics.mean(accuracies):.4f}")


if __name__ == "__main__":
    main()
