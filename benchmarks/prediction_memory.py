"""Memory of a long prediction: resident memory while 20,000 photographs (links to a few) are predicted.

    HUBEL_DATA=... python benchmarks/prediction_memory.py [FOLDER] [--images 20000] [--model efficientnet_lite0]

A new process predicts a folder of links with ``hubel.Predictor`` (as in ``hubel predict FOLDER``) and records its
resident memory after every 5 %. After the first tenth all buffers exist, so memory should not grow any more: the
program prints the growth until the end, and exits with 1 if it exceeds 5 %.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import psutil

_STEPS = 20
_ALLOWED = 0.05


def main() -> None:
    arguments = _arguments()
    if arguments.links:
        print(json.dumps(_predict(arguments.links, arguments.images, arguments.model)))
        return
    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:50]
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(islice(cycle(files), arguments.images)):
            Path(folder, f"{number:06}.jpg").symlink_to(path.resolve())
        command = [sys.executable, __file__, "--links", folder, "--images", str(arguments.images)]
        done = subprocess.run([*command, "--model", arguments.model], stdout=subprocess.PIPE, check=True, text=True)
    row = json.loads(done.stdout)
    print(row["how"])
    for images, megabytes in row["resident"]:
        print(f"{images:>8} images  {megabytes:7.1f} MB")
    early = row["resident"][_STEPS // 10][1]
    added = row["resident"][-1][1] / early - 1
    print(f"{row['images_per_second']:.0f} images/s; after the first tenth {added:+.1%} of {early:.0f} MB")
    sys.exit(added > _ALLOWED)


def _arguments() -> argparse.Namespace:
    data = os.environ.get("HUBEL_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(data, "flowers5", "val") if data else None)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--links", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is None and arguments.links is None:
        parser.error("name a folder of JPEG files, or set HUBEL_DATA")
    return arguments


def _predict(folder: Path, images: int, model: str) -> dict:
    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    process = psutil.Process()
    resident: list[tuple[int, float]] = []
    predict = Predictor(model)
    start = time.perf_counter()
    seen = 0
    for seen, _ in enumerate(predict(folder), 1):
        if seen % max(1, images // _STEPS) == 0 or seen == 1:
            resident.append((seen, process.memory_info().rss / 1e6))
    assert seen == images
    seconds = time.perf_counter() - start
    return {"resident": resident, "how": predict.describe(), "images_per_second": images / seconds}


if __name__ == "__main__":
    main()
