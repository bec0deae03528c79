"""Tracking in videos: decode, detect, embed, associate, with the stages in parallel threads."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hubel.config import CONF
from hubel.data.mot import MotBoxes, read_mot_text
from hubel.data.video_reader import OnError, camera_frames, folder_frames, video_frames, video_length
from hubel.errors import HubelError, ImageError, UsageError
from hubel.inference.pipeline import prefetch
from hubel.results import Detections, Tracks
from hubel.tasks.decoding import decoder_of
from hubel.tracking import Appearance, Tracker, create_tracker

if TYPE_CHECKING:
    from hubel.inference.predictor import Predictor


# Frames buffered between two stages.
_AHEAD = 4
# An elapsed time this close to a rounded number of frame intervals is rounded to it.
_JITTER = 0.2
_MIN_ELAPSED = 0.05
NAMELESS = "object"
"""Class name of detections from a file, which has none."""


class Frame(Protocol):
    """A frame of a video, as :mod:`hubel.data.video_reader` gives it."""

    @property
    def number(self) -> int:
        """From 1."""

    @property
    def time(self) -> float:
        """Seconds since the first."""

    def array(self) -> np.ndarray:
        """uint8 (H, W, 3), RGB."""


@dataclass
class VideoSource:
    """A sequence of frames.

    Attributes:
        source: its name in results; ``None`` without images.
        frames: in order.
        rate: frames per second; ``None`` if unknown.
        count: number of frames; ``None`` if unknown.
    """

    source: str | None
    frames: Iterator[Frame]
    rate: float | None
    count: int | None


@dataclass
class StageTimer:
    """Seconds spent in each stage; stages run in parallel."""

    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function and add its time to a stage."""
        start = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            self.add(stage, start)

    def add(self, stage: str, start: float) -> None:
        """Add the time since ``start`` to a stage."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class FrameState:
    """A frame between the stages.

    Attributes:
        number: of the frame, from 1.
        time: seconds since the first frame; ``None`` if unknown.
        image: uint8 (H, W, 3), RGB; ``None`` without images.
        found: detections, boxes in pixels.
        features: appearance vectors (N, D), if the tracker compares them.
    """

    number: int
    time: float | None
    image: np.ndarray | None
    found: Detections
    features: np.ndarray | None = None


def open_video(source: str, rate: float, on_error: OnError) -> VideoSource:
    """Open a video file, a folder of frames, or a webcam.

    Args:
        source: path, or number of a webcam.
        rate: frames per second of a folder.
        on_error: called for frames that cannot be read, which are skipped.

    Raises:
        ImageError: it does not exist, is not a video, or has no images.
    """
    path = Path(source)
    if path.is_dir():
        frames = list(folder_frames(path, rate))
        return VideoSource(source, iter(frames), rate, len(frames))
    if source.isascii() and source.isdigit() and not path.exists():
        return VideoSource(f"webcam {source}", camera_frames(int(source)), None, None)
    count, rate = video_length(path, source)
    return VideoSource(source, video_frames(path, source, on_error), rate, count)


def decode(video: VideoSource, on_error: OnError, timer: StageTimer) -> Iterator[tuple[Frame, np.ndarray]]:
    """Decode the frames of a video; those that cannot be read are skipped."""
    while True:
        start = time.perf_counter()
        frame = next(video.frames, None)
        if frame is None:
            return
        try:
            image = frame.array()
        except ImageError as error:
            on_error(error)
            continue
        finally:
            timer.add("decode", start)
        yield frame, image


def detect_from_file(
    boxes: MotBoxes, source: str | None, images: Iterable[tuple[Frame, np.ndarray]] | None
) -> Iterator[FrameState]:
    """Add the detections of a file to the frames of the same numbers, or to frames without images."""
    if images is None:
        for number, rows in boxes.by_frame():
            yield FrameState(number, None, None, _file_detections(boxes, rows, source, number, None, (0, 0)))
        return
    for frame, image in images:
        size = image.shape[1], image.shape[0]
        found = _file_detections(boxes, boxes.of_frame(frame.number), source, frame.number, frame.time, size)
        yield FrameState(frame.number, frame.time, image, found)


def _file_detections(
    boxes: MotBoxes, rows: slice, source: str | None, number: int, seconds: float | None, size: tuple[int, int]
) -> Detections:
    count = rows.stop - rows.start
    labels = np.zeros(count, np.int64)
    width, height = size
    names = (NAMELESS,) * count
    return Detections(
        source, width, height, boxes.boxes[rows], boxes.scores[rows], labels, names, frame=number, time=seconds
    )


def detect_with_model(
    predictor: Predictor,
    source: str | None,
    classes: Sequence[str] | None,
    timer: StageTimer,
    images: Iterable[tuple[Frame, np.ndarray]],
) -> Iterator[FrameState]:
    """Run a detector on the frames.

    Args:
        predictor: of a detector.
        source: name of the video in results.
        classes: of the objects to keep; ``None``: all.
        timer: gets the time of detection, including waits for frames.
        images: frames with their pixels.

    Raises:
        UsageError: the model is not a detector, or does not have such a class.
    """
    if "boxes" not in decoder_of(predictor.metadata.task, predictor.model_name).OUTPUTS:
        raise UsageError(f"{predictor.model_name} is not a detector", "use a detector")
    unknown = sorted(set(classes or ()) - set(predictor.metadata.classes))
    if unknown:
        known = ", ".join(predictor.metadata.classes[:12])
        raise UsageError(f"{predictor.model_name} has no class {', '.join(unknown)}", f"it has {known}")
    from PIL import Image

    from hubel.data.sources import ImageSource
    from hubel.inference.pipeline import FailedImage

    taken: deque[tuple[Frame, np.ndarray]] = deque()

    def as_sources() -> Iterator[ImageSource]:
        for frame, image in images:
            taken.append((frame, image))
            yield ImageSource(None, partial(Image.fromarray, image), frame.number, frame.time)

    outcomes = predictor.stream_sources(as_sources())
    while (found := timer.timed("detect", next, outcomes, None)) is not None:
        frame, image = taken.popleft()
        if isinstance(found, FailedImage):
            raise found.error
        assert isinstance(found, Detections)
        yield FrameState(frame.number, frame.time, image, _select_classes(found, source, classes))


def _select_classes(found: Detections, source: str | None, classes: Sequence[str] | None) -> Detections:
    if classes is None:
        return replace(found, source=source)
    kept = np.array([name in classes for name in found.names], bool)
    names = tuple(name for name in found.names if name in classes)
    boxes, scores, labels = found.boxes[kept], found.scores[kept], found.labels[kept]
    return replace(found, source=source, boxes=boxes, scores=scores, labels=labels, names=names, masks=None)


def embed(states: Iterable[FrameState], appearance: Appearance, timer: StageTimer) -> Iterator[FrameState]:
    """Add appearance vectors."""
    for state in states:
        assert state.image is not None
        features = timer.timed("embed", appearance, state.image, state.found.boxes)
        yield FrameState(state.number, state.time, state.image, state.found, features)


def associate(
    states: Iterable[FrameState], tracker: Tracker, rate: float | None, timer: StageTimer
) -> Iterator[tuple[FrameState, Tracks]]:
    """Track the detections of each frame."""
    clock = FrameClock(rate)
    for state in states:
        found = state.found
        start = time.perf_counter()
        tracked = tracker.update(
            found.boxes, found.scores, found.labels, state.features, elapsed=clock.elapsed(state.number, state.time)
        )
        names = tuple(found.names[index] for index in tracked.detections.tolist())
        timer.add("associate", start)
        yield (
            state,
            Tracks(
                found.source,
                found.width,
                found.height,
                tracked.boxes.astype(np.float32),
                tracked.scores.astype(np.float32),
                tracked.labels,
                names,
                frame=state.number,
                time=state.time,
                ids=tracked.ids,
            ),
        )


class FrameClock:
    """Time between frames, in frame intervals.

    Args:
        rate: frames per second; ``None``: count by the frames' numbers.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._last: tuple[int, float | None] | None = None

    def elapsed(self, number: int, seconds: float | None) -> float:
        """Time since the previous frame: 1 at a constant rate, 2 if a frame was dropped; 1 for the first."""
        before, self._last = self._last, (number, seconds)
        if before is None:
            return 1.0
        if seconds is None or before[1] is None or self._rate is None:
            return float(max(1, number - before[0]))
        state = (seconds - before[1]) * self._rate
        rounded = round(state)
        return float(rounded) if rounded >= 1 and abs(state - rounded) < _JITTER else max(state, _MIN_ELAPSED)


def run_pipeline(
    video: VideoSource,
    detect: Callable[[Iterable[tuple[Frame, np.ndarray]]], Iterator[FrameState]],
    tracker: Tracker,
    appearance: Appearance | None,
    on_error: OnError,
    timer: StageTimer,
) -> Generator[tuple[FrameState, Tracks], None, None]:
    """Run all stages on a video, in threads; memory does not grow with its length.

    Args:
        video: with images.
        detect: adds detections to the frames.
        tracker: a new one.
        appearance: computes appearance vectors, if the tracker compares them.
        on_error: called for frames that cannot be read, which are skipped.
        timer: gets the time of each stage.
    """
    images = prefetch(decode(video, on_error, timer), _AHEAD)
    states: Iterator[FrameState] = detect(images)
    if appearance is not None:
        states = prefetch(embed(states, appearance, timer), _AHEAD)
    try:
        yield from associate(states, tracker, video.rate, timer)
    finally:
        for stage in (states, images):
            close = getattr(stage, "close", None)
            if close is not None:
                close()


def default_conf(tracker: str) -> float:
    """Minimum score of a detector's boxes; ByteTrack also uses low-score ones."""
    return 0.1 if tracker == "bytetrack" else CONF


def track(
    source: str | Path | int | None = None,
    *,
    model: str | Path | None = None,
    detections: str | Path | None = None,
    tracker: str = "deepsort",
    appearance: str | Path | Appearance = "efficientnet_lite0",
    classes: Sequence[str] | None = None,
    conf: float | None = None,
    rate: float = 25,
    on_error: Callable[[HubelError], None] | None = None,
    **parameters: Any,
) -> Iterator[Tracks]:
    """Track objects through a video.

    ::

        for tracks in hubel.track("street.mp4", model="runs/cars", tracker="sort", max_age=30):
            print(tracks.frame, tracks.ids, tracks.boxes)

    Args:
        source: a video, a folder of frames, or the number of a webcam; ``None`` if only ``detections`` are needed.
        model: a detector: a registered name with weights, or a run folder.
        detections: a file of MOTChallenge text, instead of a model.
        tracker: ``"sort"``, ``"deepsort"`` or ``"bytetrack"``.
        appearance: for ``"deepsort"``: a network with weights, a run folder, or a function of an image, uint8
            (H, W, 3), and boxes (N, 4) that returns unit vectors (N, D).
        classes: of the detector to track; ``None``: all.
        conf: minimum score of a box; for a model 0.25 by default, 0.1 for ``"bytetrack"``.
        rate: frames per second of a folder of frames.
        on_error: called for frames that cannot be read, which are skipped; by default they raise.
        parameters: of the tracker.

    Yields:
        The tracks of each frame.

    Raises:
        UsageError: arguments are missing, exclude each other, or are out of range.
        DataError, ImageError, ModelError, WeightsError: a file or the model is invalid.
    """
    if (model is None) == (detections is None):
        raise UsageError("pass exactly one of model= and detections=", "model=RUN or detections=det.txt")
    method, timer = create_tracker(tracker, **parameters), StageTimer()
    boxes = None if detections is None else read_mot_text(Path(detections))
    if boxes is not None and conf is not None:
        boxes = boxes.only(boxes.scores >= conf)
    if source is None:
        if boxes is None or method.needs_features:
            raise UsageError(f"{tracker} needs images for a model or appearance features", "pass a video as source")
        for _, tracks in associate(detect_from_file(boxes, str(boxes.path), None), method, None, timer):
            yield tracks
        return
    report = on_error or _raise
    video = open_video(str(source), rate, report)
    embedder = _embedder(appearance) if method.needs_features else None
    if boxes is not None:
        detect: Callable[..., Any] = partial(detect_from_file, boxes, video.source)
    else:
        from hubel.inference.predictor import Predictor

        assert model is not None
        minimum = default_conf(tracker) if conf is None else conf
        detect = partial(detect_with_model, Predictor(model, conf=minimum), video.source, classes, timer)
    for _, tracks in run_pipeline(video, detect, method, embedder, report, timer):
        yield tracks


def _raise(error: HubelError) -> None:
    raise error


def _embedder(appearance: str | Path | Appearance) -> Appearance:
    if callable(appearance):
        return appearance
    from hubel.inference.embedder import Embedder

    return Embedder(appearance)
