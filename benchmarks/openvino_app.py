"""hubel's OpenVINO engine compared with OpenVINO's own ``benchmark_app`` on the same IR.

    python benchmarks/openvino_app.py [--rounds 5] [--seconds 5]

Each network is converted once, with random weights, and saved. Then the two take turns, each in a process of its own:
``benchmark_app`` with the hint throughput, or latency, in the given precision, on all threads, and our engine with many
images, or with one at a time. ``benchmark_app`` fills its inputs once and reads no outputs; ours copies an image in and
the scores out each time. Prints images/s (medians) and the median ratio; the target is 0.95.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0")
PRECISIONS = {"fp32": "f32", "bf16": "bf16"}
HINTS = ("throughput", "latency")
SIZE = 224
BAR = 0.95
# The wheel's console script, without the telemetry package.
APP = "import sys; sys.modules['openvino_telemetry'] = None; from openvino.tools.benchmark.main import main; main()"


def main() -> int:
    """Measure; returns 1 if a ratio is below the target."""
    arguments = _arguments()
    if arguments.hint:
        print(json.dumps(_ours(arguments)))
        return 0
    print(f"openvino {version('openvino')}, {os.cpu_count()} processors, ", end="")
    print(f"{arguments.rounds} rounds of {arguments.seconds} s, images/s\n")
    print("| network | precision | for | benchmark_app | hubel | ratio | |")
    print("| --- | --- | --- | ---: | ---: | ---: | --- |", flush=True)
    reached = True
    with tempfile.TemporaryDirectory() as folder:
        for network in arguments.networks:
            path = Path(folder, f"{network}.xml")
            _convert(network, path)
            for precision in arguments.precision or PRECISIONS:
                for hint in HINTS:
                    reached = _compare(network, path, precision, hint, arguments) and reached
    return 0 if reached else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=NETWORKS, metavar="NETWORK")
    parser.add_argument("--precision", choices=PRECISIONS, action="append", help="measure only this one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=5, help="for each measurement; an integer")
    parser.add_argument("--hint", choices=HINTS, help=argparse.SUPPRESS)
    parser.add_argument("--ir", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _convert(network: str, path: Path) -> None:
    import torch

    from hubel.data.preprocessing import Preprocessing
    from hubel.inference.engines.openvino import openvino, to_openvino
    from hubel.models import create_model

    torch.manual_seed(0)
    converted = to_openvino(create_model(network).eval(), Preprocessing(SIZE, SIZE))
    openvino().save_model(converted, path, compress_to_fp16=False)


def _compare(network: str, path: Path, precision: str, hint: str, arguments: argparse.Namespace) -> bool:
    theirs, ours = [], []
    for _ in range(arguments.rounds):
        theirs.append(_app(path, precision, hint, arguments.seconds))
        command = [sys.executable, __file__, "--ir", str(path), "--precision", precision, "--hint", hint]
        command += ["--seconds", str(arguments.seconds)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        ours.append(float(json.loads(done.stdout.splitlines()[-1])))
    ratio = statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))
    cells = (network, precision, hint, f"{statistics.median(theirs):.1f}", f"{statistics.median(ours):.1f}")
    print(f"| {' | '.join(cells)} | {ratio:.3f} | {'reached' if ratio >= BAR else 'missed'} |", flush=True)
    return ratio >= BAR


def _app(path: Path, precision: str, hint: str, seconds: int) -> float:
    """Frames per second, as printed by benchmark_app."""
    options = f"-d CPU -hint {hint} -infer_precision {PRECISIONS[precision]} -t {seconds}".split()
    command = [sys.executable, "-c", APP, "-m", str(path), *options, "-shape", f"[1,{SIZE},{SIZE},3]"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = re.search(r"Throughput:\s+([\d.]+) FPS", done.stdout)
    if done.returncode or found is None:
        sys.exit(f"benchmark_app failed:\n{done.stdout[-2000:]}")
    return float(found[1])


def _ours(arguments: argparse.Namespace) -> float:
    import numpy as np

    from hubel.inference.engines.base import Precision
    from hubel.inference.engines.openvino import OpenVinoEngine

    (precision,) = arguments.precision
    many = arguments.hint == "throughput"
    engine = OpenVinoEngine(arguments.ir, Precision(precision), many=many)
    pixels = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), dtype=np.uint8)
    for _ in engine.run(itertools.repeat(pixels, 10)):
        pass
    done, start = 0, time.perf_counter()
    if many:

        def images():  # type: ignore[no-untyped-def]
            while time.perf_counter() - start < arguments.seconds:
                yield pixels

        done = sum(1 for _ in engine.run(images()))
    else:
        while time.perf_counter() - start < arguments.seconds:
            done += sum(1 for _ in engine.run([pixels]))
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
