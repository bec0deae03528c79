"""Images that come one at a time: arrays of 224 × 224 pixels to classes, ``hubel.Predictor`` compared with torchvision.

    python benchmarks/single_images.py [--networks resnet50] [--rounds 3]

The plain side is torchvision's network (timm's EfficientNet-Lite0) in eager mode, channels-last, float32, behind
torchvision's Resize, CenterCrop, ToTensor and Normalize. Each side has the result of an image before it gets the next.
Loading and hubel's conversion are not counted. Each measurement runs in a process of its own and the sides take turns;
a figure is that of the median image, the ratio the median over the rounds. Exits with 1 where hubel is slower.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

NETWORKS = ("resnet50", "efficientnet_lite0")
SIZE, WARM_UP = 224, 20  # images: enough for hubel to convert


def main() -> int:
    """Compare; returns 1 if hubel was slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=60, help="in each measurement")
    parser.add_argument("--side", choices=("plain", "hubel"), help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side = {"plain": _plain, "hubel": _hubel}[arguments.side]
        print(json.dumps(_median_seconds(side(arguments.networks[0], arguments.model), arguments.images)))
        return 0
    slower = False
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HUBEL_CACHE"] = str(Path(folder, "cache"))
        for network in arguments.networks:
            slower = _compare(network, Path(folder, network), arguments) < 1 or slower
    return int(slower)


def _compare(network: str, model: Path, arguments: argparse.Namespace) -> float:
    import torch

    from hubel.models import create_model, describe, save_model

    torch.manual_seed(0)
    net = create_model(network)
    save_model(model, net, describe(net))
    seconds: dict[str, list[float]] = {"plain": [], "hubel": []}
    for _ in range(arguments.rounds):
        for side, found in seconds.items():
            command = [sys.executable, __file__, "--side", side, "--networks", network, "--model", str(model)]
            command += ["--images", str(arguments.images)]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found.append(float(json.loads(output.splitlines()[-1])))
    ratio = statistics.median(plain / ours for plain, ours in zip(*seconds.values(), strict=True))
    speeds = "  ".join(f"{side} {1 / statistics.median(found):.1f} images/s" for side, found in seconds.items())
    print(f"{network}: {speeds}  ratio {ratio:.2f}", flush=True)
    return ratio


def _median_seconds(classify: Callable[[Any], int], images: int) -> float:
    import numpy as np

    generator = np.random.default_rng(0)
    arrays = [generator.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8) for _ in range(8)]
    times = []
    for number in range(WARM_UP + images):
        start = time.perf_counter()
        classify(arrays[number % len(arrays)])
        times.append(time.perf_counter() - start)
    return statistics.median(times[WARM_UP:])


def _plain(network: str, model: Path) -> Callable[[Any], int]:
    import timm
    import torch
    import torchvision
    from PIL import Image
    from torchvision import transforms

    net = torchvision.models.resnet50() if network == "resnet50" else timm.create_model("tf_efficientnet_lite0")
    net = net.eval().to(memory_format=torch.channels_last)
    steps = [transforms.Resize(256), transforms.CenterCrop(SIZE), transforms.ToTensor()]
    prepare = transforms.Compose([*steps, transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])

    def classify(array: Any) -> int:
        with torch.inference_mode():
            images = prepare(Image.fromarray(array))[None].contiguous(memory_format=torch.channels_last)
            return int(net(images).softmax(1).argmax(1))

    return classify


def _hubel(network: str, model: Path) -> Callable[[Any], int]:
    from hubel.inference import Predictor

    predict = Predictor(model)
    return lambda array: next(iter(predict(array))).best.index


if __name__ == "__main__":
    sys.exit(main())
