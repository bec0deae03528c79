"""Videos as they come: variable rates, turned, damaged, cut off, without times; and folders of frames."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hubel.data.video_reader import folder_frames, video_frames, video_length
from hubel.errors import ImageError

SIZE = (64, 48)


def shade(number: int) -> int:
    """The grey of frame ``number``, from 1: neighbours are far apart."""
    return 20 + (number * 37) % 200


def write(
    path: Path, frames: int = 30, codec: str = "libx264", stamps: list[int] | None = None, **options: str
) -> Path:
    """A video whose frame n is grey :func:`shade` (n); ``stamps`` are in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10, options=options)
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number in range(1, frames + 1):
            pixels = np.full((SIZE[1], SIZE[0], 3), shade(number), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[number - 1], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read(path: Path) -> tuple[dict[int, tuple[float, int]], list[str]]:
    """Number → time and mean grey of each frame; and what was said of damage."""
    faults: list[ImageError] = []
    found = {}
    for frame in video_frames(path, path.name, faults.append):
        found[frame.number] = frame.time, round(float(frame.array().mean()))
    return found, [error.message for error in faults]


def assert_true_to_their_numbers(found: dict[int, tuple[float, int]]) -> None:
    for number, (_, grey) in found.items():
        assert abs(grey - shade(number)) <= 6, f"frame {number}"


def test_every_frame_has_its_number_and_time(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    found, faults = read(path)
    assert list(found) == list(range(1, 31)) and faults == []
    assert [time for time, _ in found.values()] == pytest.approx([place / 10 for place in range(30)])
    assert_true_to_their_numbers(found)
    assert video_length(path, "a") == (30, 10)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_sound_before_the_images_costs_no_frame(suffix: str, tmp_path: Path) -> None:
    """The decoder's last frames come with a packet that ends the stream, and that no index names."""
    path = tmp_path / f"a{suffix}"
    with av.open(str(path), "w") as container:
        voice = container.add_stream("mp2", rate=44100, layout="mono")
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(1, 31):
            pixels = np.full((SIZE[1], SIZE[0], 3), shade(number), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
        for block in range(110):
            part = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            part.sample_rate, part.pts = 44100, block * 1152
            container.mux(voice.encode(part))
        container.mux(voice.encode(None))
    found, faults = read(path)
    assert list(found) == list(range(1, 31)) and faults == []
    assert_true_to_their_numbers(found)


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "libx264"), (".flv", "flv"), (".avi", "mpeg4")])
def test_frames_that_were_never_recorded_are_not_missing(suffix: str, codec: str, tmp_path: Path) -> None:
    """Recorders of screens leave out frames that are like the one before; all times are multiples of one period."""
    steps = np.random.default_rng(3).choice([1, 1, 1, 2, 5, 20], 80).cumsum()
    found, faults = read(write(tmp_path / f"a{suffix}", 80, codec, [int(step) * 100 for step in steps]))
    assert list(found) == list(range(1, 81)) and faults == []
    assert_true_to_their_numbers(found)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (bytes(5000), "is zeros, as an unfinished copy has, not a video"),
        (b"<!DOCTYPE html><html>", "is a web page, not a video"),
        (b"version https://git-lfs.github.com/spec/v1", "is a pointer of Git LFS, not a video"),
    ],
)
def test_what_is_there_in_the_place_of_a_video(content: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ImageError, match=f"a.mp4 {reason}"):
        read(tmp_path / "a.mp4")


def test_variable_frame_rate(tmp_path: Path) -> None:
    stamps = [0, 40, 120, 130, 500, 1000, 1033, 3000]
    found, _ = read(write(tmp_path / "a.mkv", frames=8, stamps=stamps))
    assert [time for time, _ in found.values()] == pytest.approx([stamp / 1000 for stamp in stamps], abs=1e-3)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".flv", ".mov"])
def test_a_video_that_starts_late_is_whole(tmp_path: Path, suffix: str) -> None:
    """A segment of a recording: the first frame is at five seconds."""
    found, faults = read(write(tmp_path / f"a{suffix}", frames=8, stamps=[5000 + 100 * n for n in range(8)]))
    assert faults == []
    assert [time for time, _ in found.values()] == pytest.approx([n / 10 for n in range(8)], abs=2e-3)
    assert_true_to_their_numbers(found)


def test_without_timestamps(tmp_path: Path) -> None:
    """A bare stream: times are those of the rate that it is read at."""
    whole = write(tmp_path / "a.mp4", bf="0")
    bare = tmp_path / "a.m4v"
    with av.open(str(whole)) as source, av.open(str(bare), "w", format="h264") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    found, _ = read(bare)
    assert list(found) == list(range(1, 31))
    assert_true_to_their_numbers(found)
    steps = np.diff([time for time, _ in found.values()])
    assert (steps > 0).all() and np.ptp(steps) < 1e-6


def test_a_damaged_frame_is_named_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    """Every frame stands for itself here, so exactly one is lost."""
    path = write(tmp_path / "a.avi", codec="mjpeg")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    place, size = packets[11].pos, packets[11].size
    data = bytearray(path.read_bytes())
    start = data.index(bytes(packets[11])[:40], place)
    data[start : start + size] = bytes(size)
    path.write_bytes(bytes(data))
    found, faults = read(path)
    assert 12 not in found
    assert list(found) == [number for number in range(1, 31) if number != 12]
    assert_true_to_their_numbers(found)
    assert len(faults) == 1 and "frame 12 is damaged" in faults[0]
    with pytest.raises(ImageError, match="frame 12"):
        list(video_frames(path, "a.avi"))


@pytest.mark.parametrize("suffix", [".mkv", ".avi"])
def test_cut_off(tmp_path: Path, suffix: str) -> None:
    """What was recorded is given; where the file knows better, the rest is said to be missing."""
    path = write(tmp_path / f"a{suffix}", frames=60, codec="mjpeg" if suffix == ".avi" else "libx264", g="5")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    found, faults = read(path)
    assert 15 <= len(found) < 60
    assert_true_to_their_numbers({number: row for number, row in found.items() if number < len(found)})
    assert any("cut off" in message or "damaged" in message for message in faults)


def test_an_mp4_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", frames=60)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(ImageError, match=r"a\.mp4 is cut off: an MP4 or QuickTime file has an index"):
        read(path)


def test_stamps_that_jump_back(tmp_path: Path) -> None:
    """Two recordings joined: time goes on."""
    first, second = (write(tmp_path / f"{name}.ts", frames=10, codec="mpeg2video") for name in "ab")
    path = tmp_path / "joined.mts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    times = [frame.time for frame in video_frames(path, "joined", lambda error: None)]
    assert len(times) >= 18
    assert all(after >= before for before, after in pairwise(times))


def test_folders_of_frames(tmp_path: Path) -> None:
    """By number where all have one; a missing image is a missing frame, a broken one says so."""
    for number in (1, 2, 10, 3):
        Image.new("L", (8, 6), shade(number)).save(tmp_path / f"{number:06d}.png")
    (tmp_path / "notes.txt").write_text("not a frame")
    frames = list(folder_frames(tmp_path, rate=20))
    assert [(frame.number, frame.time) for frame in frames] == [(1, 0), (2, 0.05), (3, 0.1), (10, 0.45)]
    assert [int(frame.array()[0, 0, 0]) for frame in frames] == [shade(n) for n in (1, 2, 3, 10)]
    (tmp_path / "000002.png").write_bytes(b"broken")
    with pytest.raises(ImageError, match=r"000002\.png"):
        frames[1].array()
    (tmp_path / "last.png").write_bytes((tmp_path / "000001.png").read_bytes())
    assert [frame.number for frame in folder_frames(tmp_path, 20)] == [1, 2, 3, 4, 5]


def test_folders_without_frames(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no images"):
        list(folder_frames(tmp_path, 20))
    with pytest.raises(ImageError, match="does not exist"):
        list(folder_frames(tmp_path / "no", 20))


def test_counting_from_zero(tmp_path: Path) -> None:
    for number in (0, 1, 2):
        Image.new("L", (8, 6)).save(tmp_path / f"{number}.png")
    assert [frame.number for frame in folder_frames(tmp_path, 20)] == [1, 2, 3]
