"""Videos damaged in the middle, or only seemingly: what is missing is told, and the rest keeps its numbers."""

from __future__ import annotations

import io
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hubel.data import video_reader
from hubel.data.video_numbering import FrameNumbers
from hubel.data.video_reader import video_frames
from hubel.errors import ImageError

FRAMES, SIZE = 120, (96, 64)


def shade(number: int) -> int:
    """The grey of frame ``number``, from 1: neighbours are far apart."""
    return 20 + (number * 37) % 200


def write(
    path: Path, format: str, codec: str, stamps: list[int] | None = None, sound: float = 0, **options: str
) -> bytes:
    """A video whose frame n is grey ``shade(n)`` beside noise; ``stamps`` are in milliseconds."""
    random = np.random.default_rng(0)
    count = FRAMES if stamps is None else len(stamps)
    with av.open(str(path), "w", format=format, options=options) as container:
        stream = container.add_stream(codec, rate=25, options={"g": "12"})
        stream.width, stream.height = SIZE
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        voice = container.add_stream("mp2", rate=44100, layout="mono") if sound else None
        for number in range(1, count + 1):
            pixels = np.full((SIZE[1], SIZE[0], 3), shade(number), np.uint8)
            pixels[:, :16] = random.integers(0, 255, (SIZE[1], 16, 3))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[number - 1], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if voice is not None:
            for block in range(int(sound * 44100 / 1152)):
                part = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
                part.sample_rate, part.pts = 44100, block * 1152
                container.mux(voice.encode(part))
            container.mux(voice.encode(None))
    return path.read_bytes()


def read(path: Path) -> tuple[dict[int, float], list[str]]:
    """Number → mean grey of each frame; and what was said of damage."""
    faults: list[ImageError] = []
    found = {f.number: float(f.array()[:, 20:].mean()) for f in video_frames(path, path.name, faults.append)}
    return found, [error.message for error in faults]


KINDS = [
    ("a.mkv", "matroska", "mpeg4"),
    ("a.ts", "mpegts", "libx264"),
    ("b.ts", "mpegts", "mpeg2video"),
    ("a.mpg", "mpeg", "mpeg2video"),
    ("a.flv", "flv", "flv"),
    ("b.flv", "flv", "libx264"),
    ("a.mp4", "mp4", "libx264"),
    ("a.avi", "avi", "mpeg4"),
    ("a.wmv", "asf", "wmv2"),
]
WITHOUT_TIMES = ("a.avi",)


@pytest.mark.parametrize(("name", "format", "codec"), KINDS)
def test_a_whole_video_has_nothing_to_tell(tmp_path: Path, name: str, format: str, codec: str) -> None:
    write(tmp_path / name, format, codec)
    found, faults = read(tmp_path / name)
    assert (list(found), faults) == (list(range(1, FRAMES + 1)), [])


@pytest.mark.parametrize(("name", "format", "codec"), KINDS)
@pytest.mark.parametrize("damage", ["overwritten", "cut out"])
def test_damage_in_the_middle_is_told_and_numbers_stay(
    tmp_path: Path, name: str, format: str, codec: str, damage: str
) -> None:
    data = write(tmp_path / name, format, codec, **({"cluster_time_limit": "400"} if format == "matroska" else {}))
    first, end = len(data) // 2, len(data) * 5 // 8
    hole = bytes(end - first) if damage == "overwritten" else b""
    (tmp_path / name).write_bytes(data[:first] + hole + data[end:])
    if format == "mp4" and damage == "cut out":
        with pytest.raises(ImageError, match="is cut off"):  # its index says where each frame was
            read(tmp_path / name)
        return
    found, faults = read(tmp_path / name)
    assert faults and len(found) < FRAMES
    if name in WITHOUT_TIMES and damage == "cut out":
        assert any(f"but should have {FRAMES}" in fault for fault in faults)
        return
    if format == "mpeg":  # its timestamps are off by one for a while
        assert abs(list(found)[-1] - FRAMES) <= 1
        return
    assert list(found)[-1] == FRAMES
    lost = set(range(1, FRAMES + 1)) - set(found)
    told = [int(word) for fault in faults for word in fault.replace(":", " ").split() if word.isdigit()]
    assert {min(lost), max(lost)} <= {*told, *(n + 1 for n in told)}
    # Behind the next frame that stands for itself, all are as they were.
    assert all(abs(found[number] - shade(number)) <= 8 for number in found if number < min(lost) - 2)
    assert all(abs(found[number] - shade(number)) <= 8 for number in found if number > max(lost) + 13)


@pytest.mark.parametrize(("name", "format", "codec"), [kind for kind in KINDS if kind[1] != "mp4"])
def test_a_video_cut_off_anywhere_is_told(tmp_path: Path, name: str, format: str, codec: str) -> None:
    data = write(tmp_path / name, format, codec)
    for part in (0.5, 0.63, 0.71):
        (tmp_path / name).write_bytes(data[: int(part * len(data)) | 1])
        found, faults = read(tmp_path / name)
        assert faults and len(found) < 0.8 * FRAMES
        assert list(found) == list(range(1, len(found) + 1))


def test_a_video_with_sound_is_cut_off(tmp_path: Path) -> None:
    data = write(tmp_path / "a.mkv", "matroska", "mpeg4", sound=5)
    assert read(tmp_path / "a.mkv")[1] == []
    (tmp_path / "a.mkv").write_bytes(data[: len(data) // 2])
    assert any("but should last" in fault for fault in read(tmp_path / "a.mkv")[1])


VARIABLE = {
    "irregular": [0, 40, 120, 130, 500, 1000, 1033, 3000],
    "a screen that rests": [*range(0, 280, 40), 3000, 3040, 3080, 7000],
    "one frame skipped by the camera": [40 * n for n in range(60) if n != 30],
    "two frames skipped": [40 * n for n in range(60) if n not in (30, 31)],
    "29.97 frames a second in milliseconds": [round(n * 1001 / 30) for n in range(90)],
    "120 frames a second in milliseconds": [round(n * 1000 / 120) for n in range(90)],
    "slower in the dark": [*range(0, 1000, 33), *range(1050, 3000, 66)],
    "an hour between two recordings": [*range(0, 1000, 40), *range(3_600_000, 3_601_000, 40)],
}


@pytest.mark.parametrize("stamps", VARIABLE.values(), ids=VARIABLE)
@pytest.mark.parametrize(("name", "format"), [("a.mkv", "matroska"), ("a.mp4", "mp4"), ("a.flv", "flv")])
def test_a_variable_rate_is_no_damage(tmp_path: Path, name: str, format: str, stamps: list[int]) -> None:
    write(tmp_path / name, format, "mpeg4" if format != "flv" else "flv", stamps)
    faults: list[ImageError] = []
    frames = list(video_frames(tmp_path / name, name, faults.append))
    assert faults == []
    assert [frame.number for frame in frames] == list(range(1, len(stamps) + 1))
    if format == "matroska":
        assert [frame.time for frame in frames] == pytest.approx([stamp / 1000 for stamp in stamps], abs=2e-3)


def test_what_an_edit_list_leaves_out_is_not_missing(tmp_path: Path) -> None:
    """As programs trim an MP4 without encoding it again."""
    data = bytearray(write(tmp_path / "a.mp4", "mp4", "mpeg4"))
    at = data.find(b"elst")
    assert data[at + 8 : at + 12] == b"\0\0\0\1"
    duration = int.from_bytes(data[at + 12 : at + 16], "big")
    data[at + 12 : at + 16] = (duration // 2).to_bytes(4, "big")
    (tmp_path / "a.mp4").write_bytes(data)
    found, faults = read(tmp_path / "a.mp4")
    assert faults == []
    assert len(found) == pytest.approx(FRAMES // 2, abs=3)


def numbered(stamps: list[float | None], **known: object) -> tuple[list[int], list[range]]:
    """Numbers of frames, and ranges that are missing, for timestamps in periods of a frame; ``None`` is refused."""
    numbers, found, lost = FrameNumbers(0.04, **known), [], []
    for stamp in stamps:
        if stamp is None:
            numbers.refuse()
        else:
            lost.append(numbers.take(stamp * 0.04))
            found.append(numbers.number)
    return found, [one for one in [*lost, numbers.finish()] if one]


def test_numbers_by_time() -> None:
    assert numbered([100, 101, 102]) == ([1, 2, 3], [])
    # Without another sign, a gap tells behind enough equal intervals, and if it is longer than what cameras skip.
    assert numbered([*range(20), *range(25, 30)]) == ([*range(1, 21), *range(26, 31)], [range(21, 26)])
    assert numbered([*range(20), *range(22, 30)])[1] == []
    assert numbered([0, 1, 2, 10, 11])[1] == []
    assert numbered([*range(20), *range(25, 30)], counted=True)[1] == []
    assert numbered([*range(20), 20.5, *range(25, 30)])[1] == []
    assert numbered([*range(20), *range(9000, 9005)])[1] == []  # another recording
    # A refused frame is where the time has a hole, also if others come late.
    assert numbered([0, 1, 2, None, 4, 5]) == ([1, 2, 3, 5, 6], [range(4, 5)])
    assert numbered([0, 1, None, None, 2, 5, 6], counted=True) == ([1, 2, 3, 6, 7], [range(4, 6)])
    assert numbered([0, 1, 2, None]) == ([1, 2, 3], [range(4, 5)])
    assert numbered([None, 0, 1]) == ([2, 3], [range(1, 2)])
    # Timestamps that run ahead for a while, as MPEG's do.
    assert numbered([0, 1, 2, 4, 5, 6, 6, 7]) == ([1, 2, 3, 4, 5, 6, 7, 8], [])


def test_a_stream_of_data_that_begins_late_is_passed_over(tmp_path: Path) -> None:
    """A damaged tag of an FLV makes one: at the end nothing can be asked of its decoder, as it has none."""
    data = bytearray(write(tmp_path / "a.flv", "flv", "flv"))
    at = 13
    for _ in range(61):
        at += int.from_bytes(data[at + 1 : at + 4], "big") + 15
    data[at - 1], data[at] = 0, 18  # the size of frame 60, the kind of what follows
    (tmp_path / "a.flv").write_bytes(data)
    shown, faults = read(tmp_path / "a.flv")
    assert len(shown) == FRAMES - 1
    assert [fault for fault in faults if "decode" in fault] == []


BARE = {"a.h264": ("h264", "libx264"), "a.hevc": ("hevc", "libx265"), "a.mjpeg": ("mjpeg", "mjpeg")}


@pytest.mark.parametrize("name", BARE)
@pytest.mark.parametrize("damage", ["none", "zeros", "random", "cut"])
def test_damage_in_streams_without_a_container_is_told(name: str, damage: str, tmp_path: Path) -> None:
    """Nothing numbers their frames: what is said is that some are missing."""
    path = tmp_path / name
    data = bytearray(write(path, *BARE[name]))
    start, length = len(data) * 2 // 5, len(data) // 10
    if damage == "zeros":
        data[start : start + length] = bytes(length)
    elif damage == "random":
        data[start : start + length] = np.random.default_rng(1).integers(0, 256, length, np.uint8).tobytes()
    elif damage == "cut":
        del data[start : start + length]
    path.write_bytes(data)
    found, said = read(path)
    if damage == "none":
        assert (len(found), said) == (FRAMES, [])
    else:
        assert len(found) < FRAMES
        assert said and ("cannot be decoded" in said[0] or "damaged" in said[0])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.mjpeg", BARE["a.mjpeg"]), ("a.y4m", ("yuv4mpegpipe", "wrapped_avframe")), ("a.wmv", ("asf", "wmv2"))],
)
def test_the_end_of_a_file_that_is_cut_off_is_told(name: str, kind: tuple[str, str], tmp_path: Path) -> None:
    path = tmp_path / name
    data = write(path, *kind)
    assert read(path)[1] == []
    path.write_bytes(data[: len(data) * 7 // 10])
    found, said = read(path)
    assert 60 < len(found) < FRAMES
    assert len(said) == 1 and ("cut off" in said[0] or "is damaged" in said[0])


def test_frames_of_any_size_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a.mp4", "mp4", "mpeg4")
    monkeypatch.setattr(video_reader, "_MAX_PIXELS", 96 * 64 - 1)
    with pytest.raises(ImageError, match="has frames of 96×64 pixels, more than the limit"):
        read(tmp_path / "a.mp4")
    # What passes the header is bounded by the decoder, which adds margins of 64 pixels on each side.
    monkeypatch.setattr(video_reader, "_MAX_PIXELS", 96 * 64)
    with pytest.raises(ImageError, match="no frames"):
        read(tmp_path / "a.mp4")


def test_a_stream_that_the_library_does_not_know_ends_nothing_but_the_packets() -> None:
    class Container:
        def demux(self) -> Iterator[int]:
            yield from (1, 2)
            raise IndexError("list index out of range")  # as PyAV does for a stream that was added late

    assert list(video_reader._packets(Container())) == [1, 2]


@pytest.mark.parametrize("options", [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_blocks": 4}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_images_are_whole_motion_jpeg(mode: str, options: dict[str, int], tmp_path: Path) -> None:
    """Their coded pixels may be nothing but zeros."""
    file = io.BytesIO()
    Image.new(mode, (320, 240)).save(file, "JPEG", **options)
    (tmp_path / "a.mjpeg").write_bytes(5 * file.getvalue())
    found, said = read(tmp_path / "a.mjpeg")
    assert (len(found), said) == (5, [])


def test_a_video_of_an_unknown_codec_has_no_frames(tmp_path: Path) -> None:
    data = write(tmp_path / "a.avi", "avi", "mpeg4")
    (tmp_path / "a.avi").write_bytes(data.replace(b"FMP4", b"\x01\x02\x03\x04"))
    with pytest.raises(ImageError, match="no frames"):
        read(tmp_path / "a.avi")
