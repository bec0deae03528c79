"""``hubel predict``: predictions of a model for images and videos."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hubel.cli.options import Calibrate, Conf, Device, Engine, Iou, Json, Model, Precision, Strict, Threads, Tolerance
from hubel.config import CONF, DEFAULT_NETWORK, IOU, TOLERANCE
from hubel.console import ProgressBar, log, print_json, report_error
from hubel.errors import UsageError
from hubel.inference.outputs import encodable, json_row
from hubel.results import Prediction

if TYPE_CHECKING:
    from hubel.data.sources import ImageSource
    from hubel.inference.outputs import AnnotatedFiles
    from hubel.inference.pipeline import FailedImage
    from hubel.inference.predictor import Predictor

_SAVED_AHEAD = 4


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Images, folders, patterns, videos, or the number of a webcam."),
    ],
    model: Model = DEFAULT_NETWORK,
    top: Annotated[int, typer.Option(min=1, help="Classifiers: number of classes, best first.")] = 5,
    conf: Conf = CONF,
    iou: Iou = IOU,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Save annotated copies of the images to this folder.")
    ] = None,
    json: Json = False,
    engine: Engine = "auto",
    precision: Precision = "auto",
    calibrate: Calibrate = None,
    tolerance: Tolerance = TOLERANCE,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Batch size.", show_default="the fastest for the engine")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    strict: Strict = False,
    ray: Annotated[
        bool, typer.Option("--ray", help="Process a collection of any size in resumable blocks, on Ray.")
    ] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="With --ray: folder of the result files.")] = None,
    shards: Annotated[
        Literal["jsonl", "parquet"], typer.Option("--format", help="With --ray: format of the result files.")
    ] = "jsonl",
    block: Annotated[int, typer.Option(min=1, help="With --ray: number of sources per result file.")] = 1000,
) -> None:
    """Classify images or detect objects in them: one line per image.

    An image that cannot be read is reported and skipped, and the exit status is 1.
    With --json: one object per line, {"source", "width", "height", "model", "task", …}, with "classes" or
    "objects", boxes in pixels.

    \b
    hubel predict photo.jpg
    hubel predict holiday/ more/*.png --save out/
    hubel predict new.jpg --model runs/flowers --json
    hubel predict street/ --model runs/cars --conf 0.5 --save found/
    hubel predict archive/ --model runs/flowers --precision int8
    hubel predict archive/ more.txt --ray --out rows/
    """
    settings: dict[str, Any] = {
        "model": model, "engine": engine, "precision": precision, "device": device, "batch": batch, "top": top,
        "threads": threads, "calibrate": calibrate, "tolerance": tolerance,
    }  # fmt: skip
    if ray:
        if out is None or save is not None or strict:
            raise UsageError(
                "--ray requires --out DIR and cannot be combined with --save or --strict", "see hubel predict --help"
            )
        if (conf, iou) != (CONF, IOU):
            raise UsageError("--conf and --iou cannot be combined with --ray", "omit them")
        _predict_collection(sources, out, settings, shards, block, json)
        return
    if out is not None:
        raise UsageError(f"--out {out} requires --ray", "add --ray, or use --save DIR for annotated images")
    from hubel.inference.outputs import AnnotatedFiles

    files = AnnotatedFiles(save) if save is not None else None  # before the seconds that torch takes to load

    from hubel.data.sources import expand
    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    predictor = Predictor(**settings, conf=conf, iou=iou)
    images: Iterable[ImageSource] = expand(sources)
    if files is not None and not any(files.holds(source) for source in sources):
        # DIR may be inside a folder of sources: what is written there now must not be predicted next.
        images = (image for image in images if not files.holds(image.source))
    images = predictor.select_engine(images)
    log(predictor.describe())
    outcomes = predictor.stream_sources(images) if files is None else _saved(predictor, images, files)
    if failures := _report(outcomes, predictor.model_name, json, strict):
        log(f"{failures} sources could not be read")
        raise typer.Exit(1)


def _predict_collection(
    sources: list[str], out: Path, predictor: dict[str, Any], shards: str, block: int, json: bool
) -> None:
    from hubel.batch_predict.job import CollectionJob

    result = CollectionJob(
        sources, out, predictor, shards, block, log, lambda message, hint: report_error(_printable(message), hint)
    ).run()
    if json:
        print_json(result.to_json())
    else:
        print(result.headline())
    if result.errors:
        raise typer.Exit(1)


def _saved(
    predictor: Predictor, images: Iterable[ImageSource], files: AnnotatedFiles
) -> Iterator[Prediction | FailedImage]:
    """The predictor's outcomes, each after its annotated image has been written (by background threads)."""
    from hubel.inference.pipeline import FailedImage, ordered_parallel_map

    taken: deque[ImageSource] = deque()

    def remembered() -> Iterator[ImageSource]:
        for image in images:
            taken.append(image)
            yield image

    def jobs() -> Iterator[tuple[Prediction | FailedImage, ImageSource, Path | None]]:
        for outcome in predictor.stream_sources(remembered()):
            yield outcome, taken.popleft(), None if isinstance(outcome, FailedImage) else files.path_for(outcome)

    def write(job: tuple[Prediction | FailedImage, ImageSource, Path | None]) -> Prediction | FailedImage:
        outcome, image, path = job
        if not isinstance(outcome, FailedImage) and path is not None:
            files.save(path, image, outcome)
        return outcome

    return ordered_parallel_map(write, jobs(), _SAVED_AHEAD)


def _report(outcomes: Iterable[Prediction | FailedImage], model: str, json: bool, strict: bool) -> int:
    """Print each outcome; returns the number of images that could not be read, or raises if ``strict``."""
    from hubel.inference.pipeline import FailedImage

    failures = 0
    with ProgressBar("images", visible=json or not sys.stdout.isatty()) as bar:
        for outcome in outcomes:
            bar.advance()
            if json:
                print_json(json_row(outcome, model))
            if isinstance(outcome, FailedImage):
                failures += 1
                if strict:
                    raise outcome.error
                report_error(_printable(outcome.error.message), outcome.error.hint)
            elif not json:
                frame = "" if outcome.frame is None else f" frame {outcome.frame}"
                print(f"{_printable(outcome.source or 'image')}{frame}  {outcome.describe()}", flush=True)
    return failures


def _printable(text: str) -> str:
    """The text on one line: file names may contain line breaks and escape sequences."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in encodable(text))
