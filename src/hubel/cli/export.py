"""``hubel export``: a model as a file for use without hubel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hubel.cli.options import Json
from hubel.console import log, print_json


def export(
    model: Annotated[
        str,
        typer.Argument(
            help="A registered name (resnet50), a name with weights (resnet50:torchvision/IMAGENET1K_V2) or a run "
            "folder."
        ),
    ],
    format: Annotated[
        Literal["onnx", "openvino", "torch"],
        typer.Option(help="model.onnx, model.xml with model.bin, or model.pt2 (torch.export)."),
    ],
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"],
        typer.Option(help="bf16: openvino and torch. int8: openvino."),
    ] = "fp32",
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="For int8: a folder of images like those to come; a run has its own."),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="For int8: how much accuracy may fall, a fraction.")] = 0.01,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="The folder, which gets a number if it exists.",
            show_default="exports/MODEL-FORMAT[-PRECISION]",
        ),
    ] = None,
    nms: Annotated[
        bool, typer.Option("--nms", help="Detectors: the file finds the objects itself, in one picture at a time.")
    ] = False,
    conf: Annotated[float, typer.Option(min=0, max=1, help="With --nms: leave out objects of a lower score.")] = 0.25,
    iou: Annotated[
        float, typer.Option(min=0, max=1, help="With --nms: of boxes of a class that overlap by more, keep the best.")
    ] = 0.6,
    json: Json = False,
) -> None:
    """Write a model as a file for use without hubel, checked against the model before it appears.

    The file takes pixels and gives probabilities, of a detector raw scores and offsets from anchors; classes,
    preprocessing and anchors are in its metadata. Beside it are
    preprocessing.json and use.py, a short program that uses it: python use.py photo.jpg.

    \b
    hubel export efficientnet_lite0 --format onnx
    hubel export runs/flowers --format openvino --precision fp16 --out deploy/flowers
    hubel export runs/cars --format onnx --nms --conf 0.4
    """
    from hubel.exporters.export import EXAMPLE
    from hubel.exporters.export import export as run
    from hubel.inference import tune_allocator

    tune_allocator()
    done = run(model, format, precision, calibrate=calibrate, out=out, tolerance=tolerance, nms=nms, conf=conf, iou=iou)
    if json:
        print_json(done.to_json())
        return
    print(
        f"{done.path}  {done.format} {done.precision}, {done.bytes / 1e6:.1f} MB; probabilities differ from the "
        f"model's by at most {done.max_difference:.1g}"
    )
    log(f"try it: python {done.path.parent / EXAMPLE} photo.jpg")
