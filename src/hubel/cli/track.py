"""``hubel track``: who is who in a video."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hubel.cli.options import Device, Json, Threads
from hubel.console import log, report_error
from hubel.errors import HubelError, UsageError

if TYPE_CHECKING:
    from hubel.cli.track_writers import TrackOutputs
    from hubel.data.mot import MotBoxes
    from hubel.inference.predictor import Predictor
    from hubel.inference.video_tracking import StageTimer, Step, VideoSource
    from hubel.results import Tracks
    from hubel.tracking import Tracker


def track(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[VIDEO|FRAMES]", help="A video, a folder of its frames, or a webcam's number."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A detector: a registered name with weights, or a run folder.")
    ] = None,
    detections: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Boxes in place of a detector: MOTChallenge text.")
    ] = None,
    tracker: Annotated[
        Literal["sort", "deepsort", "bytetrack"] | None,
        typer.Option(help="How boxes are put together.", show_default="deepsort; sort without pictures"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A parameter of the tracker; may be repeated. See above."),
    ] = None,
    appearance: Annotated[
        str, typer.Option(help="deepsort: what makes appearance vectors, a network with weights or a run folder.")
    ] = "efficientnet_lite0",
    mot: Annotated[Path | None, typer.Option(metavar="OUT.txt", help="Write the tracks as MOTChallenge text.")] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="OUT.mp4", help="Write the video with boxes, ids and trails.")
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="OUT.csv", help="Write a row a track: .csv, or .json with the paths.")
    ] = None,
    line: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]X1,Y1,X2,Y2", help="Count who crosses a line; may be repeated."),
    ] = None,
    zone: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]X,Y,X,Y,X,Y…", help="Count who is inside an area; may be repeated."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Follow these of the detector's classes only.")
    ] = None,
    conf: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave out boxes of a lower score.", show_default="model: 0.25, bytetrack 0.1"),
    ] = None,
    iou: Annotated[
        float, typer.Option(min=0, max=1, help="Model: of boxes that overlap by more, keep the best.")
    ] = 0.6,
    rate: Annotated[float, typer.Option(min=0.001, help="Frames a second of a folder of frames.")] = 25,
    json: Json = False,
    engine: Annotated[str, typer.Option(help="What runs the detector: auto, torch, openvino or onnx.")] = "auto",
    precision: Annotated[str, typer.Option(help="Of the detector: auto, fp32, bf16, fp16 or int8.")] = "auto",
    device: Device = "auto",
    threads: Threads = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first frame that cannot be read.")] = False,
) -> None:
    """Follow objects through a video, from a detector or from a file of boxes; a table of the tracks at the end.

    A damaged frame is named and left out; the others go on, and the exit status is 1. Ctrl-C leaves whole files.
    With --json: one frame a line, {"source", "frame", "time", …, "objects": [{"id", "name", "score", "box"}]}.

    \b
    hubel track street.mp4 --model runs/cars --save followed.mp4
    hubel track street.mp4 --detections det.txt --mot out.txt --line gate=0,300,640,300
    hubel track --detections det.txt --tracker sort --mot out.txt
    hubel track street.mp4 --model runs/cars --tracker bytetrack --set track_buffer=60 --json

    \b
    Parameters for --set:
    sort       max_age=1 min_hits=3 iou_threshold=0.3 reconfirm=true
    deepsort   max_age=30 n_init=3 nn_budget=100 max_cosine_distance=0.2 gate=9.4877 motion_weight=0
               max_iou_distance=0.7 nearest_only=true max_overlap=0.3
    bytetrack  track_thresh=0.6 match_thresh=0.8 second_thresh=0.5 track_buffer=30
    """
    name = tracker or ("sort" if source is None else "deepsort")
    _check(source, model, detections, name, classes)
    from hubel.cli.track_writers import TrackOutputs, marks
    from hubel.data.mot import read_mot_text
    from hubel.inference.video_tracking import StageTimer
    from hubel.tracking import TRACKERS, create_tracker
    from hubel.tracking.base import parse

    follower = create_tracker(name, **parse(TRACKERS[name].Parameters, set_ or ()))
    outputs = TrackOutputs(mot, save, table, marks(line or (), zone or ()), json, [source, detections], model)
    boxes = None
    if detections is not None:
        boxes = read_mot_text(detections)
        for note in boxes.notes:
            log(f"note:  {note}")
        if not len(boxes):
            log(f"note:  {detections} has no boxes.")
        if conf is not None:
            boxes = boxes.only(boxes.scores >= conf)
    shares, damages = StageTimer(), DecodeErrors(strict)
    if source is None:
        assert boxes is not None
        _run(_without_pictures(boxes, follower, shares), outputs, shares, boxes.last_frame, name)
        return
    from hubel.inference.video_tracking import open_clip

    clip = open_clip(source, rate, damages)
    outputs.rate = clip.rate or rate
    predictor = None
    if model is not None:
        from hubel.inference import Predictor, tune_allocator

        tune_allocator()
        least = conf if conf is not None else 0.1 if name == "bytetrack" else 0.25
        predictor = Predictor(model, engine, precision, device, threads=threads, conf=least, iou=iou)
    steps = _with_pictures(clip, boxes, predictor, classes, follower, (appearance, device, threads), damages, shares)
    last = _run(steps, outputs, shares, clip.count, name)
    if boxes is not None and last is not None and boxes.last_frame != last:
        log(f"note:  {detections} has boxes up to frame {boxes.last_frame}, {source} has frames up to {last}.")
    if damages.count:
        raise typer.Exit(1)


def _check(source: str | None, model: str | None, detections: Path | None, tracker: str, classes: str | None) -> None:
    """Whether what is given is enough, and not too much."""
    if (model is None) == (detections is None):
        message = "nothing says where the objects are" if model is None else "--model and --detections are two answers"
        raise UsageError(message, "give --model RUN, a detector, or --detections det.txt, boxes in MOTChallenge text")
    if source is None:
        if model is not None:
            raise UsageError("a model needs pictures", "name a VIDEO or a folder of FRAMES")
        if tracker == "deepsort":
            message = "deepsort compares what objects look like, and there are no pictures"
            raise UsageError(message, "name the VIDEO or its FRAMES, or use --tracker sort or bytetrack")
    if classes is not None and model is None:
        raise UsageError("--classes is for a model's classes", "leave it out with --detections")


class DecodeErrors:
    """Names frames that cannot be read, and counts them."""

    def __init__(self, strict: bool) -> None:
        self._strict = strict
        self.count = 0

    def __call__(self, error: HubelError) -> None:
        """Report the first damaged frames, count the rest; raise if strict."""
        if self._strict:
            raise error
        self.count += 1
        report_error(error.message, error.hint)


def _without_pictures(boxes: MotBoxes, tracker: Tracker, shares: StageTimer) -> Iterator[tuple[Step, Tracks]]:
    from hubel.inference.video_tracking import detected_by_file, followed

    return followed(detected_by_file(boxes, str(boxes.path), None), tracker, None, shares)


def _with_pictures(
    clip: VideoSource,
    boxes: MotBoxes | None,
    predictor: Predictor | None,
    classes: str | None,
    tracker: Tracker,
    appearance: tuple[str, str, int | None],
    damages: DecodeErrors,
    shares: StageTimer,
) -> Iterator[tuple[Step, Tracks]]:
    from functools import partial

    from hubel.inference.video_tracking import detected_by_file, detected_by_model, stages

    embed = None
    if tracker.needs_features:
        from hubel.inference.embedder import Embedder

        embed = Embedder(*appearance)
    if boxes is not None:
        return stages(clip, partial(detected_by_file, boxes, clip.source), tracker, embed, damages, shares)
    assert predictor is not None
    wanted = None if classes is None else [word.strip() for word in classes.split(",")]
    detect = partial(detected_by_model, predictor, clip.source, wanted, shares)
    return stages(clip, detect, tracker, embed, damages, shares)


def _run(
    steps: Iterator[tuple[Step, Tracks]], outputs: TrackOutputs, shares: StageTimer, count: int | None, tracker: str
) -> int | None:
    """Take every frame to where it belongs; returns the number of the last."""
    start, last = time.perf_counter(), None
    with ExitStack() as stack:
        stack.enter_context(_terminated_as_interrupted())
        advance = stack.enter_context(_progress(count, outputs.shows_lines))
        stack.enter_context(outputs)
        try:
            for step, tracks in steps:
                outputs.take(step, tracks, tracker, shares)
                last = step.number
                advance()
        except KeyboardInterrupt:
            outputs.interrupted = True
        finally:
            close = getattr(steps, "close", None)
            if close is not None:
                close()
    seconds = time.perf_counter() - start
    outputs.finish()
    log(outputs.summary(tracker, seconds, shares))
    if outputs.interrupted:
        log(f"interrupted after frame {last}: what was followed until then is kept")
        raise typer.Exit(130)
    return last


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the command as Ctrl-C does, with whole files."""
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(count: int | None, lines_are_seen: bool) -> Iterator[Callable[[], None]]:
    """A bar on the terminal, unless the results themselves show there how it goes."""
    if lines_are_seen or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("frames"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("track", total=count)
        yield lambda: progress.advance(task)
