"""Networks in OpenVINO with its own choice of convolution kernels, and with those for channels in blocks of eight.

    python benchmarks/convolution_kernels.py resnet50 efficientnet_lite0 [--rounds 5] [--seconds 1]

Float32, random weights, images of the network's size, as many requests as the processor has streams, and one more. Both
take turns in one process. Prints images/s (medians), the median ratio, the greatest difference of the scores, and
whether hubel would choose the second; and the multiply-accumulates per second of each as a fraction of the peak that
the processor reaches (``hubel bench`` measures it in the same way). With AVX-512, or on ARM, both are the same kernels.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import numpy as np


def main() -> None:
    """Measure each network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["resnet50", "efficientnet_lite0"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each measurement")
    arguments = parser.parse_args()
    from hubel.benchmark.hardware_peaks import measure_limits
    from hubel.inference import tune_allocator
    from hubel.inference.engines.convolution_kernels import blocked_pays
    from hubel.inference.engines.openvino import core

    tune_allocator()
    peaks = [measure_limits(None, 0.5) for _ in range(2)]
    peak = max(limits.macs_per_second["fp32"] for limits in peaks)
    bandwidth = max(limits.bytes_per_second for limits in peaks)
    print(f"{peaks[0].threads} threads: {peak / 1e9:.1f} GMAC/s in float32, {bandwidth / 1e9:.1f} GB/s")
    print(f"hubel chooses blocks of eight: {blocked_pays(core())}", flush=True)
    for name in arguments.networks:
        _compare(name, peak, arguments)


def _compare(name: str, peak: float, arguments: argparse.Namespace) -> None:
    import torch

    from hubel.analysis.roofline import cost
    from hubel.inference.engines.convolution_kernels import prefer_blocked
    from hubel.inference.engines.openvino import core, to_openvino
    from hubel.models import create_model, describe

    torch.manual_seed(0)
    network = create_model(name).eval()
    preprocessing = describe(network).preprocessing
    size = preprocessing.height, preprocessing.width, preprocessing.channels
    macs = cost(network, (size[2], *size[:2])).macs
    model = to_openvino(network, preprocessing)
    model.reshape([1, *size])
    pixels = np.random.default_rng(0).integers(0, 256, (1, *size), dtype=np.uint8)
    sides = []
    for blocked in (False, True):
        if blocked:
            prefer_blocked(core(), model)
        options = {"PERFORMANCE_HINT": "THROUGHPUT", "ENABLE_CPU_PINNING": False}
        sides.append(core().compile_model(model, "CPU", options))
    first, second = (side([pixels]) for side in sides)
    difference = max(float(np.abs(first[i] - second[i]).max()) for i in range(len(sides[0].outputs)))
    speeds: list[list[float]] = [[], []]
    for _ in range(arguments.rounds):
        for side, found in zip(sides, speeds, strict=True):
            found.append(_images_per_second(side, pixels, arguments.seconds))
    usual, blocks = map(statistics.median, speeds)
    ratio = statistics.median(b / a for a, b in zip(*speeds, strict=True))
    print(
        f"{name}: {usual:.1f} and {blocks:.1f} images/s, ratio {ratio:.2f}, {usual * macs / peak:.0%} and "
        f"{blocks * macs / peak:.0%} of the peak, scores differ by {difference:.1e} at most",
        flush=True,
    )


def _images_per_second(compiled: Any, pixels: np.ndarray, seconds: float) -> float:
    requests = [compiled.create_infer_request() for _ in range(_streams(compiled) + 1)]
    for request in requests:
        request.start_async([pixels])
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for request in requests:
            request.wait()
            request.start_async()
            done += 1
    speed = done / (time.perf_counter() - start)
    for request in requests:
        request.wait()
    return speed


def _streams(compiled: Any) -> int:
    return int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))


if __name__ == "__main__":
    main()
