"""The stages of tracking: time between frames, threads that hand on, a detector of one's own."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

import hubel
from hubel.data.sources import ImageSource
from hubel.data.video_reader import StillFrame
from hubel.inference.pipeline import prefetch
from hubel.inference.video_tracking import FrameClock, StageTimer, associate, detect_with_model
from hubel.masks import encode, mask_box
from hubel.models import save_model
from hubel.models.checkpoint import describe
from hubel.results import Instances
from hubel.tracking import create_tracker


def test_time_is_counted_in_usual_steps() -> None:
    """Ten frames a second: steady with jitter, one dropped, three dropped, at half the pace, twice at once."""
    clock = FrameClock(10)
    times = [0.0, 0.1, 0.201, 0.4, 0.8, 0.95, 0.95]
    elapsed = [clock.elapsed(number, time) for number, time in enumerate(times, 1)]
    assert elapsed == pytest.approx([1, 1, 1, 2, 4, 1.5, 0.05])
    numbers = FrameClock(None)
    assert [numbers.elapsed(number, None) for number in (1, 2, 5, 6)] == [1, 1, 3, 1]


def test_frames_between_are_no_time() -> None:
    """Of every fifth frame each is the next, by times as by numbers, and a dropped one counts twice."""
    for clock, seconds in ((FrameClock(10 / 5, 5), True), (FrameClock(None, 5), False)):
        times = [clock.elapsed(number, (number - 1) / 10 if seconds else None) for number in (1, 6, 11, 21)]
        assert times == [1, 1, 1, 2]


def test_items_come_in_order_and_no_more_than_asked() -> None:
    taken = []

    def source() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    stage = prefetch(source(), 3)
    assert [next(stage) for _ in range(5)] == [0, 1, 2, 3, 4]
    stage.close()
    assert len(taken) <= 5 + 3 + 2
    assert not any(thread.name.startswith("hubel-") for thread in threading.enumerate())
    assert list(prefetch(range(50), 2)) == list(range(50))


def test_an_error_comes_up_where_its_item_would_have() -> None:
    def source() -> Iterator[int]:
        yield 1
        raise KeyError("two")

    stage = prefetch(source(), 4)
    assert next(stage) == 1
    with pytest.raises(KeyError, match="two"):
        next(stage)


def test_closing_closes_the_source() -> None:
    ended = threading.Event()

    def source() -> Iterator[int]:
        try:
            while True:
                yield 0
        finally:
            ended.set()

    stage = prefetch(source(), 1)
    next(stage)
    stage.close()
    assert ended.is_set()


class Instancer:
    """In place of a predictor: a square mask in each box, which are in another order in each frame."""

    metadata = SimpleNamespace(task="instances", classes=["ball", "cube"])
    model_name = "squares"

    def stream_sources(self, sources: Iterable[ImageSource]) -> Iterator[Instances]:
        boxes = np.array([[8, 8, 28, 28], [40, 8, 60, 28], [8, 40, 28, 60]], np.float32)
        labels = np.array([0, 1, 0])
        for source in sources:
            order = np.roll([0, 1, 2], source.frame or 0)
            masks = []
            for x1, y1, x2, y2 in boxes[order].astype(int):
                pixels = np.zeros((64, 64), bool)
                pixels[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2] = True
                masks.append(encode(pixels))
            names = tuple(self.metadata.classes[label] for label in labels[order])
            yield Instances(
                None, 64, 64, boxes[order], np.full(3, 0.9, np.float32), labels[order], names, tuple(masks),
                frame=source.frame,
            )  # fmt: skip


def test_tracks_keep_the_masks_of_their_objects() -> None:
    """Also where only some classes are tracked."""
    grey = np.full((64, 64, 3), 128, np.uint8)
    frames = [(StillFrame(number, number / 10, Path("a.png")), grey) for number in range(1, 5)]
    timer = StageTimer()
    states = detect_with_model(Instancer(), "clip.mp4", ["ball"], timer, iter(frames))  # type: ignore[arg-type]
    tracked = [tracks for _, tracks in associate(states, create_tracker("sort", min_hits=1), None, timer)]
    assert [len(tracks) for tracks in tracked] == [2] * 4 and {tuple(tracks.ids) for tracks in tracked} == {(1, 2)}
    for tracks in tracked:
        assert tracks.names == ("ball", "ball") and tracks.masks is not None
        for box, mask in zip(tracks.boxes, tracks.masks, strict=True):
            np.testing.assert_allclose(mask_box(mask), box + np.array([2, 2, -2, -2]), atol=0.5)
        assert [row["mask"] for row in tracks.to_json()["objects"]] == [mask.to_coco() for mask in tracks.masks]


def test_a_detector_of_ones_own(tmp_path: Path) -> None:
    """The boxes are those that the predictor finds in the same frames; a class that is not wanted is left out."""
    torch.manual_seed(0)
    model = hubel.create_model("ssd", num_classes=2, backbone="efficientnet_lite0")
    save_model(tmp_path / "run" / "best", model, describe(model))
    rng = np.random.default_rng(0)
    clip = tmp_path / "clip.mkv"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "bgr0"
        for _ in range(4):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 255, (64, 96, 3), dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    predict = hubel.Predictor(tmp_path / "run", conf=0.5)
    expected = list(predict(str(clip)))
    names = predict.metadata.classes
    found = list(hubel.track(clip, model=tmp_path / "run", conf=0.5, tracker="sort", min_hits=9, max_age=0))
    assert [tracks.frame for tracks in found] == [1, 2, 3, 4]
    first, detections = found[0], expected[0]
    assert len(first) == len(detections) > 0
    np.testing.assert_allclose(np.sort(first.boxes, axis=0), np.sort(detections.boxes, axis=0), atol=1e-2)
    assert sorted(first.names) == sorted(detections.names)
    only = list(hubel.track(clip, model=tmp_path / "run", conf=0.5, tracker="sort", min_hits=9, classes=[names[0]]))
    assert set(only[0].names) <= {names[0]}
    assert len(only[0]) == sum(name == names[0] for name in detections.names)
    with pytest.raises(hubel.HubelError, match="no class dragon"):
        next(hubel.track(clip, model=tmp_path / "run", tracker="sort", classes=["dragon"]))
