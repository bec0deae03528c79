"""Images per second from files to boxes: ``hubel.Predictor`` compared with the same detector in eager mode.

    python benchmarks/detection_speed.py MODEL FOLDER [--rounds 3]

The eager side: PIL opens, converts and resizes; batches of 16; the network in float32 and channels-last; softmax,
decoding and NMS. MODEL is a run folder or a name with weights, FOLDER contains images; both sides have the same
thresholds. Each measurement runs in a process of its own and the two take turns. Loading libraries and the model is not
counted, nor is the conversion, which happens once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

BATCH = 16


def main() -> None:
    """Run both in turns and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    files = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.model, files)))
        return
    rows: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side in SIDES:
            command = [sys.executable, __file__, arguments.model, str(arguments.folder), "--side", side]
            rows[side].append(json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout))
    for side, measured in rows.items():
        speed = statistics.median(len(files) / row["seconds"] for row in measured)
        print(f"{side}: {speed:.1f} images/s, {measured[0]['boxes']:.0f} boxes in {len(files)} images")
    pairs = zip(rows["eager"], rows["hubel"], strict=True)
    print(f"ratio {statistics.median(eager['seconds'] / hubel['seconds'] for eager, hubel in pairs):.2f}")


def _eager(model: str, files: list[Path]) -> dict[str, float]:
    import torch
    from PIL import Image

    from hubel.models import resolve_model
    from hubel.tasks.decoding import Thresholds
    from hubel.tasks.detection.decode import select_objects

    network, metadata = resolve_model(model)
    network = network.eval().to(memory_format=torch.channels_last)
    size = metadata.preprocessing
    shape = (size.height, size.width)
    boxes = 0
    start = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(files), BATCH):
            images = [Image.open(path).convert("RGB") for path in files[first : first + BATCH]]
            pixels = torch.stack([torch.from_numpy(size.pixels(image)) for image in images]).permute(0, 3, 1, 2)
            predictions = network.predictions(network(size.normalize(pixels)), shape)
            for one, scores in zip(predictions["boxes"].numpy(), predictions["scores"].numpy(), strict=True):
                boxes += len(select_objects(one, scores, shape, Thresholds()).boxes)
    return {"seconds": time.perf_counter() - start, "boxes": boxes}


def _hubel(model: str, files: list[Path]) -> dict[str, float]:
    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    predictor = Predictor(model)
    predictor.engine_for(len(files))  # converts unless a conversion is cached
    start = time.perf_counter()
    boxes = sum(len(result.boxes) for result in predictor(files))
    return {"seconds": time.perf_counter() - start, "boxes": boxes}


SIDES = {"eager": _eager, "hubel": _hubel}

if __name__ == "__main__":
    main()
