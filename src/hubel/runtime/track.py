"""Tracks of a video, frame by frame: what ``hubel track`` does, for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hubel.data.mot import read_mot_text
from hubel.errors import HubelError, UsageError
from hubel.results import Tracks
from hubel.runtime.following import Shares, detected_by_file, detected_by_model, followed, open_clip, stages
from hubel.tracking import Appearance, create_tracker

_LEAST_SCORE = {"bytetrack": 0.1}


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
    follower, shares = create_tracker(tracker, **parameters), Shares()
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
        from hubel.runtime.predictor import Predictor

        assert model is not None
        least = conf if conf is not None else _LEAST_SCORE.get(tracker, 0.25)
        detect = partial(detected_by_model, Predictor(model, conf=least), clip.source, classes, shares)
    for _, tracks in stages(clip, detect, follower, embed, report, shares):
        yield tracks


def _raise(error: HubelError) -> None:
    raise error


def _embedder(appearance: str | Path | Appearance) -> Appearance:
    if callable(appearance):
        return appearance
    from hubel.runtime.embedding import Embedder

    return Embedder(appearance)
