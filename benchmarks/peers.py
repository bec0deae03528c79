"""hubel and other libraries, each used as its documentation recommends: the network alone, and files to predictions.

    HUBEL_DATA=... python benchmarks/peers.py [FOLDER] [--networks resnet50] [--rounds 3]

============  =======================================================  =============================================
side          the network alone                                        from files
============  =======================================================  =============================================
hubel         ``Predictor``, its choice of engine and precision        ``Predictor``
torchvision   eager, channels-last, float32                            its transforms in a DataLoader
timm          eager, float32                                           ``create_transform`` in a DataLoader
keras         ``keras.applications`` on torch, ``predict_on_batch``    ``load_img``, ``preprocess_input``
letterbox     torchvision's network, batch normalization folded        as in detectors' loaders: one by one in the
                                                                       same process, whole image letterboxed
============  =======================================================  =============================================

All with random weights, batches of 16 images of 224 × 224, all threads; DataLoaders with two workers. The last side
imitates the prediction loaders of common detectors, written here from scratch: an image is read, resized with plain
bilinear interpolation until its longer side fits, padded with grey 114, and divided by 255.
Loading, building and hubel's conversion are not counted; a first batch warms up. Each measurement runs in a process of
its own and the sides take turns; images/s are medians, ratios are hubel's over the other's, the median over the rounds.
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
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

NETWORKS = ("resnet50", "mobilenet_v2", "efficientnet_b0")
SIDES = ("hubel", "torchvision", "timm", "keras", "letterbox")
PARTS = ("network", "files")
IN_TIMM = {"mobilenet_v2": "mobilenetv2_100"}
IN_KERAS = {"resnet50": "ResNet50", "mobilenet_v2": "MobileNetV2", "efficientnet_b0": "EfficientNetB0"}
SIZE, BATCH, WORKERS = 224, 16, 2


def main() -> None:
    """Compare, and print a table for each part."""
    arguments = _arguments()
    if arguments.side:
        print(json.dumps(_measured(arguments)))
        return
    files = _files(arguments)
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm", "keras", "openvino")))
    print(f"{len(files)} JPEG files of {arguments.folder}, batches of {BATCH}, {os.cpu_count()} processors, ", end="")
    print(f"{arguments.rounds} rounds")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HUBEL_CACHE"] = str(Path(folder, "cache"))
        for network in arguments.networks:
            _save(network, Path(folder, network))
        for part in arguments.parts:
            print(f"\n{part}, images/s (hubel's ratio to it)\n\n| network | {' | '.join(arguments.sides)} |")
            print(f"| --- |{' ---: |' * len(arguments.sides)}", flush=True)
            for network in arguments.networks:
                print(_row(network, part, Path(folder, network), arguments), flush=True)


def _arguments() -> argparse.Namespace:
    data = os.environ.get("HUBEL_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(data, "flowers5", "val") if data else None)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each measurement of a network alone")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("name a folder of JPEG files, or set HUBEL_DATA")
    return arguments


def _files(arguments: argparse.Namespace) -> list[Path]:
    found = sorted(path for path in arguments.folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    return found[: arguments.images]


def _save(network: str, folder: Path) -> None:
    """Save a model of random weights; in a folder, so that hubel caches its conversion."""
    import torch

    from hubel.models import create_model, describe, save_model

    torch.manual_seed(0)
    model = create_model(network)
    save_model(folder, model, describe(model))


def _row(network: str, part: str, model: Path, arguments: argparse.Namespace) -> str:
    speeds: dict[str, list[float]] = {side: [] for side in arguments.sides}
    for _ in range(arguments.rounds):
        for side, found in speeds.items():
            command = [sys.executable, __file__, str(arguments.folder), "--images", str(arguments.images)]
            command += ["--seconds", str(arguments.seconds), "--networks", network, "--model", str(model)]
            # The libraries' messages while loading do not belong in the table.
            done = subprocess.run(
                [*command, "--side", side, "--part", part], stdout=subprocess.PIPE, text=True, check=True
            )
            found.append(float(json.loads(done.stdout.splitlines()[-1])))
    cells = []
    for side, found in speeds.items():
        cell = f"{statistics.median(found):.1f}"
        if side != "hubel" and "hubel" in speeds:
            ratios = [ours / theirs for ours, theirs in zip(speeds["hubel"], found, strict=True)]
            cell += f" ({statistics.median(ratios):.1f} ×)"
        cells.append(cell)
    return f"| {network} | {' | '.join(cells)} |"


def _measured(arguments: argparse.Namespace) -> float:
    """Images per second of one side in this process."""
    (network,) = arguments.networks
    side: Callable[[str, Path], tuple[Callable[[], Any], Callable[[list[Path]], Iterable[int]]]] = {
        "hubel": _hubel,
        "torchvision": _torchvision,
        "timm": _timm,
        "keras": _keras,
        "letterbox": _letterbox,
    }[arguments.side]
    run, classify = side(network, arguments.model)
    if arguments.part == "network":
        return _repeated(run, arguments.seconds)
    files = _files(arguments)
    sum(classify(files[:BATCH]))
    start = time.perf_counter()
    count = sum(classify(files))
    return count / (time.perf_counter() - start)


def _repeated(run: Callable[[], Any], seconds: float) -> float:
    for _ in range(3):
        run()
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds or done < 2:
        run()
        done += 1
    return BATCH * done / (time.perf_counter() - start)


# Each side is a function that runs its network once with a batch, and one that yields the number of files that it has
# predicted so far.


def _hubel(network: str, model: Path) -> tuple[Any, Any]:
    import numpy as np

    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    predict = Predictor(model)
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH, SIZE, SIZE, 3), dtype=np.uint8)
    engine = predict.engine_for(10 * BATCH)
    print(f"hubel: {engine.name} {engine.precision.name}", file=sys.stderr)
    outputs = engine.run(itertools.repeat(pixels))
    return lambda: next(outputs), lambda files: (1 for _ in predict(files))


def _torchvision(network: str, model: Path) -> tuple[Any, Any]:
    import torch
    import torchvision
    from torchvision import transforms

    net = getattr(torchvision.models, network)(weights=None).eval().to(memory_format=torch.channels_last)
    steps = [transforms.Resize(256), transforms.CenterCrop(SIZE), transforms.ToTensor()]
    steps.append(transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return _with_torch(net, transforms.Compose(steps), torch.channels_last, WORKERS)


def _timm(network: str, model: Path) -> tuple[Any, Any]:
    import timm
    import torch

    net = timm.create_model(IN_TIMM.get(network, network)).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(net))
    return _with_torch(net, transform, torch.contiguous_format, WORKERS)


def _letterbox(network: str, model: Path) -> tuple[Any, Any]:
    import torch
    import torchvision
    from torch.fx.experimental.optimization import fuse
    from torch.nn import functional

    def prepare(image: Any) -> torch.Tensor:
        pixels = torchvision.transforms.functional.pil_to_tensor(image)
        height, width = pixels.shape[1:]
        scale = SIZE / max(height, width)
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        scaled = functional.interpolate(pixels[None], size, mode="bilinear", antialias=False)[0]
        rows, columns = SIZE - size[0], SIZE - size[1]
        sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        return functional.pad(scaled, sides, value=114).float() / 255

    net = fuse(getattr(torchvision.models, network)(weights=None).eval())
    return _with_torch(net, prepare, torch.contiguous_format, workers=0)


class Images:
    """What a DataLoader asks for images; at the top of the file, where other processes find it."""

    def __init__(self, files: list[Path], transform: Callable[[Any], Any]) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Any:
        from PIL import Image

        with Image.open(self.files[index]) as image:
            return self.transform(image.convert("RGB"))


def _with_torch(network: Any, transform: Any, layout: Any, workers: int) -> tuple[Any, Any]:
    import torch

    images = torch.rand(BATCH, 3, SIZE, SIZE).to(memory_format=layout)

    def run() -> Any:
        with torch.inference_mode():
            return network(images)

    def classify(files: list[Path]) -> Iterable[int]:
        with torch.inference_mode():
            for batch in torch.utils.data.DataLoader(Images(files, transform), BATCH, num_workers=workers):
                yield len(network(batch.to(memory_format=layout)).softmax(1).argmax(1))

    return run, classify


def _keras(network: str, model: Path) -> tuple[Any, Any]:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import numpy as np

    name = IN_KERAS[network]
    net = getattr(keras.applications, name)(weights=None)
    family = {"ResNet50": "resnet", "MobileNetV2": "mobilenet_v2", "EfficientNetB0": "efficientnet"}[name]
    preprocess = getattr(keras.applications, family).preprocess_input
    images = np.random.default_rng(0).random((BATCH, SIZE, SIZE, 3), dtype=np.float32)

    def classify(files: list[Path]) -> Iterable[int]:
        for first in range(0, len(files), BATCH):
            part = files[first : first + BATCH]
            loaded = [keras.utils.load_img(path, target_size=(SIZE, SIZE)) for path in part]
            batch = preprocess(np.stack([keras.utils.img_to_array(image) for image in loaded]))
            yield len(net.predict_on_batch(batch).argmax(1))

    return lambda: net.predict_on_batch(images), classify


if __name__ == "__main__":
    main()
