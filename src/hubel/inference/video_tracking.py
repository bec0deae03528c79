"""Tracking in videos: decode, detect, embed, associate, with the stages in parallel threads."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hubel.config import CONF
from hubel.data import video_reader
from hubel.data.addresses import is_address, redacted
from hubel.data.live_video import address_frames
from hubel.data.mot import MotBoxes, read_mot_text
from hubel.data.sources import local_path
from hubel.data.video_frames import StillFrames, VideoFrames
from hubel.errors import HubelError, ImageError, UsageError
from hubel.inference.pipeline import prefetch
from hubel.results import Detections, InMemory, Tracks
from hubel.tasks.decoding import decoder_of
from hubel.tracking import Appearance, Tracker, create_tracker

if TYPE_CHECKING:
    from hubel.inference.predictor import Predictor


_AHEAD = 4  # frames that wait between two stages
_JITTER = 0.2  # an elapsed time this close to a whole number of frame intervals is rounded to it
_MIN_ELAPSED = 0.05
OnError = video_reader.OnError
NAMELESS = "object"
"""Class name of detections from a file, which has none."""

Frame = video_reader.VideoFrame | video_reader.StillFrame
Images = Iterable[tuple[Frame, np.ndarray]]
"""Frames with their pixels, uint8 (H, W, 3), RGB."""


@dataclass
class VideoSource:
    """A sequence of frames, its name in results, and where they are known its frames per second and their number.

    ``reopen`` reads the frame of a number again, for a result; ``None`` for a webcam. ``every`` is the step between the
    numbers of the frames, where only some are tracked; the rate and the number of frames are those of these.
    """

    source: str
    frames: Iterator[Frame]
    rate: float | None
    count: int | None
    reopen: Callable[[int], Image.Image] | None = None
    every: int = 1

    def take_every(self, every: int) -> VideoSource:
        """The same with frames 1, 1 + ``every``, 1 + 2 · ``every``, …"""
        frames = (frame for frame in self.frames if (frame.number - 1) % every == 0)
        rate = None if self.rate is None else self.rate / every
        count = None if self.count is None else -(-self.count // every)
        return replace(self, frames=frames, rate=rate, count=count, every=every)

    def reader(self, state: FrameState) -> Callable[[], Image.Image]:
        """What reads the image of a frame for its result."""
        if self.reopen is not None:
            return partial(self.reopen, state.number)
        assert state.image is not None
        return InMemory(partial(Image.fromarray, state.image))


class StageTimer:
    """Seconds spent in each stage; stages run in parallel."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time that the block takes to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start


@dataclass(frozen=True)
class FrameState:
    """A frame between the stages, with its number from 1 and the seconds since the first if they are known.

    The image is uint8 (H, W, 3), RGB; features are appearance vectors (N, D), if the tracker compares them.
    """

    number: int
    time: float | None
    image: np.ndarray | None
    found: Detections
    features: np.ndarray | None = None


def open_video(source: str, rate: float, on_error: OnError) -> VideoSource:
    """Open a video file, a folder of frames at a ``rate`` of frames per second, or the webcam of a number.

    Raises:
        ImageError: it does not exist, is not a video, or has no images.
    """
    source = local_path(source) or source
    path = Path(source)
    if not source.strip():
        raise ImageError(f"the name of a video is empty: {source!r}", "pass a video, a folder of frames, or a number")
    if is_address(source):
        return VideoSource(redacted(source), address_frames(source), None, None)
    if path.is_dir():
        frames = list(video_reader.folder_frames(path, rate))
        return VideoSource(
            source, iter(frames), rate, len(frames), StillFrames({f.number: f.path for f in frames}).read
        )
    if source.isascii() and source.isdigit() and not path.exists():
        return VideoSource(f"webcam {source}", video_reader.camera_frames(int(source)), None, None)
    count, rate = video_reader.video_length(path, source)
    frames_of_file = video_reader.video_frames(path, source, on_error)
    return VideoSource(source, frames_of_file, rate, count, VideoFrames(source).read)


def decode(video: VideoSource, on_error: OnError, timer: StageTimer) -> Iterator[tuple[Frame, np.ndarray]]:
    """Decode the frames of a video; those that cannot be read are skipped."""
    while True:
        with timer.measure("decode"):
            frame = next(video.frames, None)
            if frame is None:
                return
            try:
                image = frame.array()
            except ImageError as error:
                on_error(error)
                continue
        yield frame, image


def detect_from_file(boxes: MotBoxes, source: str | None, images: Images | None) -> Generator[FrameState, None, None]:
    """Add the detections of a file to the frames of the same numbers, or to frames without images."""
    frames: Iterable[tuple[int, float | None, np.ndarray | None, slice]]
    if images is None:
        frames = ((number, None, None, rows) for number, rows in boxes.by_frame())
    else:
        frames = ((each.number, each.time, image, boxes.of_frame(each.number)) for each, image in images)
    for number, seconds, image, rows in frames:
        height, width = (0, 0) if image is None else image.shape[:2]
        found = boxes.boxes[rows], boxes.scores[rows]
        labels, names = np.zeros(len(found[0]), np.int64), (NAMELESS,) * len(found[0])
        detections = Detections(source, width, height, *found, labels, names, frame=number, time=seconds)
        yield FrameState(number, seconds, image, detections)


def detect_with_model(
    predictor: Predictor, source: str, classes: Sequence[str] | None, timer: StageTimer, images: Images
) -> Generator[FrameState, None, None]:
    """Run a detector on the frames of a video that results call ``source``, and keep the objects of some classes.

    ``timer`` gets the time of detection, including waits for frames.

    Raises:
        UsageError: the model is not a detector, or does not have such a class.
    """
    if "boxes" not in decoder_of(predictor.metadata.task, predictor.model_name).OUTPUTS:
        raise UsageError(f"{predictor.model_name} is not a detector", "use a detector")
    unknown = sorted(set(classes or ()) - set(predictor.metadata.classes))
    if unknown:
        known = ", ".join(predictor.metadata.classes[:12])
        raise UsageError(f"{predictor.model_name} has no class {', '.join(unknown)}", f"choose from {known}")
    from hubel.data.sources import ImageSource
    from hubel.inference.pipeline import FailedImage

    taken: deque[tuple[Frame, np.ndarray]] = deque()

    def as_sources() -> Iterator[ImageSource]:
        for frame, image in images:
            taken.append((frame, image))
            yield ImageSource(None, partial(Image.fromarray, image), frame.number, frame.time)

    outcomes = predictor.stream_sources(as_sources())
    while True:
        with timer.measure("detect"):
            found = next(outcomes, None)
        if found is None:
            return
        frame, image = taken.popleft()
        if isinstance(found, FailedImage):
            raise found.error
        assert isinstance(found, Detections)
        found = replace(found, source=source)
        if classes is not None:
            kept = np.array([name in classes for name in found.names], bool)
            boxes, scores, labels = found.boxes[kept], found.scores[kept], found.labels[kept]
            names = tuple(name for name in found.names if name in classes)
            masks = None if found.masks is None else tuple(itertools.compress(found.masks, kept.tolist()))
            found = replace(found, boxes=boxes, scores=scores, labels=labels, names=names, masks=masks)
        yield FrameState(frame.number, frame.time, image, found)


def embed(states: Iterable[FrameState], appearance: Appearance, timer: StageTimer) -> Iterator[FrameState]:
    """Add appearance vectors."""
    for state in states:
        assert state.image is not None
        with timer.measure("embed"):
            features = appearance(state.image, state.found.boxes)
        yield replace(state, features=features)


def associate(
    states: Iterable[FrameState], tracker: Tracker, video: VideoSource | None, timer: StageTimer
) -> Iterator[tuple[FrameState, Tracks]]:
    """Track the detections of each frame."""
    clock = FrameClock() if video is None else FrameClock(video.rate, video.every)
    for state in states:
        found, elapsed = state.found, clock.elapsed(state.number, state.time)
        with timer.measure("associate"):
            tracked = tracker.update(found.boxes, found.scores, found.labels, state.features, elapsed=elapsed)
        chosen = tracked.detections.tolist()
        names = tuple(found.names[index] for index in chosen)
        masks = None if found.masks is None else tuple(found.masks[index] for index in chosen)
        boxes, scores = tracked.boxes.astype(np.float32), tracked.scores.astype(np.float32)
        tracks = Tracks(
            found.source,
            found.width,
            found.height,
            boxes,
            scores,
            tracked.labels,
            names,
            masks,
            frame=state.number,
            time=state.time,
            ids=tracked.ids,
            reader=None if video is None else video.reader(state),
        )
        yield state, tracks


class FrameClock:
    """Time between frames in intervals of frames of which every so many are tracked, by their times or numbers."""

    def __init__(self, rate: float | None = None, every: int = 1) -> None:
        self._rate, self._every = rate, every
        self._last: tuple[int, float | None] | None = None

    def elapsed(self, number: int, seconds: float | None) -> float:
        """Time since the previous frame: 1 at a constant rate, 2 if a frame was dropped; 1 for the first."""
        before, self._last = self._last, (number, seconds)
        if before is None:
            return 1.0
        if seconds is None or before[1] is None or self._rate is None:
            return max(1.0, (number - before[0]) / self._every)
        intervals = (seconds - before[1]) * self._rate
        rounded = round(intervals)
        return float(rounded) if rounded >= 1 and abs(intervals - rounded) < _JITTER else max(intervals, _MIN_ELAPSED)


def run_pipeline(
    video: VideoSource | None,
    detections: MotBoxes | Predictor,
    tracker: Tracker,
    appearance: Appearance | None,
    classes: Sequence[str] | None,
    on_error: OnError,
    timer: StageTimer,
) -> Generator[tuple[FrameState, Tracks], None, None]:
    """Run all stages on a video, in threads; memory does not grow with its length. Boxes of a file need no video.

    ``appearance`` computes vectors, if the tracker compares them; a detector's objects may be limited to ``classes``.
    ``on_error`` is called for frames that cannot be read, which are skipped.
    """
    if video is None:
        assert isinstance(detections, MotBoxes)
        yield from associate(detect_from_file(detections, str(detections.path), None), tracker, None, timer)
        return
    with closing(prefetch(decode(video, on_error, timer), _AHEAD)) as images:
        if isinstance(detections, MotBoxes):
            states = detect_from_file(detections, video.source, images)
        else:
            states = detect_with_model(detections, video.source, classes, timer, images)
        if appearance is not None:
            states = prefetch(embed(states, appearance, timer), _AHEAD)
        with closing(states):
            yield from associate(states, tracker, video, timer)


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
    every: int = 1,
    on_error: Callable[[HubelError], None] | None = None,
    **parameters: Any,
) -> Iterator[Tracks]:
    """Track objects through a video, and yield the tracks of each frame.

    ::

        for tracks in hubel.track("street.mp4", model="runs/cars", tracker="sort", max_age=30):
            print(tracks.frame, tracks.ids, tracks.boxes)

    Args:
        source: a video, a folder of frames, or the number of a webcam; ``None`` if only ``detections`` are needed.
        model: a detector: a registered name with weights, a run folder, or an exported folder.
        detections: a file of MOTChallenge text, instead of a model.
        tracker: ``"sort"``, ``"deepsort"`` or ``"bytetrack"``, with its ``parameters``.
        appearance: for ``"deepsort"``: a network with weights, a run folder, or a function of an image, uint8
            (H, W, 3), and boxes (N, 4) that returns unit vectors (N, D).
        classes: of the detector to track; all by default.
        conf: minimum score of a box; for a model 0.25 by default, 0.1 for ``"bytetrack"``.
        rate: frames per second of a folder of frames.
        every: track the frames 1, 1 + ``every``, … only; the tracker's parameters then count these.
        on_error: called for frames that cannot be read, which are skipped; by default they raise.

    Raises:
        UsageError: arguments are missing, exclude each other, or are out of range.
        DataError, ImageError, ModelError, WeightsError: a file or the model is invalid.
    """
    if (model is None) == (detections is None):
        raise UsageError("a video is tracked with either a model or detections", "pass model=RUN or detections=det.txt")
    method = create_tracker(tracker, **parameters)
    boxes = None if detections is None else read_mot_text(Path(detections))
    if boxes is not None and conf is not None:
        boxes = boxes.only(boxes.scores >= conf)
    if source is None and (boxes is None or method.needs_features):
        raise UsageError(f"{tracker} needs images for a model or appearance features", "pass a video as source")
    report = on_error or _raise
    if every < 1:
        raise UsageError(f"every is {every}", "use 1 or more")
    video = None if source is None else open_video(str(source), rate, report).take_every(every)
    embedder = None
    if method.needs_features:
        from hubel.inference.embedder import Embedder

        embedder = appearance if callable(appearance) else Embedder(appearance)
    found: MotBoxes | Predictor | None = boxes
    if found is None:
        from hubel.inference.predictor import Predictor

        assert model is not None
        found = Predictor(model, conf=default_conf(tracker) if conf is None else conf)
    for _, tracks in run_pipeline(video, found, method, embedder, classes, report, StageTimer()):
        yield tracks


def _raise(error: HubelError) -> None:
    raise error
