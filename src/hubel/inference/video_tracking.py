"""From a video to tracks: decode, detect, embed, associate, each stage beside the next."""

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
from hubel.data.video_reader import OnDamage, camera_frames, folder_frames, video_frames, video_length
from hubel.errors import HubelError, ImageError, UsageError
from hubel.inference.pipeline import prefetch
from hubel.results import Detections, Tracks
from hubel.tracking import Appearance, Tracker, create_tracker

if TYPE_CHECKING:
    from hubel.inference.predictor import Predictor


# Frames between two stages: as many as it takes to even out their hiccups.
_AHEAD = 4
# Of a step, in usual steps: nearer to a whole number than this, it is one.
_JITTER = 0.2
_SHORTEST_STEP = 0.05
NAMELESS = "object"
"""The class of detections from a file that has none."""


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
    """What is followed.

    Attributes:
        source: as a person named it; ``None`` without pictures.
        frames: in order; an item without a picture where there are none.
        rate: frames a second; ``None`` if nobody knows.
        count: how many frames there are; ``None`` if nobody knows.
    """

    source: str | None
    frames: Iterator[Frame]
    rate: float | None
    count: int | None


@dataclass
class StageTimer:
    """Seconds that each stage has worked; stages work side by side."""

    seconds: dict[str, float] = field(default_factory=dict)

    def timed(self, stage: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function and note how long it takes."""
        start = time.perf_counter()
        try:
            return function(*arguments)
        finally:
            self.add(stage, start)

    def add(self, stage: str, start: float) -> None:
        """Note the time since ``start``."""
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start


@dataclass(frozen=True)
class Step:
    """A frame on its way through the stages.

    Attributes:
        number: of the frame, from 1.
        time: seconds since the first; ``None`` if nobody knows.
        picture: uint8 (H, W, 3), RGB; ``None`` where there is none.
        found: what was detected, boxes in pixels.
        features: appearance vectors (N, D), where the tracker compares them.
    """

    number: int
    time: float | None
    picture: np.ndarray | None
    found: Detections
    features: np.ndarray | None = None


def open_clip(source: str, rate: float, on_damage: OnDamage) -> VideoSource:
    """A video file, a folder of frames, or the number of a webcam.

    Args:
        source: its name.
        rate: frames a second of a folder.
        on_damage: told of frames that cannot be read; they are left out.

    Raises:
        ImageError: it does not exist, is no video, or has no pictures.
    """
    path = Path(source)
    if path.is_dir():
        frames = list(folder_frames(path, rate))
        return VideoSource(source, iter(frames), rate, len(frames))
    if source.isascii() and source.isdigit() and not path.exists():
        return VideoSource(f"webcam {source}", camera_frames(int(source)), None, None)
    length = video_length(path, source)
    return VideoSource(source, video_frames(path, source, on_damage), length.rate, length.frames)


def decoded(clip: VideoSource, on_damage: OnDamage, shares: StageTimer) -> Iterator[tuple[Frame, np.ndarray]]:
    """The frames of a clip with their pixels; those that cannot be read are left out."""
    while True:
        start = time.perf_counter()
        frame = next(clip.frames, None)
        if frame is None:
            return
        try:
            picture = frame.array()
        except ImageError as error:
            on_damage(error)
            continue
        finally:
            shares.add("decode", start)
        yield frame, picture


def detected_by_file(
    boxes: MotBoxes, source: str | None, pictures: Iterable[tuple[Frame, np.ndarray]] | None
) -> Iterator[Step]:
    """The detections of a file, beside the pictures of the same numbers if there are any."""
    if pictures is None:
        for number, rows in boxes.by_frame():
            yield Step(number, None, None, _of_file(boxes, rows, source, number, None, (0, 0)))
        return
    for frame, picture in pictures:
        size = picture.shape[1], picture.shape[0]
        found = _of_file(boxes, boxes.of_frame(frame.number), source, frame.number, frame.time, size)
        yield Step(frame.number, frame.time, picture, found)


def _of_file(
    boxes: MotBoxes, rows: slice, source: str | None, number: int, seconds: float | None, size: tuple[int, int]
) -> Detections:
    count = rows.stop - rows.start
    labels = np.zeros(count, np.int64)
    width, height = size
    names = (NAMELESS,) * count
    return Detections(
        source, width, height, boxes.boxes[rows], boxes.scores[rows], labels, names, frame=number, time=seconds
    )


def detected_by_model(
    predictor: Predictor,
    source: str | None,
    classes: Sequence[str] | None,
    shares: StageTimer,
    pictures: Iterable[tuple[Frame, np.ndarray]],
) -> Iterator[Step]:
    """What a detector finds in the frames.

    Args:
        predictor: of a detector.
        source: what results call the video.
        classes: of objects that are kept; all if ``None``.
        shares: notes how long detecting takes, with what it waits for frames.
        pictures: frames with their pixels.

    Raises:
        UsageError: the model is no detector, or knows no such class.
    """
    if predictor.metadata.task not in ("detect", "localize"):
        raise UsageError(f"{predictor.model_name} finds no objects", "use a detector")
    unknown = sorted(set(classes or ()) - set(predictor.metadata.classes))
    if unknown:
        known = ", ".join(predictor.metadata.classes[:12])
        raise UsageError(f"{predictor.model_name} has no class {', '.join(unknown)}", f"it has {known}")
    from PIL import Image

    from hubel.data.sources import ImageSource
    from hubel.inference.pipeline import FailedImage

    taken: deque[tuple[Frame, np.ndarray]] = deque()

    def as_pictures() -> Iterator[ImageSource]:
        for frame, picture in pictures:
            taken.append((frame, picture))
            yield ImageSource(None, partial(Image.fromarray, picture), frame.number, frame.time)

    outcomes = predictor.stream_sources(as_pictures())
    while (found := shares.timed("detect", next, outcomes, None)) is not None:
        frame, picture = taken.popleft()
        if isinstance(found, FailedImage):
            raise found.error
        assert isinstance(found, Detections)
        yield Step(frame.number, frame.time, picture, _kept(found, source, classes))


def _kept(found: Detections, source: str | None, classes: Sequence[str] | None) -> Detections:
    if classes is None:
        return replace(found, source=source)
    kept = np.array([name in classes for name in found.names], bool)
    names = tuple(name for name in found.names if name in classes)
    boxes, scores, labels = found.boxes[kept], found.scores[kept], found.labels[kept]
    return replace(found, source=source, boxes=boxes, scores=scores, labels=labels, names=names, masks=None)


def embedded(steps: Iterable[Step], embed: Appearance, shares: StageTimer) -> Iterator[Step]:
    """The same with appearance vectors."""
    for step in steps:
        assert step.picture is not None
        features = shares.timed("embed", embed, step.picture, step.found.boxes)
        yield Step(step.number, step.time, step.picture, step.found, features)


def followed(
    steps: Iterable[Step], tracker: Tracker, clip_rate: float | None, shares: StageTimer
) -> Iterator[tuple[Step, Tracks]]:
    """The tracks of each frame."""
    clock = FrameClock(clip_rate)
    for step in steps:
        found = step.found
        start = time.perf_counter()
        tracked = tracker.update(
            found.boxes, found.scores, found.labels, step.features, elapsed=clock.elapsed(step.number, step.time)
        )
        names = tuple(found.names[place] for place in tracked.detections.tolist())
        shares.add("associate", start)
        yield (
            step,
            Tracks(
                found.source,
                found.width,
                found.height,
                tracked.boxes.astype(np.float32),
                tracked.scores.astype(np.float32),
                tracked.labels,
                names,
                frame=step.number,
                time=step.time,
                ids=tracked.ids,
            ),
        )


class FrameClock:
    """How much time passes from frame to frame, in usual steps.

    Args:
        rate: frames a second; without it, by the frames' numbers.
    """

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._last: tuple[int, float | None] | None = None

    def elapsed(self, number: int, seconds: float | None) -> float:
        """Since the frame before: 1 in a steady video, 2 where one was dropped; 1 for the first."""
        before, self._last = self._last, (number, seconds)
        if before is None:
            return 1.0
        if seconds is None or before[1] is None or self._rate is None:
            return float(max(1, number - before[0]))
        step = (seconds - before[1]) * self._rate
        whole = round(step)
        return float(whole) if whole >= 1 and abs(step - whole) < _JITTER else max(step, _SHORTEST_STEP)


def stages(
    clip: VideoSource,
    detect: Callable[[Iterable[tuple[Frame, np.ndarray]]], Iterator[Step]],
    tracker: Tracker,
    embed: Appearance | None,
    on_damage: OnDamage,
    shares: StageTimer,
) -> Generator[tuple[Step, Tracks], None, None]:
    """All stages of a clip with pictures, each in a thread of its own; memory does not grow with the video.

    Args:
        clip: what is followed.
        detect: from frames to what is in them.
        tracker: that has seen nothing yet.
        embed: makes appearance vectors, if the tracker compares them.
        on_damage: told of frames that cannot be read; the others go on.
        shares: notes how long each stage works.
    """
    pictures = prefetch(decoded(clip, on_damage, shares), _AHEAD)
    steps: Iterator[Step] = detect(pictures)
    if embed is not None:
        steps = prefetch(embedded(steps, embed, shares), _AHEAD)
    try:
        yield from followed(steps, tracker, clip.rate, shares)
    finally:
        for stage in (steps, pictures):
            close = getattr(stage, "close", None)
            if close is not None:
                close()


def default_conf(tracker: str) -> float:
    """Minimum score of a detector's boxes: ByteTrack makes use of uncertain ones too."""
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
    on_damage: Callable[[HubelError], None] | None = None,
    **parameters: Any,
) -> Iterator[Tracks]:
    """Follow objects through a video.

    ::

        for tracks in hubel.track("street.mp4", model="runs/cars", tracker="sort", max_age=30):
            print(tracks.frame, tracks.ids, tracks.boxes)

    Args:
        source: a video, a folder of frames, or the number of a webcam; ``None`` where ``detections`` are enough.
        model: a detector: a registered name with weights, or a run folder.
        detections: a file of MOTChallenge text in its place.
        tracker: ``"sort"``, ``"deepsort"`` or ``"bytetrack"``.
        appearance: for ``"deepsort"``: a network with weights, a run folder, or a function of a picture, uint8
            (H, W, 3), and boxes (N, 4) that gives vectors (N, D) of length 1.
        classes: of the detector that are followed; all if ``None``.
        conf: least score of a box; for a model 0.25 by default, 0.1 for ``"bytetrack"``.
        rate: frames a second of a folder of frames.
        on_damage: told of frames that cannot be read, which are left out; by default they raise.
        parameters: of the tracker.

    Yields:
        The tracks of each frame.

    Raises:
        UsageError: what is given is too little or too much, or not what it may be.
        DataError, ImageError, ModelError, WeightsError: a file or the model is wrong.
    """
    if (model is None) == (detections is None):
        raise UsageError("where the objects are is said twice or not at all", "give model=RUN or detections=det.txt")
    follower, shares = create_tracker(tracker, **parameters), StageTimer()
    boxes = None if detections is None else read_mot_text(Path(detections))
    if boxes is not None and conf is not None:
        boxes = boxes.only(boxes.scores >= conf)
    if source is None:
        if boxes is None or follower.needs_features:
            raise UsageError(f"{tracker} with a model or appearances needs pictures", "name a video as source")
        for _, tracks in followed(detected_by_file(boxes, str(boxes.path), None), follower, None, shares):
            yield tracks
        return
    report = on_damage or _raise
    clip = open_clip(str(source), rate, report)
    embed = _embedder(appearance) if follower.needs_features else None
    if boxes is not None:
        detect: Callable[..., Any] = partial(detected_by_file, boxes, clip.source)
    else:
        from hubel.inference.predictor import Predictor

        assert model is not None
        least = default_conf(tracker) if conf is None else conf
        detect = partial(detected_by_model, Predictor(model, conf=least), clip.source, classes, shares)
    for _, tracks in stages(clip, detect, follower, embed, report, shares):
        yield tracks


def _raise(error: HubelError) -> None:
    raise error


def _embedder(appearance: str | Path | Appearance) -> Appearance:
    if callable(appearance):
        return appearance
    from hubel.inference.embedder import Embedder

    return Embedder(appearance)
