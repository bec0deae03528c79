"""The network alone in hubel, compared with torchvision's in eager mode, channels-last, float32.

    python benchmarks/model_only.py [--rounds 5] [--seconds 3]

Both sides have random weights, which run at the same speed as trained ones. The plain side runs a batch of normalized
images through torchvision's network in inference mode, again and again. Ours runs a batch of uint8 pixels through
hubel's OpenVINO engine, which includes the normalization, in bfloat16 and in int8 (quantized by NNCF with random images
for its ranges). Batches follow each other without a pause. Conversion and quantization are not counted. Each
measurement runs in a process of its own, and the sides take turns. Prints images/s (medians), the ratio (the median
over the rounds) and its target.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

# Network, batch, and the minimum ratio to the plain side for each precision.
ROWS = (
    ("resnet50", 1, {"bf16": 3.3, "int8": 5.5}),
    ("mobilenet_v2", 16, {"bf16": 5.0, "int8": 10.0}),
    ("efficientnet_b0", 1, {"bf16": 3.5}),
)
SIZE = 224
CALIBRATION = 8  # random images


def main() -> int:
    """Measure; returns 1 if a target was missed."""
    arguments = _arguments()
    if arguments.side:
        print(json.dumps(_measured(arguments)))
        return 0
    print(f"torch {version('torch')}, torchvision {version('torchvision')}, openvino {version('openvino')}, ", end="")
    print(f"{os.cpu_count()} processors, {arguments.rounds} rounds of {arguments.seconds:g} s, images/s\n")
    print("| network | batch | eager fp32 | hubel | images/s | ratio | target | |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: | --- |", flush=True)
    reached = True
    with tempfile.TemporaryDirectory() as folder:
        for network, batch, bars in ROWS:
            if arguments.network in (None, network):
                _prepare(network, bars, Path(folder), arguments)
                reached = _compare(network, batch, bars, Path(folder), arguments) and reached
    return 0 if reached else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement")
    parser.add_argument("--network", choices=[row[0] for row in ROWS], help="measure only this one")
    parser.add_argument("--side", choices=("plain", "bf16", "int8", "convert"), help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _side(side: str, network: str, batch: int, folder: Path, arguments: argparse.Namespace) -> float:
    command = [sys.executable, __file__, "--side", side, "--network", network, "--batch", str(batch)]
    command += ["--folder", str(folder), "--seconds", str(arguments.seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(json.loads(done.stdout.splitlines()[-1]))


def _prepare(network: str, formats: dict[str, float], folder: Path, arguments: argparse.Namespace) -> None:
    seconds = _side("convert", network, len(formats), folder, arguments)
    print(f"{network}: converted and quantized in {seconds:.0f} s", file=sys.stderr)


def _compare(network: str, batch: int, bars: dict[str, float], folder: Path, arguments: argparse.Namespace) -> bool:
    speeds: dict[str, list[float]] = {side: [] for side in ("plain", *bars)}
    for _ in range(arguments.rounds):
        for side, found in speeds.items():
            found.append(_side(side, network, batch, folder, arguments))
    plain = statistics.median(speeds["plain"])
    reached = True
    for name, bar in bars.items():
        ratio = statistics.median(ours / theirs for ours, theirs in zip(speeds[name], speeds["plain"], strict=True))
        reached = reached and ratio >= bar
        cells = (network, batch, f"{plain:.1f}", name, f"{statistics.median(speeds[name]):.1f}", f"{ratio:.2f} ×")
        verdict = "reached" if ratio >= bar else "missed"
        print(f"| {' | '.join(map(str, cells))} | ≥ {bar:g} × | {verdict} |", flush=True)
    return reached


def _measured(arguments: argparse.Namespace) -> float:
    """Images per second; for a conversion, the seconds."""
    if arguments.side == "convert":
        return _converted(arguments.network, arguments.folder, with_int8=arguments.batch > 1)
    from hubel.inference import tune_allocator

    if arguments.side == "plain":
        return _plain(arguments.network, arguments.batch, arguments.seconds)
    tune_allocator()
    return _hubel(_ir(arguments.folder, arguments.network, arguments.side), arguments)


def _ir(folder: Path, network: str, precision: str) -> Path:
    return folder / f"{network}-{'int8' if precision == 'int8' else 'float'}.xml"


def _plain(network: str, batch: int, seconds: float) -> float:
    import torch
    import torchvision

    model = getattr(torchvision.models, network)(weights=None).eval().to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, SIZE, SIZE).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        for _ in range(3):
            model(images)
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds or done < 2:
            model(images)
            done += 1
    return batch * done / (time.perf_counter() - start)


def _hubel(path: Path, arguments: argparse.Namespace) -> float:
    import numpy as np

    from hubel.inference.engines.base import Precision
    from hubel.inference.engines.openvino import OpenVinoEngine

    engine = OpenVinoEngine(path, Precision(arguments.side))
    pixels = np.random.default_rng(0).integers(0, 256, (arguments.batch, SIZE, SIZE, 3), dtype=np.uint8)
    for _ in engine.run(itertools.repeat(pixels, 5)):
        pass
    start = time.perf_counter()

    def batches():  # type: ignore[no-untyped-def]
        while time.perf_counter() - start < arguments.seconds:
            yield pixels

    done = sum(1 for _ in engine.run(batches()))
    return arguments.batch * done / (time.perf_counter() - start)


def _converted(network: str, folder: Path, with_int8: bool) -> float:
    import numpy as np
    import torch

    from hubel.data.preprocessing import Preprocessing
    from hubel.inference.engines.openvino import openvino, to_openvino
    from hubel.models import create_model

    start = time.perf_counter()
    torch.manual_seed(0)
    model = to_openvino(create_model(network).eval(), Preprocessing(SIZE, SIZE))
    openvino().save_model(model, _ir(folder, network, "bf16"), compress_to_fp16=False)
    if with_int8:
        import nncf

        generator = np.random.default_rng(0)
        calibration = [generator.integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8) for _ in range(CALIBRATION)]
        quantized = nncf.quantize(model, nncf.Dataset(calibration), subset_size=CALIBRATION)
        openvino().save_model(quantized, _ir(folder, network, "int8"), compress_to_fp16=False)
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
