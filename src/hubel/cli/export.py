"""``hubel export``: a model as a file for use without hubel."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hubel.cli.options import MODEL, Calibrate, Conf, Iou, Json, Tolerance
from hubel.config import CONF, IOU, TOLERANCE
from hubel.console import activity, log, print_json, show
from hubel.fileio import check_exists

_OUT = "exports/MODEL-FORMAT[-PRECISION]"


def export(
    model: Annotated[str, typer.Argument(help=MODEL)],
    format: Annotated[
        Literal["onnx", "openvino", "torch", "darknet"],
        typer.Option(help="model.onnx, model.xml with .bin, model.pt2 (torch.export), or model.cfg with .weights."),
    ],
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8"], typer.Option(help="bf16: openvino and torch. int8: openvino.")
    ] = "fp32",
    calibrate: Calibrate = None,
    tolerance: Tolerance = TOLERANCE,
    portable: Annotated[
        bool,
        typer.Option("--portable", help="int8: exact on every processor, also where this one has VNNI and others not."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Output folder; a number is appended if it exists.", show_default=_OUT),
    ] = None,
    nms: Annotated[
        bool,
        typer.Option("--nms", help="Detectors: include thresholding and NMS in the file, for one image at a time."),
    ] = False,
    conf: Conf = CONF,
    iou: Iou = IOU,
    json: Json = False,
) -> None:
    """Write a model as a file for use without hubel, checked against the model before it appears.

    The file takes pixels and returns probabilities; a detector's returns boxes and scores, or with --nms the objects
    above --conf; that of a segmentation network a class map, and of super-resolution an image, both for images of any
    size. Classes and preprocessing are in its metadata. Beside it are preprocessing.json and use.py, a short program
    that uses it: python use.py photo.jpg.

    \b
    hubel export efficientnet_lite0 --format onnx
    hubel export runs/flowers --format openvino --precision fp16 --out deploy/flowers
    hubel export runs/flowers --format openvino --precision int8 --portable
    hubel export runs/cars --format onnx --nms --conf 0.4
    """
    from hubel.models.metadata import check_reference

    check_reference(model)
    if calibrate is not None:
        check_exists(calibrate)
    from hubel.exporters.export import EXAMPLE
    from hubel.exporters.export import export as run
    from hubel.inference import tune_allocator

    tune_allocator()
    with activity(f"exporting {model} to {format}"):
        done = run(
            model,
            format,
            precision,
            calibrate=calibrate,
            out=out,
            tolerance=tolerance,
            nms=nms,
            conf=conf,
            iou=iou,
            portable=portable,
        )
    if json:
        print_json(done.to_json())
        return
    exact = f"; exact on {done.quantization['exact_on']}" if done.quantization else ""
    compared = f"probabilities differ from the model's by at most {done.max_difference:.1g}"
    if "image" in done.outputs:
        compared = f"pixels, as fractions of 255, differ from the model's by at most {done.max_difference:.1g}"
    if "class_map" in done.outputs:
        compared = f"at most {done.max_difference:.1%} of the pixels have another class than the model gives"
    show(f"{done.path}  {done.format} {done.precision}, {done.bytes / 1e6:.1f} MB; {compared}{exact}")
    darknet = f"hubel predict photo.jpg --model {done.path}"
    log(f"try it: {darknet if format == 'darknet' else f'python {done.path.parent / EXAMPLE} photo.jpg'}")
