"""Videos that are written: what comes out of them again, and how they end."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from hubel.data.video_writer import VIDEO_FORMATS, VideoWriter
from hubel.drawing.boxes import colour_of
from hubel.drawing.tracks import Mark, TrackAnnotator
from hubel.errors import DataError, UsageError
from hubel.masks import encode
from hubel.results import Tracks


def shade(index: int) -> int:
    return 20 + (index * 37) % 200


def grey(index: int, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    return np.full((size[1], size[0], 3), shade(index), np.uint8)


def read(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


@pytest.mark.parametrize("suffix", VIDEO_FORMATS)
def test_what_is_written_is_read_again(tmp_path: Path, suffix: str) -> None:
    """Each frame, at its own time; AVI has a constant rate."""
    path = tmp_path / f"out{suffix}"
    times = [0, 0.1, 0.15, 0.4, 0.5, 1.0]
    with VideoWriter(path, 64, 48, rate=10) as writer:
        for index, time in enumerate(times):
            writer.write(grey(index), time)
    found = read(path)
    assert len(found) == len(times)
    for index, (_, pixels) in enumerate(found):
        assert abs(float(pixels.mean()) - shade(index)) < 6
    expected = [index / 10 for index in range(6)] if suffix == ".avi" else times
    assert [time for time, _ in found] == pytest.approx(expected, abs=2e-3)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_browser_can_play_it_while_it_loads(tmp_path: Path) -> None:
    """H.264 in 4:2:0, the index before the images."""
    with VideoWriter(tmp_path / "out.mp4", 64, 48) as writer:
        for index in range(30):
            writer.write(grey(index), index / 25)
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat") and b"moof" not in data
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")


def test_odd_sides_get_a_pixel_more(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", 63, 47) as writer:
        writer.write(grey(1, (63, 47)), 0)
    ((_, pixels),) = read(tmp_path / "out.mp4")
    assert pixels.shape == (48, 64, 3)
    assert abs(int(pixels[-1, -1, 0]) - shade(1)) < 6


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_written_before_an_error_plays(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), VideoWriter(tmp_path / "out.mp4", 64, 48) as writer:
        for index in range(12):
            writer.write(grey(index), index / 25)
        raise error
    kept = "out.mp4" if error is KeyboardInterrupt else "out.partial.mp4"
    assert len(read(tmp_path / kept)) == 12
    assert len(list(tmp_path.iterdir())) == 1


def test_nothing_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "out.mp4").write_text("before")
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "out.mp4", 64, 48):
        raise KeyboardInterrupt
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("out.mp4", "before")]


@pytest.mark.timeout(60)
def test_a_disk_that_gets_full_at_the_very_end_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def encode(self, frame: Any) -> Any:
            if frame is None:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self.stream.encode(frame)

    add = VideoWriter._stream
    monkeypatch.setattr(VideoWriter, "_stream", lambda writer, container: Full(add(writer, container)))
    with pytest.raises(DataError, match="the disk is full"), VideoWriter(tmp_path / "out.mkv", 64, 48) as writer:
        writer.write(grey(1), 0)


def test_unknown_suffixes_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.xyz") as caught:
        VideoWriter(tmp_path / "out.xyz", 64, 48)
    assert ".mp4" in caught.value.hint


def tracks(*rows: tuple[int, tuple[int, int, int, int]]) -> Tracks:
    boxes = np.array([box for _, box in rows], np.float32).reshape(-1, 4)
    labels, ids = np.zeros(len(rows), int), np.array([id_ for id_, _ in rows], int)
    return Tracks(None, 320, 240, boxes, np.ones(len(rows)), labels, ("person",) * len(rows), ids=ids)


GROUND = np.full((240, 320, 3), 128, np.uint8)


def test_an_id_keeps_its_colour_and_the_image_is_left_alone() -> None:
    painter = TrackAnnotator(trail=0)
    for shift in (0, 30):
        drawn = painter.annotate(GROUND, tracks((7, (60 + shift, 80, 120 + shift, 200))))
        assert tuple(drawn[150, 60 + shift]) == colour_of(7)
        assert tuple(drawn[150, 90 + shift]) == (128, 128, 128)
    assert (GROUND == 128).all()


def test_masks_are_drawn_instead_of_boxes() -> None:
    inside = np.zeros((240, 320), bool)
    inside[90:190, 70:110] = True
    found = replace(tracks((7, (60, 80, 120, 200))), masks=(encode(inside),))
    drawn = TrackAnnotator(trail=0).annotate(GROUND, found)
    np.testing.assert_allclose(drawn[140, 90], 0.55 * 128 + 0.45 * np.array(colour_of(7)), atol=1)
    assert tuple(drawn[150, 70]) == colour_of(7) and (drawn[130:, 56:66] == 128).all(), "no box"


def test_a_trail_shows_the_way_and_fades() -> None:
    """Where the feet were ten frames ago is drawn, a hundred frames ago no more."""
    painter = TrackAnnotator(trail=20)
    for step in range(100):
        drawn = painter.annotate(GROUND, tracks((3, (step, 100, 40 + step, 180))))
    assert (drawn[180, 20 + 89 - 2 : 20 + 89 + 3] == colour_of(3)).all(axis=1).any()
    assert (drawn[178:183, 25:60] == 128).all()
    for _ in range(20):
        drawn = painter.annotate(GROUND, tracks())
    assert (drawn == 128).all()


def test_lines_and_areas_are_drawn() -> None:
    line = Mark([(20, 120), (300, 120)], "gate: in 1, out 2")
    area = Mark([(100, 150), (200, 150), (200, 220), (100, 220)], "yard: 3")
    drawn = TrackAnnotator().annotate(GROUND, tracks(), [line, area])
    assert tuple(drawn[120, 290]) == (255, 214, 10)
    inside, outside = drawn[200, 150].astype(int), drawn[230, 150]
    assert inside[0] > 140 and tuple(outside) == (128, 128, 128)
