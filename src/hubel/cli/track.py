"""``hubel track``: multi-object tracking in a video."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from hubel import interrupts
from hubel.cli.command import OUTPUT
from hubel.cli.options import Device, Engine, Every, Iou, Json, Precision, Quiet, Threads, complete_models
from hubel.config import CONF, DEFAULT_DETECTOR, DEFAULT_NETWORK, IOU
from hubel.console import ProgressBar, activity, log, report_error
from hubel.errors import HubelError, UsageError

if TYPE_CHECKING:
    from hubel.cli.track_writers import TrackOutputs
    from hubel.data.mot import MotBoxes
    from hubel.inference import Predictor
    from hubel.inference.video_tracking import FrameState
    from hubel.results import Tracks

_DEFAULT_CONF = f"model: {CONF}, with bytetrack 0.1; detections: none"


def track(
    source: Annotated[
        str | None,
        typer.Argument(metavar="VIDEO|FRAMES", help="A video, a folder of its frames, or the number of a webcam."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A detector: a registered name with weights, or a run folder.",
            show_default=DEFAULT_DETECTOR,
            autocompletion=complete_models,
        ),
    ] = None,
    detections: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Boxes from a file in place of a model: MOTChallenge text.")
    ] = None,
    tracker: Annotated[
        Literal["sort", "deepsort", "bytetrack"] | None,
        typer.Option(help="Tracking algorithm.", show_default="deepsort; sort without images"),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Parameter of the tracker (see above); may be repeated."),
    ] = None,
    appearance: Annotated[
        str,
        typer.Option(
            metavar="MODEL",
            help="deepsort: network of the appearance embeddings, a name with weights or a run folder.",
            autocompletion=complete_models,
        ),
    ] = DEFAULT_NETWORK,
    mot: Annotated[
        Path | None,
        typer.Option(metavar="OUT.txt", rich_help_panel=OUTPUT, help="Write the tracks as MOTChallenge text."),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="OUT.mp4", rich_help_panel=OUTPUT, help="Write the video with boxes, ids and trails."),
    ] = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="OUT.csv",
            rich_help_panel=OUTPUT,
            help="Write one row per track: .csv, or .json, which includes the paths.",
        ),
    ] = None,
    line: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]X1,Y1,X2,Y2",
            rich_help_panel="Counting",
            help="Count objects that cross a line; may be repeated.",
        ),
    ] = None,
    zone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]X,Y,X,Y,X,Y…",
            rich_help_panel="Counting",
            help="Count objects inside an area; may be repeated.",
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Track only these of the detector's classes.")
    ] = None,
    conf: Annotated[
        float | None, typer.Option(min=0, max=1, help="Minimum score of a box.", show_default=_DEFAULT_CONF)
    ] = None,
    iou: Iou = IOU,
    rate: Annotated[float, typer.Option(min=0.001, help="Frames per second of a folder of frames.")] = 25,
    every: Every = 1,
    json: Json = False,
    quiet: Quiet = False,
    engine: Engine = "auto",
    precision: Precision = "auto",
    device: Device = "auto",
    threads: Threads = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first frame that cannot be read.")] = False,
) -> None:
    """Track objects through a video, detected by a model or read from a file; prints a table of the tracks.

    A damaged frame is reported and skipped, and the exit status is 1. Ctrl-C leaves complete files.
    With --json: one frame per line, {"source", "frame", "time", …, "objects": [{"id", "name", "score", "box"}]}.

    \b
    hubel track street.mp4 --save tracked.mp4 --classes person,car
    hubel track street.mp4 --model runs/cars --save tracked.mp4
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
    if source is not None and detections is None:
        model = model or DEFAULT_DETECTOR
    _check(source, model, detections, name, classes)
    from hubel.cli.track_writers import TrackOutputs, parse_counters
    from hubel.inference import video_tracking
    from hubel.models.metadata import check_reference
    from hubel.tracking import TRACKERS, create_tracker
    from hubel.tracking.base import parse

    for reference in (model, appearance if TRACKERS[name].needs_features else None):
        if reference is not None:
            check_reference(reference)
    method = create_tracker(name, **parse(TRACKERS[name].Parameters, set_ or ()))
    timer, errors = video_tracking.StageTimer(), []

    def on_error(error: HubelError) -> None:
        if strict:
            raise error
        errors.append(error)
        report_error(error.message, error.hint)

    counters = parse_counters(line or (), zone or ())
    outputs = TrackOutputs(mot, save, table, counters, json, [source, detections], model, name, timer)
    boxes = None if detections is None else _read_boxes(detections, conf)
    video = None if source is None else video_tracking.open_video(source, rate, on_error).take_every(every)
    outputs.rate = (video and video.rate) or rate
    found: MotBoxes | Predictor | None = boxes
    if found is None:
        from hubel.inference import Predictor, tune_allocator

        assert model is not None
        tune_allocator()
        minimum = video_tracking.default_conf(name) if conf is None else conf
        with nullcontext() if quiet else activity(f"loading {model}"):
            found = Predictor(model, engine, precision, device, threads=threads, conf=minimum, iou=iou)
    embed = None
    if method.needs_features:
        from hubel.inference.embedder import Embedder

        embed = Embedder(appearance, device, threads)
    selected = None if classes is None else [word.strip() for word in classes.split(",")]
    states = video_tracking.run_pipeline(video, found, method, embed, selected, on_error, timer)
    count = video.count if video is not None else boxes.last_frame if boxes is not None else None
    last = _run(states, outputs, count, quiet)
    if video is not None and boxes is not None and last is not None and not 0 <= boxes.last_frame - last < every:
        log(f"note:  {detections} has boxes up to frame {boxes.last_frame}, {source} has frames up to {last}")
    if errors:
        raise typer.Exit(1)


def _check(source: str | None, model: str | None, detections: Path | None, tracker: str, classes: str | None) -> None:
    """Refuse options that do not go together."""
    if model is None and detections is None:
        raise UsageError("neither images nor detections", "pass a VIDEO, or boxes with --detections det.txt")
    if model is not None and detections is not None:
        raise UsageError("--model and --detections cannot be combined", "pass one of them")
    if source is None:
        if model is not None:
            raise UsageError("--model requires images", "pass a VIDEO or a folder of FRAMES")
        if tracker == "deepsort":
            message = "deepsort compares the appearance of objects and requires images"
            raise UsageError(message, "pass the VIDEO or its FRAMES, or use --tracker sort or bytetrack")
    if classes is not None and model is None:
        raise UsageError("--classes applies to a model only", "omit it with --detections")


def _read_boxes(detections: Path, conf: float | None) -> MotBoxes:
    from hubel.data.mot import read_mot_text

    boxes = read_mot_text(detections)
    for note in boxes.notes:
        log(f"note:  {note}")
    if not len(boxes):
        log(f"note:  {detections} has no boxes")
    return boxes if conf is None else boxes.only(boxes.scores >= conf)


def _run(
    states: Generator[tuple[FrameState, Tracks], None, None], outputs: TrackOutputs, count: int | None, quiet: bool
) -> int | None:
    """Write the tracks of every frame; returns the number of the last."""
    start, last, interrupted = time.perf_counter(), None, False
    bar = ProgressBar("frames", count, visible=not (outputs.shows_lines or quiet), lines=True)
    with bar, outputs, closing(states):
        try:
            for state, tracks in states:
                outputs.take(state, tracks)
                last = state.number
                bar.advance()
        except KeyboardInterrupt:
            interrupted = True
            outputs.interrupt()
    seconds = time.perf_counter() - start
    with contextlib.suppress(OSError) if interrupted else nullcontext():  # a terminal that was closed
        outputs.finish()
        if not quiet:
            log(outputs.summary(seconds))
        if interrupted:
            log(f"interrupted after frame {last}: the tracks up to there have been written")
    if interrupted:
        raise typer.Exit(interrupts.exit_status())
    return last
