"""``hubel predict``: predictions of a model for images and videos."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Iterable
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hubel.cli.command import COLLECTIONS, RUNNING
from hubel.cli.options import (
    MODEL,
    Calibrate,
    Conf,
    Device,
    Engine,
    Every,
    Iou,
    Json,
    Nms,
    Precision,
    Quiet,
    Strict,
    Threads,
    Tile,
    Tolerance,
    Tta,
    Verbose,
    complete_models,
)
from hubel.config import CONF, DEFAULT_DETECTOR, DEFAULT_NETWORK, IOU, TOLERANCE
from hubel.console import ProgressBar, activity, count_of, log, print_json, printable, report_error, show
from hubel.errors import UsageError
from hubel.fileio import check_exists
from hubel.inference.outputs import encodable, json_row
from hubel.results import Detections, Prediction

if TYPE_CHECKING:
    from hubel.cli.predict_writers import AnnotatedCopies
    from hubel.data.sources import ImageSource
    from hubel.inference.pipeline import FailedImage

Outcomes = Generator[Any, None, None]


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Images, folders, patterns, videos, or the number of a webcam."),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help=f"{MODEL[:-1]}, an exported folder, or a Darknet .cfg.",
            show_default=f"{DEFAULT_NETWORK}; detect: {DEFAULT_DETECTOR}",
            autocompletion=complete_models,
        ),
    ] = None,
    task: Annotated[
        Literal["classify", "detect"] | None,
        typer.Option(help="What to look for without --model: the class of the image, or COCO's 80 kinds of objects."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Weights of a Darknet .cfg.", show_default="beside it, under its name"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Classifiers: number of classes, best first.")] = 5,
    conf: Conf = CONF,
    iou: Iou = IOU,
    nms: Nms = "standard",
    tta: Tta = False,
    tile: Tile = None,
    every: Every = 1,
    cutout: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS", help="Segmentation, instances, with --save: this class on a transparent background."
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save annotated copies of images and videos to this folder.")
    ] = None,
    save_frames: Annotated[
        bool, typer.Option("--save-frames", help="With --save: the frames of videos as images, not as a video.")
    ] = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    engine: Engine = "auto",
    precision: Precision = "auto",
    calibrate: Calibrate = None,
    tolerance: Tolerance = TOLERANCE,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Batch size.", show_default="the fastest for the engine", rich_help_panel=RUNNING),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    strict: Strict = False,
    ray: Annotated[
        bool,
        typer.Option(
            "--ray", help="Process a collection of any size in resumable blocks, on Ray.", rich_help_panel=COLLECTIONS
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --ray: folder of the result files.", rich_help_panel=COLLECTIONS),
    ] = None,
    shards: Annotated[
        Literal["jsonl", "parquet"],
        typer.Option("--format", help="With --ray: format of the result files.", rich_help_panel=COLLECTIONS),
    ] = "jsonl",
    block: Annotated[
        int,
        typer.Option(min=1, help="With --ray: number of sources per result file.", rich_help_panel=COLLECTIONS),
    ] = 1000,
) -> None:
    """Classify images, detect objects in them, or name the class of each pixel: one line per image.

    The line says which classes, or how many objects of each class; --verbose lists the objects. An image that cannot be
    read is reported and skipped, and the exit status is 1.
    With --json: one object per line, {"source", "width", "height", "model", "task", …}, with "classes",
    "objects", boxes in pixels, each with its "mask" (COCO run lengths) if the model finds them, or "mask": the file
    with the class of each pixel, in DIR, or else in runs/predict.

    \b
    hubel predict photo.jpg
    hubel predict street.jpg --task detect --save found/
    hubel predict aerial.tif --model runs/cars --tile 640 --save found/
    hubel predict street.jpg --model yolov4.cfg --weights yolov4.weights
    hubel predict holiday/ more/*.png --save out/
    hubel predict clip.mp4 --every 5 --save out/
    hubel predict shelf.jpg --model runs/bottles --save found/     outlines, if the model finds masks
    hubel predict call.mp4 --model runs/people --cutout person --save out/
    hubel predict new.jpg --model runs/flowers --json
    hubel predict small.jpg --model runs/photos --save large/      a network that enlarges images
    hubel predict archive/ --model runs/flowers --precision int8
    hubel predict archive/ more.txt --ray --out rows/
    """
    if task is not None and model is not None:
        raise UsageError("--task cannot be combined with --model, which has one", "omit --task")
    model = model or (DEFAULT_DETECTOR if task == "detect" else DEFAULT_NETWORK)
    if weights is not None:
        from hubel.models.cfg_reference import with_weights

        model = with_weights(model, weights)
    settings: dict[str, Any] = {
        "model": model, "engine": engine, "precision": precision, "device": device, "batch": batch, "top": top,
        "threads": threads, "calibrate": calibrate, "tolerance": tolerance, "tta": tta,
    }  # fmt: skip
    if ray:
        if out is None or save is not None or strict:
            raise UsageError(
                "--ray requires --out DIR and cannot be combined with --save or --strict", "see hubel predict --help"
            )
        if (conf, iou, nms, tile, every, cutout) != (CONF, IOU, "standard", None, 1, None):
            message = "--conf, --iou, --nms, --tile, --every and --cutout cannot be combined with --ray"
            raise UsageError(message, "omit them")
        _predict_collection(sources, out, settings, shards, block, json)
        return
    if out is not None:
        raise UsageError(f"--out {out} requires --ray", "add --ray, or use --save DIR for annotated images")
    if cutout is not None and save is None:
        raise UsageError("--cutout requires --save DIR", "add --save DIR")
    if save_frames and save is None:
        raise UsageError("--save-frames requires --save DIR", "add --save DIR")
    from hubel.data.sources import every_nth_frame, expand, is_missing

    if all(map(is_missing, sources)):  # said at once, and not after a network has been loaded
        outcomes = _unreadable(expand(sources))
        _report(outcomes, model, json, strict, verbose)
        raise typer.Exit(1)
    if calibrate is not None:
        check_exists(calibrate)
    from hubel.inference.outputs import AnnotatedFiles, free_folder

    files = AnnotatedFiles(save) if save is not None else None
    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    with nullcontext() if quiet else activity(f"loading {model}"):
        predictor = Predictor(**settings, conf=conf, iou=iou, nms=nms, tile=tile, cutout=cutout)
    if files is None and json and predictor.gives_maps:  # rows name the files of masks, which have to be somewhere
        files = AnnotatedFiles(free_folder(Path("runs") / "predict"))
    images: Iterable[ImageSource] = every_nth_frame(expand(sources), every)
    if files is not None and not any(files.holds(source) for source in sources):
        # DIR may be inside a folder of sources: what is written there now must not be predicted next.
        images = (image for image in images if not files.holds(image.source))
    with nullcontext() if quiet else activity(f"preparing {model} (an engine converts a model once)"):
        images = predictor.select_engine(images)
    if not quiet:
        log(predictor.describe(verbose))
    copies = None
    if files is not None:
        from hubel.cli.predict_writers import AnnotatedCopies

        copies = AnnotatedCopies(files, save_frames, every)
    start = time.perf_counter()
    run = predictor.stream_sources(images) if copies is None else copies.outcomes(predictor, images)
    count, failures = _report(run, predictor.model_name, json, strict, verbose)
    if not quiet:
        log(_summary(count, failures, time.perf_counter() - start, copies))
    if failures:
        raise typer.Exit(1)


def _unreadable(images: Iterable[ImageSource]) -> Generator[FailedImage, None, None]:
    """The errors of images that are not there."""
    from hubel.errors import ImageError
    from hubel.inference.pipeline import FailedImage

    for image in images:
        try:
            image.read()
        except ImageError as error:
            yield FailedImage(image.source, error)


def _summary(count: int, failures: int, seconds: float, copies: AnnotatedCopies | None) -> str:
    """``12 images in 0.8 s (15.1 images/s), 1 could not be read, 11 files saved in out``."""
    parts = [f"{count_of(count, 'image')} in {seconds:.1f} s"]
    if count > 1:
        parts[0] += f" ({count / max(seconds, 1e-9):.1f} images/s)"
    if failures:
        parts.append(f"{failures:,} could not be read")
    if copies is not None:
        parts.append(copies.describe())
    return ", ".join(parts)


def _predict_collection(
    sources: list[str], out: Path, predictor: dict[str, Any], shards: str, block: int, json: bool
) -> None:
    from hubel.batch_predict.job import CollectionJob

    result = CollectionJob(sources, out, predictor, shards, block, log, report_error).run()
    if json:
        print_json(result.to_json())
    else:
        show(result.headline())
    if result.errors:
        raise typer.Exit(1)


def _report(
    outcomes: Generator[Prediction | FailedImage, None, None], model: str, json: bool, strict: bool, verbose: bool
) -> tuple[int, int]:
    """Print each outcome; returns how many there were, and how many images could not be read (raises if ``strict``)."""
    from hubel.inference.pipeline import FailedImage

    count = failures = 0
    with closing(outcomes), ProgressBar("images", visible=json or not sys.stdout.isatty()) as bar:
        for outcome in outcomes:
            bar.advance()
            count += 1
            if json:
                print_json(json_row(outcome, model))
            if isinstance(outcome, FailedImage):
                failures += 1
                if strict:
                    raise outcome.error
                report_error(outcome.error.message, outcome.error.hint)
            elif not json:
                _print_result(outcome, verbose)
    return count, failures


def _print_result(result: Prediction, verbose: bool) -> None:
    frame = "" if result.frame is None else f" frame {result.frame}"
    show(f"{printable(encodable(result.source or 'image'))}{frame}  {printable(result.describe())}")
    if verbose and isinstance(result, Detections):
        for line in result.details():
            show(f"  {printable(line)}")
