"""What a file is, its bytes say."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from hubel.data.file_kinds import PREFIX_BYTES, image_kind, is_image, is_image_file, is_video

NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("format", "kind"),
    [("JPEG", "JPEG"), ("PNG", "PNG"), ("GIF", "GIF"), ("WEBP", "WebP"), ("BMP", "BMP"), ("TIFF", "TIFF"),
     ("JPEG2000", "JPEG 2000"), ("AVIF", "AVIF"), ("PPM", "Netpbm")],
)  # fmt: skip
def test_images_as_pillow_writes_them(format: str, kind: str) -> None:
    file = io.BytesIO()
    Image.fromarray(NOISE).save(file, format)
    prefix = file.getvalue()[:PREFIX_BYTES]
    assert image_kind(prefix) == kind
    assert is_image(prefix) and not is_video(prefix)


@pytest.mark.parametrize(
    ("format", "codec"),
    [("mp4", "libx264"), ("mov", "mjpeg"), ("matroska", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4"),
     ("mpegts", "libx264"), ("mpeg", "mpeg2video"), ("vob", "mpeg2video"), ("mpeg2video", "mpeg2video"), ("flv", "flv"),
     ("asf", "wmv2"), ("3gp", "mpeg4"), ("h264", "libx264"), ("hevc", "libx265"), ("ivf", "libvpx"),
     ("yuv4mpegpipe", "wrapped_avframe"), ("mxf", "mpeg2video"), ("nut", "mpeg4")],
)  # fmt: skip
def test_videos_as_ffmpeg_writes_them(tmp_path: Path, format: str, codec: str) -> None:
    path = tmp_path / "video"
    with av.open(str(path), "w", format=format) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = (352, 288) if format in ("3gp", "mxf") else (64, 48)
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        pixels = np.random.default_rng(0).integers(0, 255, (stream.height, stream.width, 3), np.uint8)
        for _ in range(4):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    prefix = path.read_bytes()[:PREFIX_BYTES]
    assert is_video(prefix) and image_kind(prefix) is None


@pytest.mark.parametrize("parity", [0, 4, 16])
def test_transport_streams_of_each_packet_size_and_begun_anywhere(parity: int) -> None:
    packet = b"\x47\x01\x00\x10" + bytes(184)
    stream = (packet + bytes(parity)) * 20
    for start in (0, 1, 100, 187):
        assert is_video(stream[start : start + PREFIX_BYTES])
    assert not is_video(stream.replace(b"\x47", b"\x46")[:PREFIX_BYTES])


@pytest.mark.parametrize(
    ("prefix", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypheix\0\0\0\0mif1heix", "HEIC"),
        (b"\0\0\0\x18ftypmsf1\0\0\0\0msf1hevc", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "AVIF"),
        (b"\0\0\0\x1cftypavis\0\0\0\0avifmif1miaf", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", None),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  ", None),
        (b"8BPS\0\1", "Photoshop"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"<!-- a - b -- c -->\n<!DOCTYPE svg>\n<!----><svg:svg>", "SVG"),
        (b"<!-- <svg> -->", None),
        pytest.param(290 * b"<!---->" + b"<html>", None, id="nothing but comments"),
        (b"<html><body><p>404 not found</p>", None),
    ],
)
def test_kinds_by_their_first_bytes(prefix: bytes, kind: str | None) -> None:
    assert image_kind(prefix + bytes(100)) == kind
    assert is_video(prefix + bytes(100)) == (kind is None and b"ftyp" in prefix)


@pytest.mark.parametrize("text", [b"", b"G" * 3000, b"export const a = 1;\n" * 100, b"GATTACA\n" * 300, bytes(3000)])
def test_text_is_neither(text: bytes) -> None:
    assert not is_video(text[:PREFIX_BYTES]) and image_kind(text) is None


def test_images_without_a_suffix_that_says_so(tmp_path: Path) -> None:
    for name in ("rose", "rose.0001", "rose.jpg_large", "rose.jpg?size=2", "rose.txt", "rose.tmp"):
        Image.fromarray(NOISE).save(tmp_path / name, "JPEG")
    assert {path.name for path in tmp_path.iterdir() if is_image_file(path)} == {
        "rose", "rose.0001", "rose.jpg_large", "rose.jpg?size=2",
    }  # fmt: skip
    (tmp_path / "README").write_text("BM is not a bitmap here")
    (tmp_path / "broken.jpg").write_text("not a photograph")
    assert not is_image_file(tmp_path / "README")
    assert is_image_file(tmp_path / "broken.jpg")  # reading it says what is wrong
