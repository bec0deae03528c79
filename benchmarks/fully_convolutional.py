"""All windows of an image in one pass, compared with the classifier on each window.

    python benchmarks/fully_convolutional.py [--network resnet50] [--rounds 5] [--threads 2]

Both sides have the same weights in float32, prepared as in hubel's prediction (fused, channels-last), in inference
mode. The windows of 224 pixels are as many pixels apart as the network's stride; the plain side runs them in batches of
16. The sides take turns. Prints milliseconds (the best round), the ratio and its target.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version

import torch
from torch import Tensor, nn

import hubel
from hubel.inference.fusion import fuse

WINDOW = 224
BARS = {448: 5.0, 672: 5.0}
BATCH = 16


def main() -> int:
    """Measure; returns 1 if a target was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet50")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    classifier = hubel.create_model(arguments.network).eval()
    converted = hubel.to_fully_convolutional(classifier, WINDOW)
    print(
        f"{arguments.network}, torch {version('torch')}, {arguments.threads} threads, {arguments.rounds} rounds, ms\n"
    )
    print(
        "| image | windows | one by one | one pass | ratio | target | |\n"
        "| ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    )
    reached, before = True, 0.0
    for side, bar in BARS.items():
        image = torch.rand(1, 3, side, side).contiguous(memory_format=torch.channels_last)
        plain, everywhere = (fuse(each, torch.device("cpu"), torch.float32) for each in (classifier, converted))
        crops = windows(image, converted.stride)
        slow, fast = seconds((partial(one_by_one, plain, crops), partial(everywhere, image)), arguments.rounds)
        ratio, bar = slow / fast, max(bar, before)
        print(f"| {side} | {len(crops)} | {1e3 * slow:.0f} | {1e3 * fast:.0f} | {ratio:.1f} | {bar:.1f} | ", end="")
        print("yes |" if ratio >= bar else "no |", flush=True)
        reached, before = reached and ratio >= bar, ratio
    return 0 if reached else 1


def windows(image: Tensor, stride: int) -> Tensor:
    """The windows (A, C, 224, 224) of an image (1, C, H, W)."""
    crops = image[0].unfold(1, WINDOW, stride).unfold(2, WINDOW, stride)
    return crops.permute(1, 2, 0, 3, 4).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def one_by_one(network: nn.Module, crops: Tensor) -> list[Tensor]:
    """Scores of each batch of windows."""
    return [network(batch) for batch in crops.split(BATCH)]


@torch.inference_mode()
def seconds(ways: tuple[Callable[[], object], ...], rounds: int) -> list[float]:
    """The best time of each side, after one warm-up round."""
    best = [float("inf")] * len(ways)
    for turn in range(rounds + 1):
        for index, way in enumerate(ways):
            start = time.perf_counter()
            way()
            if turn:
                best[index] = min(best[index], time.perf_counter() - start)
    return best


if __name__ == "__main__":
    raise SystemExit(main())
