"""Files to boxes, and videos to annotated videos: hubel on OpenVINO compared with OpenCV's ``dnn`` and torchvision.

    HUBEL_DATA=... HUBEL_OPENCV4=FOLDER python benchmarks/detector_peers.py [CASE …] [--rounds 3] [--avx2]

Photographs are the 35 of 640 × 480 pixels in coco128, each several times. ``yolo_v4_tiny`` (random weights) and
``yolo-fastest-1.1`` (its author's, of HUBEL_DATA): OpenCV reads the same ``.cfg`` and ``.weights``, its
``DetectionModel`` scales, decodes and suppresses. ``ssdlite320_mobilenet_v3_large`` (random weights, the same on both
sides): torchvision's own detector, eager, on tensors that Pillow decoded. Both sides keep boxes from a score of 0.25
and suppress at an IoU of 0.45. ``video``: ``vtest.avi`` (768 × 576) with ``yolo-fastest-1.1-xl``: read, detect, draw,
write an MP4; OpenCV writes its ``mp4v``, hubel H.264.

Each measurement runs in a process of its own and the sides take turns. Loading and converting are not counted. A figure
is the processor time (all threads, user and system) of an image, which other work on the machine changes less than the
wall-clock time; its ratio is the median over the rounds. OpenCV 4 reads Darknet's files, OpenCV 5 does not:

    pip install --target FOLDER opencv-python-headless==4.14.0.94

``--avx2`` takes AVX-512 and bfloat16 away from both sides. Exits with 1 if a target is missed.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

SIZE = (640, 480)
CONF, IOU = 0.25, 0.45
FASTEST = Path("yolo_fastest", "yolo-fastest-1.1_coco")
VIDEO = Path("mot", "PETS09-S2L1", "vtest.avi")
AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX512-CNL,AVX512-CLX,AVX512-ICL",
}


class Case(NamedTuple):
    """Who the other side is, and how many times as fast hubel has to be, or how many frames a second."""

    peer: str
    target: float


CASES = {
    "yolo_v4_tiny": Case("opencv", 2),
    "yolo-fastest-1.1": Case("opencv", 2),
    "ssdlite320_mobilenet_v3_large": Case("torchvision", 4),
    "video": Case("opencv-video", 30),
}


def main() -> int:
    """Measure; returns 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HUBEL_DATA", ".")))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=200, help="in each measurement, or frames")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--avx2", action="store_true")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--models", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(SIDES[arguments.side](arguments.cases[0], arguments)))
        return 0
    if arguments.avx2:
        os.environ.update(AVX2)
    missed = False
    print("| | other | hubel | ratio | wall-clock ratio | boxes | |\n| --- | ---: | ---: | ---: | ---: | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("HUBEL_CACHE", str(Path(folder, "cache")))
        arguments.models = Path(folder)
        _write_models(Path(folder), arguments.data)
        for case in arguments.cases or CASES:
            missed = not _compare(case, arguments) or missed
    return int(missed)


def _compare(case: str, arguments: argparse.Namespace) -> bool:
    peer, target = CASES[case]
    ours_is = "hubel-video" if case == "video" else "hubel"
    runs: dict[str, list[dict[str, Any]]] = {peer: [], ours_is: []}
    for _ in range(arguments.rounds):
        for side, found in runs.items():
            found.append(_measure(side, case, arguments))
    theirs, ours = runs.values()
    ratio, wall = (
        statistics.median(other[key] / mine[key] for other, mine in zip(theirs, ours, strict=True))
        for key in ("cpu", "seconds")
    )
    each = [1000 * statistics.median(run["cpu"] / run["images"] for run in side) for side in (theirs, ours)]
    reached, verdict = ratio >= target, f"target {target:g}"
    if case == "video":
        rate = statistics.median(run["images"] / run["seconds"] for run in ours)
        reached, verdict = rate >= target, f"{rate:.1f} frames/s, target {target:g}"
    boxes = f"{theirs[0]['boxes']}, {ours[0]['boxes']}"
    print(f"| {case} ({ours[0]['how']}) | {each[0]:.1f} ms | {each[1]:.1f} ms | {ratio:.2f} | {wall:.2f} ", end="")
    print(f"| {boxes} | {verdict}: {'reached' if reached else 'missed'} |", flush=True)
    return reached


def _measure(side: str, case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    options = {name: getattr(arguments, name) for name in ("data", "images", "precision", "threads", "models")}
    command = [sys.executable, __file__, case, "--side", side]
    command += [part for name, value in options.items() for part in (f"--{name}", str(value))]
    environment = dict(os.environ)
    if side.startswith("opencv"):
        environment["PYTHONPATH"] = os.environ.get("HUBEL_OPENCV4", "")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _write_models(folder: Path, data: Path) -> None:
    """The random networks, as Darknet's files and torchvision's, that find a few boxes only, as trained ones do."""
    import torch
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    from hubel.exporters.darknet import export_darknet
    from hubel.models import create_model, describe, save_model

    torch.manual_seed(0)
    tiny = create_model("yolo_v4_tiny").eval()
    for name, bias in tiny.head.named_parameters():
        if name.endswith("bias") and len(bias) == 255:
            with torch.no_grad():
                bias.view(3, 85)[:, 4] -= 6  # objectness
    export_darknet(tiny, describe(tiny), folder / "yolo_v4_tiny")
    theirs = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    torch.save(theirs.state_dict(), folder / "ssdlite.pth")
    ours = create_model("ssdlite320_mobilenet_v3_large", weights=folder / "ssdlite.pth")
    save_model(folder / "ssdlite", ours, describe(ours))


def _darknet(case: str, arguments: argparse.Namespace) -> tuple[Path, Path]:
    """Paths of a network's cfg and weights."""
    if case == "yolo_v4_tiny":
        stem = arguments.models / case / "model"
    else:
        stem = arguments.data / FASTEST / ("yolo-fastest-1.1-xl" if case == "video" else case)
    return Path(f"{stem}.cfg"), Path(f"{stem}.weights")


def _photographs(arguments: argparse.Namespace) -> list[str]:
    from PIL import Image

    files = sorted(map(str, (arguments.data / "coco128").rglob("*.jpg")))
    fitting = [file for file in files if Image.open(file).size == SIZE]
    return (fitting * (arguments.images // len(fitting) + 1))[: arguments.images]


@contextmanager
def _timed(found: dict[str, Any]) -> Iterator[None]:
    start, cpu = time.perf_counter(), time.process_time()
    yield
    found.update(seconds=time.perf_counter() - start, cpu=time.process_time() - cpu)


def _each(detect: Callable[[str], int], arguments: argparse.Namespace) -> dict[str, Any]:
    files = _photographs(arguments)
    detect(files[0])
    found: dict[str, Any] = {"images": len(files)}
    with _timed(found):
        found["boxes"] = sum(map(detect, files))
    return found


def _opencv_model(case: str, arguments: argparse.Namespace) -> Any:
    import cv2

    cv2.setNumThreads(arguments.threads)
    cfg, weights = _darknet(case, arguments)
    network = cv2.dnn.DetectionModel(cv2.dnn.readNetFromDarknet(str(cfg), str(weights)))
    options = dict(line.split("=", 1) for line in cfg.read_text().replace(" ", "").splitlines() if "=" in line)
    network.setInputParams(scale=1 / 255, size=(int(options["width"]), int(options["height"])), swapRB=True)
    return network


def _opencv(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import cv2

    network = _opencv_model(case, arguments)
    return _each(lambda file: len(network.detect(cv2.imread(file), CONF, IOU)[2]), arguments)


def _opencv_video(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import cv2

    network = _opencv_model(case, arguments)
    video = cv2.VideoCapture(str(arguments.data / VIDEO))
    size = (768, 576)
    writer = cv2.VideoWriter(str(arguments.models / "peer.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, size)
    found: dict[str, Any] = {"images": 0, "boxes": 0}
    with _timed(found):
        while found["images"] < arguments.images and (frame := video.read()[1]) is not None:
            classes, scores, boxes = network.detect(frame, CONF, IOU)
            for index, score, box in zip(classes, scores, boxes, strict=True):
                cv2.rectangle(frame, box, (0, 200, 0), 2)
                place = (int(box[0]), int(box[1]) - 4)
                cv2.putText(frame, f"{index} {score:.2f}", place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 200, 0), 1)
            writer.write(frame)
            found["images"] += 1
            found["boxes"] += len(boxes)
        writer.release()
    return found


def _torchvision(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch
    from PIL import Image
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large
    from torchvision.transforms.functional import to_tensor

    torch.set_num_threads(arguments.threads)
    options: dict[str, Any] = {"score_thresh": CONF, "nms_thresh": IOU}
    network = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, **options).eval()
    network.load_state_dict(torch.load(arguments.models / "ssdlite.pth", weights_only=True))

    def detect(file: str) -> int:
        with torch.inference_mode():
            return len(network([to_tensor(Image.open(file).convert("RGB"))])[0]["boxes"])

    return _each(detect, arguments)


def _predictor(case: str, arguments: argparse.Namespace) -> Any:
    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    options: dict[str, Any] = {"engine": "openvino", "precision": arguments.precision, "threads": arguments.threads}
    if case.startswith("ssdlite"):
        model = arguments.models / "ssdlite"
    else:
        model, options["weights"] = _darknet(case, arguments)
    predictor = Predictor(model, conf=CONF, iou=IOU, **options)
    predictor.engine_for(arguments.images)  # converts
    return predictor


def _hubel(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    predictor, files = _predictor(case, arguments), _photographs(arguments)
    list(predictor(files[:2]))
    found: dict[str, Any] = {"images": len(files), "how": predictor.engine_for(len(files)).precision.name}
    with _timed(found):
        found["boxes"] = sum(len(result.boxes) for result in predictor(files))
    return found


def _hubel_video(case: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """``hubel predict vtest.avi --save DIR`` as a program."""
    from itertools import islice

    from hubel.cli.predict_writers import AnnotatedCopies
    from hubel.data.sources import expand
    from hubel.inference.outputs import AnnotatedFiles

    predictor = _predictor(case, arguments)
    copies = AnnotatedCopies(AnnotatedFiles(arguments.models / "annotated"), False, 1)
    found: dict[str, Any] = {"how": predictor.engine_for(arguments.images).precision.name}
    with _timed(found):
        frames = islice(expand([str(arguments.data / VIDEO)]), arguments.images)
        boxes = [len(result.boxes) for result in copies.outcomes(predictor, frames)]
    return {**found, "images": len(boxes), "boxes": sum(boxes)}


SIDES = {
    "opencv": _opencv,
    "opencv-video": _opencv_video,
    "torchvision": _torchvision,
    "hubel": _hubel,
    "hubel-video": _hubel_video,
}

if __name__ == "__main__":
    sys.exit(main())
