"""Two ways to model objectness in sliding windows: a separate logit, or one more class.

    python benchmarks/sliding_window.py [--data DIR] [--epochs 12] [--threads 2] [--objectness binary class]

Trains ``sliding_window`` as ``hubel train --task detect`` does, on raccoon unless a folder is given, once with each
kind of objectness and otherwise the same settings. Prints COCO's AP50 and AP of the validation and the test images.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import hubel


def main() -> None:
    """Train and score each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HUBEL_DATA", ".")) / "raccoon")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--objectness", nargs="+", default=["binary", "class"], choices=["binary", "class"])
    arguments = parser.parse_args()
    print("| objectness | split | images | AP50 | AP | seconds for epochs |")
    print("| --- | --- | ---: | ---: | ---: | ---: |", flush=True)
    for kind in arguments.objectness:
        with tempfile.TemporaryDirectory() as folder:
            result = hubel.train(
                arguments.data,
                out=Path(folder) / kind,
                task="detect",
                model="sliding_window",
                options={"objectness": kind},
                epochs=arguments.epochs,
                seed=arguments.seed,
                threads=arguments.threads,
            )
        for split, scores in result.scores.items():
            figures = scores.to_json()["metrics"]
            row = f"{scores.images} | {figures['AP50']:.3f} | {figures['AP']:.3f} | {result.seconds:.0f}"
            print(f"| {kind} | {split} | {row} |", flush=True)


if __name__ == "__main__":
    main()
