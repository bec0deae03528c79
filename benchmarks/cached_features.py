"""Seconds per epoch of the head on a frozen backbone, with the features computed once and in every epoch.

    HUBEL_DATA=/path/to/data python benchmarks/cached_features.py

Both sides are ``hubel train`` with all defaults except ``--augment flip``, three epochs of the head alone, one of them
with ``--cache-features``; they take turns in new processes. Prints the first epoch, in which the features are computed,
and the mean of the others.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

EPOCHS = 4


def epochs(data: Path, model: str, *options: str) -> list[float]:
    """Seconds of each epoch, including validation."""
    with tempfile.TemporaryDirectory() as folder:
        fixed = ["--augment", "flip", "--epochs", str(EPOCHS), "--head-epochs", str(EPOCHS), "--model", model]
        command = [sys.executable, "-m", "hubel", "train", str(data), *fixed, *options, "--out", f"{folder}/run"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rows = csv.DictReader(Path(folder, "run", "metrics.csv").read_text().splitlines())
        return [float(row["seconds"]) for row in rows]


def main() -> None:
    """Run both in turns and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HUBEL_DATA", ".")) / "flowers5")
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    later: dict[str, list[float]] = {"every epoch": [], "once": []}
    for number in range(arguments.rounds):
        for name, options in (("every epoch", ()), ("once", ("--cache-features",))):
            first, *others = epochs(arguments.data, arguments.model, *options)
            later[name].append(statistics.mean(others))
            print(
                f"round {number + 1}: features computed {name}: first epoch {first:.2f} s, "
                f"later {later[name][-1]:.3f} s"
            )
    medians = {name: statistics.median(values) for name, values in later.items()}
    print(f"medians of later epochs: {medians['every epoch']:.3f} s and {medians['once']:.3f} s; ", end="")
    print(f"ratio {medians['every epoch'] / medians['once']:.1f}")


if __name__ == "__main__":
    main()
