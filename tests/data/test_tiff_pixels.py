"""TIFFs of every layout of samples: the right pixels, or a sentence that says what is not supported."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from hubel.data.image_io import read_image, read_size
from hubel.errors import ImageError

WIDTH, HEIGHT = 64, 6
RAMP = np.tile(np.linspace(0, 255, WIDTH).round().astype(np.uint8), (HEIGHT, 1))
COLORS = np.stack((RAMP, 255 - RAMP, np.full_like(RAMP, 100)), -1)
GREY = np.repeat(RAMP[..., None], 3, 2).astype(int)


def tiff(
    values: np.ndarray, photometric: int, bits: int, order: str = "<", planar: bool = False, **tags: list
) -> bytes:
    """An uncompressed TIFF by the specification; samples of 8, 16, … bits in ``values``, (H, W) or (H, W, S)."""
    samples = values.shape[2] if values.ndim == 3 else 1
    if values.dtype.itemsize > 1:
        values = values.astype(values.dtype.newbyteorder(order))
    data = (values.transpose(2, 0, 1) if planar else values).tobytes()
    parts = samples if planar else 1
    length = len(data) // parts
    fields = {
        256: ("I", [WIDTH]), 257: ("I", [HEIGHT]), 258: ("H", [bits] * samples), 259: ("H", [1]),
        262: ("H", [photometric]),
        273: ("I", [0] * parts), 277: ("H", [samples]), 278: ("I", [HEIGHT]), 279: ("I", [length] * parts),
        284: ("H", [2 if planar else 1]),
    }  # fmt: skip
    numbers = {"colors": 320, "extra": 338, "sample_format": 339}
    fields |= {numbers.get(name) or int(name): ("H", content) for name, content in tags.items()}
    sizes = {tag: struct.calcsize(f"{len(content)}{kind}") for tag, (kind, content) in fields.items()}
    outside = 8 + 2 + 12 * len(fields) + 4
    start = outside + sum(size for size in sizes.values() if size > 4)
    fields[273] = ("I", [start + index * length for index in range(parts)])
    entries = extra = b""
    for tag, (kind, content) in sorted(fields.items()):
        packed = struct.pack(f"{order}{len(content)}{kind}", *content)
        if sizes[tag] > 4:
            packed, extra = struct.pack(f"{order}I", outside + len(extra)), extra + packed
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4}[kind], len(content)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(fields))
    return head + entries + bytes(4) + extra + data


def deflated(data: bytes, order: str) -> bytes:
    """The same TIFF, compressed: Pillow decodes it by libtiff."""
    count = struct.unpack_from(f"{order}H", data, 8)[0]
    places = {struct.unpack_from(f"{order}H", data, at)[0]: at for at in range(10, 10 + 12 * count, 12)}
    start = struct.unpack_from(f"{order}I", data, places[273] + 8)[0]
    packed = zlib.compress(data[start:])
    changed = bytearray(data[:start])
    struct.pack_into(f"{order}I", changed, places[279] + 8, len(packed))
    struct.pack_into(f"{order}H", changed, places[259] + 8, 8)
    return bytes(changed) + packed


def difference(data: bytes, expected: np.ndarray) -> int:
    return int(np.abs(np.asarray(read_image(data)).astype(int) - expected).max())


def bits_of(values: np.ndarray, bits: int) -> np.ndarray:
    """Values of fewer than 8 bits, packed into bytes."""
    per_byte = 8 // bits
    shifted = [values[:, index::per_byte] << (8 - bits * (index + 1)) for index in range(per_byte)]
    return np.bitwise_or.reduce(shifted).astype(np.uint8)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("scale", [1, 257])
def test_palettes_of_8_and_of_16_bit_values(order: str, bits: int, scale: int) -> None:
    indices = RAMP >> (8 - bits)
    red = np.linspace(0, 255, 1 << bits).round().astype(int)
    colors = [int(value) * scale for band in (red, 255 - red, np.full_like(red, 128)) for value in band]
    expected = np.stack((red[indices], 255 - red[indices], np.full_like(indices, 128, int)), -1)
    assert difference(tiff(bits_of(indices, bits), 3, bits, order, colors=colors), expected) == 0


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("values", "bits", "tags"),
    [
        (RAMP, 8, {}),
        (RAMP.astype(np.uint16) * 257, 16, {}),
        (RAMP.astype(np.float32) / 255, 32, {"sample_format": [3]}),
        (RAMP.astype(np.float32), 32, {"sample_format": [3]}),
        (RAMP.astype(np.int32) * 257, 32, {"sample_format": [2]}),
        (np.minimum(RAMP.astype(np.uint32) * 16843009, 2**32 - 1), 32, {}),
    ],
    ids=["8", "16", "float 0..1", "float 0..255", "signed 32", "unsigned 32"],
)
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_grey_is_right_or_refused(order: str, values: np.ndarray, bits: int, tags: dict, white_is_zero: bool) -> None:
    data = tiff(values, 0 if white_is_zero else 1, bits, order, **tags)
    try:
        assert difference(data, 255 - GREY if white_is_zero else GREY) <= 1
    except ImageError as error:
        assert f"{bits} bits per pixel, which is not supported" in error.message
        assert bits > 8 and (order == ">" or white_is_zero)  # what people have is read


def test_12_bits() -> None:
    values = (RAMP.astype(int) * 4095 + 127) // 255
    even, odd = values[:, ::2], values[:, 1::2]
    packed = np.stack((even >> 4, (even & 15) << 4 | odd >> 8, odd & 255), -1).astype(np.uint8)
    assert difference(tiff(packed.reshape(HEIGHT, -1), 1, 12), GREY) <= 1


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("planar", [False, True])
def test_colors(order: str, planar: bool) -> None:
    assert difference(tiff(COLORS, 2, 8, order, planar), COLORS.astype(int)) == 0
    opaque = np.dstack((COLORS, np.full_like(RAMP, 255)))
    assert difference(tiff(opaque, 2, 8, order, planar, extra=[2]), COLORS.astype(int)) == 0
    ink = np.dstack((255 - COLORS, np.zeros_like(RAMP)))
    assert difference(tiff(ink, 5, 8, order), COLORS.astype(int)) == 0
    deep = COLORS.astype(np.uint16) * 257
    if not planar:
        assert difference(tiff(deep, 2, 16, order), COLORS.astype(int)) == 0
    else:
        with pytest.raises(ImageError, match="3 samples of 16 bits per pixel, a plane each, which is not supported"):
            read_image(tiff(deep, 2, 16, order, planar))


@pytest.mark.parametrize("extra", [1, 2])
def test_transparency_is_laid_on_white(extra: int) -> None:
    """Premultiplied (1) or not (2)."""
    colors = (COLORS.astype(int) * 128 // 255).astype(np.uint8) if extra == 1 else COLORS
    half = np.dstack((colors, np.full_like(RAMP, 128)))
    expected = np.rint(COLORS.astype(int) * 128 / 255 + 127)
    assert difference(tiff(half, 2, 8, extra=[extra]), expected) <= 2


@pytest.mark.parametrize(
    ("data", "layout"),
    [
        (tiff(COLORS.astype(np.float32), 2, 32, sample_format=[3] * 3), "3 floating-point samples of 32 bits"),
        (tiff(RAMP.astype(np.float64), 1, 64, sample_format=[3]), "1 floating-point sample of 64 bits"),
        (tiff(np.dstack([RAMP] * 13), 1, 8, extra=[0] * 12), "13 samples of 8 bits"),
        (tiff(RAMP // 2, 1, 8, sample_format=[2]), "1 signed sample of 8 bits"),
    ],
)
def test_what_is_not_supported_is_named(data: bytes, layout: str) -> None:
    with pytest.raises(
        ImageError, match=f"the image is a TIFF with {layout} per pixel, which is not supported"
    ) as caught:
        read_image(data)
    assert "save it as JPEG or PNG" in caught.value.hint


def test_pages_and_compressions(tmp_path: Path) -> None:
    """The first page, however it is compressed."""
    first, second = Image.fromarray(COLORS), Image.fromarray(255 - COLORS)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "jpeg"):
        path = tmp_path / f"{compression}.tif"
        first.save(path, compression=compression, save_all=True, append_images=[second])
        assert read_size(path) == (WIDTH, HEIGHT)
        assert np.abs(np.asarray(read_image(path), int) - COLORS).max() <= (60 if compression == "jpeg" else 0)
    fax = Image.fromarray(RAMP > 127)
    for compression in ("group3", "group4", "tiff_ccitt"):
        fax.save(tmp_path / "fax.tif", compression=compression)
        assert np.asarray(read_image(tmp_path / "fax.tif"))[..., 0].tolist() == ((RAMP > 127) * 255).tolist()


def test_damage_is_told_in_one_sentence_and_by_nobody_else(tmp_path: Path) -> None:
    """libtiff writes to stderr by itself, and names a file that nobody has."""
    noise = np.random.default_rng(0).integers(0, 255, (200, 200, 3), np.uint8)
    for number, compression in enumerate(("tiff_lzw", "tiff_adobe_deflate", "jpeg")):
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "TIFF", compression=compression)
        data = bytearray(file.getvalue())
        data[2000:40000:7] = bytes(len(range(2000, 40000, 7)))
        (tmp_path / f"{number}.tif").write_bytes(data)
    (tmp_path / "bands.tif").write_bytes(tiff(np.dstack([RAMP] * 13), 1, 8, extra=[0] * 12))
    program = (
        "import sys, pathlib; from hubel.data.image_io import read_image; from hubel.errors import ImageError\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: read_image(path)\n"
        "    except ImageError as error: print(error.message)"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert 2 <= len(done.stdout.splitlines()) <= 4 and "tempfile" not in done.stdout


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["f4", "i4", "i2"])
def test_compressed_samples_in_either_byte_order(kind: str, order: str) -> None:
    """libtiff gives the bytes in the machine's order; Pillow swaps those of a big-endian file once more."""
    values = RAMP.astype(kind) if kind != "i2" else RAMP.astype(kind) * 128
    sample_format = [3] if kind == "f4" else [2]
    plain = tiff(values, 1, values.itemsize * 8, order, sample_format=sample_format)
    expected = np.asarray(read_image(plain))
    assert expected.std() > 10 or kind != "f4"
    assert difference(deflated(plain, order), expected.astype(int)) == 0


def test_infinite_values_are_the_ends_of_the_others() -> None:
    values = RAMP.astype(np.float32) / 255
    values[0, :3] = np.inf, -np.inf, np.nan
    found = np.asarray(read_image(tiff(values, 1, 32, sample_format=[3]))).astype(int)
    assert found[0, :3, 0].tolist() == [255, 0, 0]
    assert np.abs(found - GREY)[1:].max() <= 1


def test_a_fourth_band_that_nobody_calls_transparent() -> None:
    """The infrared of an aerial photograph; masks, which older programs wrote without saying so, stay masks."""
    infrared = np.dstack((COLORS, RAMP // 2))
    assert difference(tiff(infrared, 2, 8), COLORS.astype(int)) == 0
    cut_out = np.where(RAMP < 100, 255, 0).astype(np.uint8)
    masked = np.where(cut_out[..., None] > 0, COLORS, 255)
    assert difference(tiff(np.dstack((COLORS, cut_out)), 2, 8), masked.astype(int)) == 0


@pytest.mark.parametrize("tags", [{50706: [1, 4]}, {254: [1], 330: [8, 8]}])
def test_previews_in_raw_files_are_not_taken_for_the_image(tags: dict[int, list[int]]) -> None:
    data = tiff(COLORS, 2, 8, **{str(tag): content for tag, content in tags.items()})
    with pytest.raises(ImageError, match="a camera's raw file, of which only a preview could be read"):
        read_image(data)


@pytest.mark.parametrize(("kind", "value"), [(2, "a preview"), (11, 1.0), (7, b"\1")])
def test_a_tag_of_another_type_than_it_has_is_passed_over(kind: int, value: object) -> None:
    tags = ImageFileDirectory_v2()
    tags.tagtype[254], tags.tagtype[330] = kind, 4
    tags[254], tags[330] = value, 8
    file = io.BytesIO()
    Image.fromarray(RAMP).save(file, "TIFF", tiffinfo=tags)
    assert difference(file.getvalue(), GREY) == 0
