"""From photographs' files to objects, one at a time: two-stage detectors in hubel compared with torchvision's own.

    HUBEL_DATA=... python benchmarks/two_stage_speed.py [MODEL …] [--rounds 3] [--images 20]

The photographs are those of 640 × 480 pixels in coco128. Both sides have the same random weights: torchvision's network
of 91 classes, with its normalizations frozen, as for its published weights, at the statistics of four of the
photographs, and with the last layers scaled and shifted so that objects are told apart: a fifth of the regions that the
first stage proposes has a score of 0.05 for a class. Both sides keep objects from there, and suppress at an IoU of 0.5.

torchvision: Pillow opens, ``to_tensor``, its own detector, eager, in float32 and under ``torch.autocast`` in bfloat16;
of Mask R-CNN the masks are pasted as there and compared with 0.5. It scales a photograph to 800 pixels (320) along its
shorter side. hubel: ``hubel.Predictor`` on OpenVINO with its own choice of the precision, and in float32; it scales
to its square input.

Each measurement runs in a process of its own and the sides take turns. Loading and converting are not counted, nor is
the first image. A figure is the processor time (all threads, user and system) of an image, which other work on the
machine changes less than the wall-clock time; a ratio is the median over the rounds. Exits with 1 if hubel's own choice
takes more than half of the processor time of torchvision's faster side.
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

MODELS = ("fasterrcnn_mobilenet_v3_large_320_fpn", "fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn")
SIDES = ("torchvision float32", "torchvision bfloat16", "hubel auto", "hubel fp32")
TARGET = 2.0
SIZE = (640, 480)
CONF, IOU = 0.05, 0.5
SHARE = 0.2  # of the regions that have a score of CONF for a class


def main() -> int:
    """Measure; returns 1 if the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HUBEL_DATA", ".")))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=20, help="in each measurement")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--weights", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        library, how = arguments.side.split()
        detector = _torchvision if library == "torchvision" else _hubel
        print(json.dumps(_measured(*detector(arguments.models[0], how, arguments), arguments)))
        return 0
    missed = False
    print("| | processor | wall clock | as fast as torchvision float32 | bfloat16 | objects | in |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | --- |")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("HUBEL_CACHE", str(Path(folder, "cache")))
        for model in arguments.models or MODELS:
            arguments.weights = Path(folder, f"{model}.pth")
            _write_weights(model, arguments)
            missed = not _compare(model, arguments) or missed
    return int(missed)


def _compare(model: str, arguments: argparse.Namespace) -> bool:
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    for _ in range(arguments.rounds):
        for side, found in runs.items():
            found.append(_in_process(model, side, arguments))

    def ratio(theirs: str, side: str, key: str = "cpu") -> float:
        pairs = zip(runs[theirs], runs[side], strict=True)
        return statistics.median(other[key] / own[key] for other, own in pairs)

    for side, found in runs.items():
        cpu, wall = (statistics.median(run[key] for run in found) for key in ("cpu", "seconds"))
        ratios = [f"{ratio(theirs, side):.2f} (wall {ratio(theirs, side, 'seconds'):.2f})" for theirs in SIDES[:2]]
        row = [f"{model}, {side}", f"{1000 * cpu:.0f} ms", f"{1000 * wall:.0f} ms", *ratios, f"{found[0]['objects']}"]
        print(f"| {' | '.join(row)} | {found[0]['how']} |", flush=True)
    return min(ratio(theirs, SIDES[2]) for theirs in SIDES[:2]) >= TARGET


def _in_process(model: str, side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    options = {name: getattr(arguments, name) for name in ("data", "images", "threads", "weights")}
    command = [sys.executable, __file__, model, "--side", side]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _measured(detect: Callable[[str], int], how: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Seconds an image, and how many objects were found in all."""
    files = _photographs(arguments)
    detect(files[-1])
    start, cpu = time.perf_counter(), time.process_time()
    objects = sum(map(detect, files))
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    return {"seconds": seconds / len(files), "cpu": cpu / len(files), "objects": objects, "how": how}


def _photographs(arguments: argparse.Namespace) -> list[str]:
    from PIL import Image

    files = sorted(map(str, (arguments.data / "coco128").rglob("*.jpg")))
    fitting = [file for file in files if Image.open(file).size == SIZE]
    return (fitting * (arguments.images // len(fitting) + 1))[: arguments.images]


def _torchvision(model: str, how: str, arguments: argparse.Namespace) -> tuple[Callable[[str], int], str]:
    import torch
    from PIL import Image
    from torchvision.transforms.functional import to_tensor

    torch.set_num_threads(arguments.threads)
    network = _network(model)
    network.load_state_dict(torch.load(arguments.weights, weights_only=True))
    network.eval()

    def detect(file: str) -> int:
        lower = torch.autocast("cpu", torch.bfloat16, enabled=how == "bfloat16")
        with torch.inference_mode(), lower:
            (found,) = network([to_tensor(Image.open(file).convert("RGB"))])
        if "masks" in found:
            found["masks"] = found["masks"] > 0.5
        return len(found["boxes"])

    return detect, how


def _hubel(model: str, how: str, arguments: argparse.Namespace) -> tuple[Callable[[str], int], str]:
    from hubel.inference import Predictor, tune_allocator
    from hubel.models import create_model, describe, save_model

    tune_allocator()
    folder = arguments.weights.with_suffix("")
    if not folder.exists():
        ours = create_model(model, weights=arguments.weights)
        save_model(folder, ours, describe(ours))
    options: dict[str, Any] = {"engine": "openvino", "threads": arguments.threads, "precision": how}
    predictor = Predictor(folder, conf=CONF, iou=IOU, **options)

    def detect(file: str) -> int:
        (found,) = predictor([file])
        return len(found.boxes)

    return detect, predictor.engine_for(1).precision.name


def _network(model: str) -> Any:
    """torchvision's, with normalizations as for its published weights: frozen."""
    from torch import nn
    from torchvision.models import detection
    from torchvision.ops import FrozenBatchNorm2d

    network = getattr(detection, model)(weights=None, weights_backbone=None)
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, FrozenBatchNorm2d(child.num_features, eps=child.eps))
    return network


def _write_weights(model: str, arguments: argparse.Namespace) -> None:
    """Random ones that tell the regions of photographs apart, as it is described above."""
    import torch
    from PIL import Image
    from torch import Tensor, nn
    from torchvision.ops import FrozenBatchNorm2d
    from torchvision.transforms.functional import to_tensor

    torch.manual_seed(0)
    network = _network(model).eval().requires_grad_(False)

    def normalize(layer: FrozenBatchNorm2d, inputs: tuple[Tensor]) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3))
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)

    def spread(layer: nn.Module, outputs: Tensor) -> None:
        """At the first call only: layers of the first stage are called for each level."""
        if deviation := deviations.pop(layer, None):
            layer.weight *= deviation / outputs.std()
            layer.bias -= outputs.mean() * deviation / outputs.std()

    def background(layer: nn.Module, outputs: Tensor) -> None:
        """The score of background by which the stated share of regions has a class of CONF or more."""
        scores = outputs[:, 1:].double().exp()
        least = scores.max(1).values / CONF - scores.sum(1)
        layer.bias[0] += least.quantile(1 - SHARE).log() - outputs[:, 0].mean()

    heads = network.roi_heads
    deviations = {network.rpn.head.cls_logits: 2.0, network.rpn.head.bbox_pred: 0.3}
    deviations |= {heads.box_predictor.cls_score: 2.0, heads.box_predictor.bbox_pred: 1.0}
    if heads.has_mask():
        deviations[heads.mask_predictor.mask_fcn_logits] = 2.0

    def adjust(layer: nn.Module, inputs: tuple[Tensor], outputs: Tensor) -> Tensor:
        spread(layer, outputs)
        if layer is heads.box_predictor.cls_score:
            background(layer, layer.forward(inputs[0]))
        return layer.forward(inputs[0])

    for layer in network.modules():
        if isinstance(layer, FrozenBatchNorm2d):
            layer.register_forward_pre_hook(normalize)
        elif layer in deviations:
            layer.register_forward_hook(adjust)
    with torch.no_grad():
        network([to_tensor(Image.open(file).convert("RGB")) for file in _photographs(arguments)[:4]])
    torch.save(network.state_dict(), arguments.weights)


if __name__ == "__main__":
    sys.exit(main())
