"""From image files to PNG files with the class of every pixel, compared with the eager loop that people write.

    HUBEL_DATA=... python benchmarks/segmentation_speed.py [FOLDER] [--rounds 3] [--images 101] [--network NAME]

The eager loop, image by image: PIL opens and converts, torchvision's ToTensor and Normalize, the network in float32,
bilinear interpolation of its scores, argmax, PIL saves. Ours is ``hubel.Predictor`` on OpenVINO with ``save_mask``, in
the precision that it chooses and in float32. Both sides have the same random weights (``fcn_resnet50`` and
``lraspp_mobilenet_v3_large`` are torchvision's on the eager side, ``deeplabv3plus`` is hubel's own module) and the same
input: the images at their own size, 480 × 360 in CamVid. Each measurement runs in a process of its own, and the sides
take turns. Loading and the conversion, which happens once, are not counted. Prints medians of wall and of processor
milliseconds of an image; the ratios of both, each the median over the rounds; and the fraction of the pixels that have
the same class on both sides, which random weights make small in bfloat16.

On a busy machine the ratio of processor time counts; ``--threads`` is for both sides.

Two more rows: milliseconds to write masks of CamVid as PNG, compared with those to decode its images; and seconds to
count the confusion of 1,000 masks of 2048 × 1024 pixels with 19 classes, as Cityscapes has them.
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
from importlib.metadata import version
from pathlib import Path
from typing import Any

NETWORKS = ("deeplabv3plus", "fcn_resnet50", "lraspp_mobilenet_v3_large")
SIDES = ("eager", "auto", "fp32")
CLASSES = 21
BAR = 3.0  # times the eager loop
ACCUMULATED, LONGEST = 1000, 10.0  # masks, seconds
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def main() -> int:
    """Measure; returns 1 if a target was missed."""
    arguments = _arguments()
    files = sorted((arguments.folder / "images").iterdir())[: arguments.images]
    if arguments.side:
        measured = _eager if arguments.side == "eager" else _hubel
        print(json.dumps(measured(arguments, files)))
        return 0
    print(f"torch {version('torch')}, openvino {version('openvino')}, {os.cpu_count()} processors, ", end="")
    print(f"{len(files)} images, {arguments.rounds} rounds\n")
    print("| network | side | ms | processor ms | ratio | of processor time | same pixels | target | |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |", flush=True)
    reached = True
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HUBEL_CACHE"] = folder  # nobody needs conversions of random weights again
        for network in (arguments.network,) if arguments.network else NETWORKS:
            reached = _compare(network, Path(folder), arguments) and reached
        masks = sorted((arguments.folder / "masks").iterdir())[: arguments.images]
        reached = _writing(files, masks, Path(folder)) and reached
    return 0 if _accumulating() and reached else 1


def _arguments() -> argparse.Namespace:
    data = os.environ.get("HUBEL_DATA")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(data, "camvid", "val") if data else None
    parser.add_argument("folder", nargs="?", type=Path, default=default, help="with images/ and masks/")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=101)
    parser.add_argument("--network", choices=NETWORKS, help="measure only this one")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("name a folder of images and masks, or set HUBEL_DATA")
    return arguments


def _compare(network: str, work: Path, arguments: argparse.Namespace) -> bool:
    command = [sys.executable, __file__, str(arguments.folder), "--images", str(arguments.images)]
    command += ["--network", network, "--threads", str(arguments.threads), "--work", str(work)]
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side, rows in runs.items():
            output = subprocess.run([*command, "--side", side], stdout=subprocess.PIPE, text=True, check=True).stdout
            rows.append(json.loads(output))
    reached = True
    for side, rows in runs.items():
        wall, processor = (statistics.median(row[name] for row in rows) for name in ("wall", "processor"))
        print(f"| {network} | {rows[0]['how']} | {wall:.1f} | {processor:.1f} |", end=" ")
        if side == "eager":
            print("| | | | |", flush=True)
            continue
        ratios = [
            statistics.median(eager[name] / ours[name] for eager, ours in zip(runs["eager"], rows, strict=True))
            for name in ("wall", "processor")
        ]
        same = _same_pixels(work / network / "eager", work / network / side)
        enough = max(ratios) >= BAR
        target = f"{BAR:.1f} | {'yes' if enough else 'no'}" if side == "auto" else "|"
        print(f"{ratios[0]:.2f} | {ratios[1]:.2f} | {same:.2%} | {target} |", flush=True)
        reached = reached and (enough or side != "auto")
    return reached


def _same_pixels(one: Path, other: Path) -> float:
    import numpy as np
    from PIL import Image

    equal = [np.asarray(Image.open(path)) == np.asarray(Image.open(other / path.name)) for path in one.glob("*.png")]
    return float(np.mean(equal))


def _weights(network: str, work: Path) -> Any:
    """A module whose ``forward`` gives scores, as people have it, with weights that both sides share."""
    import torch

    torch.manual_seed(0)
    if network == "deeplabv3plus":
        from hubel.models import create_model

        model = create_model(network, num_classes=CLASSES, backbone="efficientnet_lite0:default")
    else:
        from torchvision.models import segmentation

        model = getattr(segmentation, network)(weights=None, weights_backbone=None, num_classes=CLASSES)
    path = work / network / "weights.pth"
    if not path.exists():
        path.parent.mkdir()
        torch.save(model.state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def _timed(run: Callable[[], object], images: int) -> dict[str, float]:
    """Milliseconds of an image; processor time is that of all threads."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    seconds = {"processor": time.process_time() - processor, "wall": time.perf_counter() - wall}
    return {name: 1e3 * value / images for name, value in seconds.items()}


def _eager(arguments: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    import numpy as np
    import torch
    from PIL import Image
    from torch.nn import functional
    from torchvision import transforms

    torch.set_num_threads(arguments.threads)
    model = _weights(arguments.network, arguments.work)
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    folder = arguments.work / arguments.network / "eager"
    folder.mkdir(exist_ok=True)

    @torch.inference_mode()
    def run(paths: list[Path]) -> None:
        for path in paths:
            image = prepare(Image.open(path).convert("RGB"))[None]
            outputs = model(image)
            scores = outputs["out"] if isinstance(outputs, dict) else outputs
            scores = functional.interpolate(scores, image.shape[2:], mode="bilinear", align_corners=False)
            mask = scores[0].argmax(0).numpy().astype(np.uint8)
            Image.fromarray(mask).save(folder / f"{path.stem}.png")

    run(files[:2])
    return {"how": "eager fp32", **_timed(lambda: run(files), len(files))}


def _hubel(arguments: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    from hubel import Predictor
    from hubel.inference import tune_allocator

    tune_allocator()
    saved = arguments.work / arguments.network / "model"
    if not saved.is_dir():
        _save(arguments, files, saved)
    predict = Predictor(saved, engine="openvino", precision=arguments.side, threads=arguments.threads)
    engine = predict.engine_for(len(files))  # converts unless a conversion is cached
    folder = arguments.work / arguments.network / arguments.side
    folder.mkdir(exist_ok=True)

    def run(paths: list[Path]) -> None:
        for result in predict(paths):
            result.save_mask(folder / f"{Path(result.source).stem}.png")

    run(files[:2])
    return {"how": f"hubel {engine.precision.name}", **_timed(lambda: run(files), len(files))}


def _save(arguments: argparse.Namespace, files: list[Path], folder: Path) -> None:
    """The weights as hubel's own files, with an input of the images' size."""
    from dataclasses import replace

    from PIL import Image

    from hubel.models import create_model, default_preprocessing, describe, save_model

    theirs = _weights(arguments.network, arguments.work)
    if arguments.network == "deeplabv3plus":
        model = theirs
    else:
        model = create_model(arguments.network, CLASSES, weights=arguments.work / arguments.network / "weights.pth")
    width, height = Image.open(files[0]).size
    mean, std = (tuple(255 * value for value in values) for values in (MEAN, STD))
    size = replace(
        default_preprocessing(arguments.network), height=height, width=width, mean=mean, std=std, resize="stretch"
    )
    save_model(folder, model, replace(describe(model), preprocessing=size))


def _writing(files: list[Path], masks: list[Path], folder: Path) -> bool:
    """Milliseconds to write masks, and to decode images, in one thread; each the best of three times in turns."""
    import numpy as np
    from PIL import Image

    from hubel.data.image_io import read_image
    from hubel.results import SegmentationMap

    maps = [np.asarray(Image.open(path)) for path in masks]
    found = [SegmentationMap(None, each.shape[1], each.shape[0], each, ("",)) for each in maps]

    def write() -> None:
        for number, each in enumerate(found):
            each.save_mask(folder / f"{number}.png")

    def decode() -> None:
        for path in files:
            read_image(path).load()

    best: dict[str, dict[str, float]] = {}
    for _ in range(3):
        for name, way in {"write": write, "decode": decode}.items():
            spent = _timed(way, len(files))
            best[name] = {kind: min(value, best.get(name, spent)[kind]) for kind, value in spent.items()}
    reached = best["write"]["processor"] <= best["decode"]["processor"]
    print(f"\nwriting a mask: {best['write']['processor']:.2f} ms of processor time ", end="")
    print(f"({best['write']['wall']:.2f} ms), decoding its image: {best['decode']['processor']:.2f} ms ", end="")
    print(f"({best['decode']['wall']:.2f} ms); target: not longer, {'yes' if reached else 'no'}", flush=True)
    return reached


def _accumulating() -> bool:
    """Seconds of processor time to count the confusion of large masks."""
    import numpy as np

    from hubel.metrics.segmentation import combine, pixel_confusion

    generator = np.random.default_rng(0)
    blocks = [generator.choice([*range(19), 255], (32, 64)).astype(np.uint8) for _ in range(8)]
    truths = [np.kron(each, np.ones((32, 32), np.uint8)) for each in blocks]
    found = [np.roll(np.minimum(each, 18), 5, 1) for each in truths]
    start = time.process_time()
    pairs = ((truths[number % 8], found[number % 8]) for number in range(ACCUMULATED))
    scores = combine([pixel_confusion(truth, each, 19) for truth, each in pairs], [str(index) for index in range(19)])
    seconds = time.process_time() - start
    reached = seconds < LONGEST
    print(f"confusion of {ACCUMULATED} masks of 2048 × 1024, 19 classes (mean IoU {scores.mean_iou:.3f}): ", end="")
    print(f"{seconds:.1f} s of processor time; target: below {LONGEST:.0f} s, {'yes' if reached else 'no'}")
    return reached


if __name__ == "__main__":
    raise SystemExit(main())
