"""Damage that costs no pixel costs no image; damage that does is an error."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hubel.data.image_io import read_image, read_reduced, read_size
from hubel.errors import ImageError

NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)


def encoded(kind: str, pixels: np.ndarray = NOISE, **options: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def pixels(data: bytes) -> list:
    return np.asarray(read_image(data)).tolist()


# --- PNG ---

PNG = encoded("PNG")


def chunk(kind: bytes, content: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)


def at_beginning(extra: bytes) -> bytes:
    return PNG[:33] + extra + PNG[33:]


def at_end(extra: bytes) -> bytes:
    return PNG[:-12] + extra + PNG[-12:]


LARGE = zlib.compress(bytes(2_000_000))
ODD_CHUNKS = [
    chunk(b"iCCP", b"profile\0\0" + LARGE),
    chunk(b"zTXt", b"Comment\0\0" + LARGE),
    chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE),
    chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE),
    chunk(b"zTXt", b"Raw profile type exif\0\0" + LARGE),
    chunk(b"tEXt", b"Comment\0wrong checksum", 1),
    chunk(b"eXIf", b"wrong checksum", 1),
    chunk(b"gAMA", b"\0"),
    chunk(b"pHYs", b""),
    chunk(b"sRGB", b""),
    chunk(b"acTL", b"\0"),
]


@pytest.mark.parametrize("place", [at_beginning, at_end])
@pytest.mark.parametrize("extra", ODD_CHUNKS, ids=lambda extra: repr(extra[4:20]))
def test_a_png_is_read_whatever_its_metadata(place: object, extra: bytes) -> None:
    data = place(extra)
    assert pixels(data) == NOISE.tolist()
    assert read_size(data) == (64, 48)


def test_the_orientation_of_a_png_survives_the_repair() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = np.rot90(NOISE, -1).tolist()
    block = exif.tobytes().removeprefix(b"Exif\0\0")
    hexadecimal = b"\nexif\n%8d\n" % len(exif.tobytes()) + exif.tobytes().hex().encode() + b"\n"
    for good in (
        chunk(b"eXIf", block),
        chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(hexadecimal)),
        chunk(b"tEXt", b"Raw profile type exif\0" + hexadecimal),
    ):
        data = at_beginning(ODD_CHUNKS[0] + good)
        assert read_size(data) == (48, 64)
        assert pixels(data) == turned


def test_a_png_without_its_last_chunk_is_read_and_one_without_pixels_is_not() -> None:
    assert pixels(PNG[:-12]) == NOISE.tolist()
    with pytest.raises(ImageError, match="is truncated"):
        read_image(at_beginning(ODD_CHUNKS[0])[: -len(PNG) // 2])


def test_orientation_behind_the_pixels_is_in_the_size_too() -> None:
    """As exiftool may write it."""
    exif = Image.Exif()
    exif[0x0112] = 8
    data = at_end(chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")))
    assert read_size(data) == read_image(data).size == (48, 64)


# --- JPEG ---

GRADIENT = np.stack(np.broadcast_arrays(np.arange(64, dtype=np.uint8) * 4, np.arange(48)[:, None] * 5, 90), -1)
JPEGS = {
    "baseline": encoded("JPEG", quality=90),
    "progressive": encoded("JPEG", quality=90, progressive=True),
    "smooth": encoded("JPEG", GRADIENT.astype(np.uint8), quality=95, progressive=True, subsampling=0),
    "grey": encoded("JPEG", NOISE[..., 0], quality=60, optimize=True),
    "restarts": encoded("JPEG", quality=90, restart_marker_blocks=2),
    "restarts and progressive": encoded("JPEG", quality=90, restart_marker_rows=1, progressive=True),
    "coarse": encoded("JPEG", GRADIENT.astype(np.uint8), quality=30, subsampling=2),
}


@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
def test_a_jpeg_without_its_end_marker_has_all_its_pixels(data: bytes) -> None:
    whole = pixels(data)
    for ending in (data[:-2], data[:-1], data[:-2] + bytes(512), data[:-1] + b"\xff"):
        assert pixels(ending) == whole
    half = read_reduced(data, lambda *_: 2)
    assert np.array_equal(np.asarray(read_reduced(data[:-2], lambda *_: 2).image), np.asarray(half.image))


@pytest.mark.parametrize("data", JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize("part", [0.3, 0.5, 0.7, 0.9, 0.97])
def test_a_jpeg_without_a_part_of_its_pixels_is_truncated(data: bytes, part: float) -> None:
    for padding in (b"", bytes(100)):
        with pytest.raises(ImageError, match="is (truncated|damaged)"):
            read_image(data[: int(part * len(data))] + padding)


def test_a_progressive_jpeg_cut_between_two_scans_is_truncated() -> None:
    data = JPEGS["progressive"]
    scans = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 5
    for start in scans[1:]:
        header = data.rfind(b"\xff\xc4", 0, start)  # its tables go with it
        with pytest.raises(ImageError, match="is truncated"):
            read_image(data[: max(header, scans[scans.index(start) - 1] + 20)])


def test_a_jpeg_cut_between_two_restarts_is_truncated() -> None:
    data = JPEGS["restarts"]
    markers = [at for at in range(len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    for at in (markers[2], markers[-1]):
        for cut in (at, at + 2):
            with pytest.raises(ImageError, match="is truncated"):
                read_image(data[:cut])


@pytest.mark.parametrize("rest", [bytes(1000), b"appended by a camera" * 50, b"\xff\xd8\xff\xe0 half a preview"])
def test_bytes_behind_the_end_are_passed_over(rest: bytes) -> None:
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"):
        data = encoded(kind)
        assert pixels(data + rest) == pixels(data)
