"""``hubel predict``: what a model says of pictures."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hubel.cli.options import Device, Json, Model, Threads
from hubel.console import log, print_json, report_error
from hubel.errors import UsageError
from hubel.inference.json_lines import encodable, json_row
from hubel.results import Classification, ClassScore, Detections, Prediction

if TYPE_CHECKING:
    from collections.abc import Callable

    from hubel.data.sources import ImageSource
    from hubel.inference.outputs import AnnotatedFiles
    from hubel.inference.pipeline import FailedImage
    from hubel.inference.predictor import Predictor

_SAVED_AHEAD = 4
_CONF, _IOU = 0.25, 0.6


def predict(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="Pictures, folders, patterns, videos, or a webcam's number."),
    ],
    model: Model = "efficientnet_lite0",
    top: Annotated[int, typer.Option(min=1, help="How many classes to name, best first.")] = 5,
    conf: Annotated[float, typer.Option(min=0, max=1, help="Detectors: leave out objects of a lower score.")] = _CONF,
    iou: Annotated[
        float, typer.Option(min=0, max=1, help="Detectors: of boxes of a class that overlap by more, keep the best.")
    ] = _IOU,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also save the pictures with the answers written on them.")
    ] = None,
    json: Json = False,
    engine: Annotated[str, typer.Option(help="What runs the network: auto, torch, openvino or onnx.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.")] = "auto",
    calibrate: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="For int8: pictures to set it on.", show_default="a run folder's own"),
    ] = None,
    tolerance: Annotated[float, typer.Option(help="For int8: how much accuracy may fall, a fraction.")] = 0.01,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Pictures at once.", show_default="what the engine is fastest with")
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first picture that cannot be read.")] = False,
    ray: Annotated[bool, typer.Option("--ray", help="A collection of any size, by Ray, in blocks that last.")] = False,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="With --ray: for the files of rows.")] = None,
    shards: Annotated[
        Literal["jsonl", "parquet"], typer.Option("--format", help="With --ray: of these files.")
    ] = "jsonl",
    block: Annotated[int, typer.Option(min=1, help="With --ray: sources in each of them.")] = 1000,
) -> None:
    """Say what is in pictures: a classifier's most probable classes, a detector's objects, one line a picture.

    A picture that cannot be read is named and left out; the others go on, and the exit status is 1.
    With --json: one object a line, {"source", "width", "height", "model", "task", …}, with "classes" or
    "objects", boxes in pixels.

    \b
    hubel predict photo.jpg
    hubel predict holiday/ more/*.png --save out/
    hubel predict new.jpg --model runs/flowers --json
    hubel predict street/ --model runs/cars --conf 0.5 --save found/
    hubel predict archive/ --model runs/flowers --precision int8
    hubel predict archive/ more.txt --ray --out rows/
    """
    if ray:
        if out is None or save is not None or strict:
            raise UsageError("--ray needs --out DIR, and knows neither --save nor --strict", "see hubel predict --help")
        if (conf, iou) != (_CONF, _IOU):
            raise UsageError("--ray takes --conf and --iou as they are", "leave them out")
        named = {"model": model, "engine": engine, "precision": precision, "device": device, "batch": batch, "top": top}
        more = {"threads": threads, "calibrate": calibrate, "tolerance": tolerance}
        _predict_collection(sources, out, {**named, **more}, shards, block, json)
        return
    if out is not None:
        raise UsageError(
            f"--out {out} is for the files that --ray writes", "add --ray, or take --save DIR for pictures"
        )
    from hubel.inference.outputs import AnnotatedFiles

    files = AnnotatedFiles(save) if save is not None else None  # before the seconds that torch takes to load

    from hubel.data.sources import expand
    from hubel.inference import Predictor, tune_allocator

    tune_allocator()
    predictor = Predictor(model, engine, precision, device, batch, top, threads, None, calibrate, tolerance, conf, iou)
    pictures: Iterable[ImageSource] = expand(sources)
    if files is not None and not any(files.holds(source) for source in sources):
        # DIR may lie in a folder of sources: what is written there now is not to be predicted next.
        pictures = (picture for picture in pictures if not files.holds(picture.source))
    pictures = predictor.select_engine(pictures)
    log(predictor.describe())
    outcomes = predictor.stream_pictures(pictures) if files is None else _saved(predictor, pictures, files)
    failures = _report(outcomes, predictor.model_name, json, strict)
    if failures:
        log(f"{failures} of the sources could not be read")
        raise typer.Exit(1)


def _predict_collection(
    sources: list[str], out: Path, predictor: dict[str, Any], shards: str, block: int, json: bool
) -> None:
    from hubel.batch_predict.job import CollectionJob

    def report(message: str, hint: str) -> None:
        report_error(_printable(message), hint)

    result = CollectionJob(sources, out, predictor, shards, block, log, report).run()
    if json:
        print_json(result.to_json())
    else:
        print(result.headline())
    if result.errors:
        raise typer.Exit(1)


def _saved(
    predictor: Predictor, pictures: Iterable[ImageSource], files: AnnotatedFiles
) -> Iterator[Prediction | FailedImage]:
    """The predictor's outcomes, each after its annotated picture has been written (by background threads)."""
    from hubel.inference.pipeline import FailedImage, ordered_parallel_map

    taken: deque[ImageSource] = deque()

    def remembered() -> Iterator[ImageSource]:
        for picture in pictures:
            taken.append(picture)
            yield picture

    def jobs() -> Iterator[tuple[Prediction | FailedImage, ImageSource, Path | None]]:
        for outcome in predictor.stream_pictures(remembered()):
            path = None if isinstance(outcome, FailedImage) else files.path_for(outcome)
            yield outcome, taken.popleft(), path

    def write(job: tuple[Prediction | FailedImage, ImageSource, Path | None]) -> Prediction | FailedImage:
        outcome, picture, path = job
        if not isinstance(outcome, FailedImage) and path is not None:
            files.save(path, picture, outcome)
        return outcome

    return ordered_parallel_map(write, jobs(), _SAVED_AHEAD)


def _report(outcomes: Iterable[Prediction | FailedImage], model: str, json: bool, strict: bool) -> int:
    """Write each outcome where it belongs; returns how many pictures could not be read.

    Raises:
        ImageError: with ``strict``, at the first of them.
    """
    from hubel.inference.pipeline import FailedImage

    failures = 0
    with _progress(lines_are_seen=sys.stdout.isatty() and not json) as advance:
        for outcome in outcomes:
            advance()
            if isinstance(outcome, FailedImage):
                failures += 1
                if json:
                    print_json(json_row(outcome, model))
                if strict:
                    raise outcome.error
                report_error(_printable(outcome.error.message), outcome.error.hint)
            elif json:
                print_json(json_row(outcome, model))
            else:
                print(_line(outcome), flush=True)
    return failures


def _line(result: Prediction) -> str:
    name = _printable(result.source or "image")
    if result.frame is not None:
        name += f" frame {result.frame}"
    return f"{name}  {_classes(result.classes) if isinstance(result, Classification) else _objects(result)}"


def _objects(result: Detections) -> str:
    """``3 objects: person 98%, person 71%, dog 55%``: where they are is left to --json and --save."""
    if not len(result):
        return "nothing found"
    named = ", ".join(f"{name} {score:.0%}" for name, score in zip(result.names, result.scores, strict=True))
    return f"{len(result)} object{'s' if len(result) > 1 else ''}: {named}"


def _classes(classes: Sequence[ClassScore]) -> str:
    """``palace 82.1%  (bell cote 3%, monastery 1%)``: classes under 1 % are left to --json."""
    best, *others = classes
    line = f"{_short(best.name)} {best.score:.1%}"
    rest = ", ".join(f"{_short(score.name)} {score.score:.0%}" for score in others if score.score >= 0.01)
    return f"{line}  ({rest})" if rest else line


def _short(name: str) -> str:
    """The first of a class's synonyms, as ImageNet separates them."""
    return name.split(",")[0]


def _printable(text: str) -> str:
    """The same in one line: file names may hold line breaks and terminal commands."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in encodable(text))


@contextmanager
def _progress(lines_are_seen: bool) -> Iterator[Callable[[], None]]:
    """A count and a rate on the terminal, unless the results themselves show there how it goes."""
    if lines_are_seen or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} pictures"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("predict", total=None)
        yield lambda: progress.advance(task)
