"""Every kind of image becomes the right pixels; everything else is named with its reason."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import sys
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.data.image_io import MAX_PIXELS, open_file, read_image, read_size
from hubel.errors import ImageError


def pixels(source: object) -> list:
    image = read_image(source)
    assert image.mode == "RGB"
    return np.asarray(image).tolist()


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def from_rows(rows: list, mode: str) -> Image.Image:
    """An image whose pixels are written out by hand."""
    image = Image.new(mode, (len(rows[0]), len(rows)))
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            image.putpixel((x, y), value)
    return image


# --- the kinds that are read ---


@pytest.mark.parametrize(
    ("cmyk", "rgb"),
    [((255, 0, 0, 0), (0, 255, 255)), ((0, 255, 0, 0), (255, 0, 255)), ((0, 0, 0, 255), (0, 0, 0))],
)
def test_cmyk_jpeg(tmp_path: Path, cmyk: tuple, rgb: tuple) -> None:
    # Pillow writes CMYK as Adobe does, inverted, with the marker that says so.
    path = saved(Image.new("CMYK", (16, 16), cmyk), tmp_path / "ink.jpg", quality=100)
    assert b"Adobe" in path.read_bytes()
    assert np.abs(np.asarray(read_image(path), int) - rgb).max() <= 2


def test_cmyk_tiff_is_exact(tmp_path: Path) -> None:
    path = saved(Image.new("CMYK", (1, 1), (255, 0, 255, 0)), tmp_path / "ink.tif")
    assert pixels(path) == [[[0, 255, 0]]]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_grey_is_scaled_from_its_whole_range(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65407, 65535]], np.uint16)
    path = saved(Image.fromarray(values), tmp_path / f"deep{suffix}")
    # v * 255 / 65535, rounded: 128 -> 0.498, 129 -> 0.502, 32768 -> 127.502, 65406 -> 254.498
    assert [grey for grey, _, _ in pixels(path)[0]] == [0, 0, 1, 1, 128, 254, 255, 255]


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("I", [0, 25700, 65535], [0, 100, 255]),
        ("I", [-100, 0, 100], [0, 128, 255]),
        ("I", [0, 65536, 131072], [0, 128, 255]),
        ("F", [0.0, 0.25, 1.0], [0, 64, 255]),
        ("F", [0.0, 100.0, 255.0], [0, 100, 255]),
        ("F", [-1.0, float("nan"), 1.0], [0, 128, 255]),
        ("F", [7e5, 7e5, 7e5], [0, 0, 0]),
    ],
)
def test_wide_grey_modes(mode: str, values: list, expected: list) -> None:
    assert [grey for grey, _, _ in pixels(from_rows([values], mode))[0]] == expected


def test_grey_palette_one_bit_and_bmp(tmp_path: Path) -> None:
    grey = saved(from_rows([[0, 77, 255]], "L"), tmp_path / "grey.png")
    assert pixels(grey) == [[[0] * 3, [77] * 3, [255] * 3]]
    palette = from_rows([[0, 1]], "P")
    palette.putpalette([200, 10, 20, 1, 2, 3])
    assert pixels(saved(palette, tmp_path / "palette.png")) == [[[200, 10, 20], [1, 2, 3]]]
    fax = saved(from_rows([[0, 255, 0]], "1"), tmp_path / "fax.tif", compression="group4")
    assert pixels(fax) == [[[0] * 3, [255] * 3, [0] * 3]]
    bmp = saved(from_rows([[(1, 2, 3), (4, 5, 6)]], "RGB"), tmp_path / "plain.bmp")
    assert pixels(bmp) == [[[1, 2, 3], [4, 5, 6]]]


def test_webp_lossless_and_one_pixel(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (1, 1), (9, 80, 200)), tmp_path / "dot.webp", lossless=True)
    assert pixels(path) == [[[9, 80, 200]]]
    assert read_size(path) == (1, 1)


def test_alpha_is_laid_on_white(tmp_path: Path) -> None:
    # alpha * colour + (1 - alpha) * 255, by hand: 0.4 * 100 + 0.6 * 255 = 193
    rgba = from_rows([[(100, 0, 255, 102), (5, 6, 7, 0), (5, 6, 7, 255)]], "RGBA")
    assert pixels(saved(rgba, tmp_path / "rgba.png")) == [[[193, 153, 255], [255] * 3, [5, 6, 7]]]
    grey = from_rows([[(100, 102), (0, 0)]], "LA")
    assert pixels(saved(grey, tmp_path / "la.png")) == [[[193] * 3, [255] * 3]]


def test_palette_with_transparency(tmp_path: Path) -> None:
    palette = from_rows([[0, 1, 2]], "P")
    palette.putpalette([100, 0, 255, 10, 20, 30, 1, 2, 3])
    path = saved(palette, tmp_path / "p.png", transparency=bytes([102, 0, 255]))
    with Image.open(path) as stored:
        assert stored.mode == "P"
    assert pixels(path) == [[[193, 153, 255], [255] * 3, [1, 2, 3]]]
    one = saved(palette, tmp_path / "p.gif", transparency=1)
    assert pixels(one) == [[[100, 0, 255], [255] * 3, [1, 2, 3]]]


def test_transparent_colour_of_an_rgb_png(tmp_path: Path) -> None:
    path = saved(from_rows([[(1, 2, 3), (3, 2, 1)]], "RGB"), tmp_path / "key.png", transparency=(1, 2, 3))
    assert pixels(path) == [[[255] * 3, [3, 2, 1]]]


def test_animations_give_their_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (3, 2), colour) for colour in [(255, 0, 0), (0, 255, 0), (0, 0, 255)]]
    for suffix in (".gif", ".png", ".webp"):
        options = {"lossless": True} if suffix == ".webp" else {}
        path = tmp_path / f"film{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        with Image.open(path) as stored:
            assert stored.n_frames == 3
        assert pixels(path) == [[[255, 0, 0]] * 3] * 2


# The letter that the EXIF standard draws: what is stored for each orientation so that the upright image is
# [[1, 2, 3], [4, 5, 6]]. Orientation n says where the stored row 0 and column 0 lie in the upright image:
# 1 top left, 2 top right, 3 bottom right, 4 bottom left, 5 left top, 6 right top, 7 right bottom, 8 left bottom.
STORED = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[3, 6], [2, 5], [1, 4]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[4, 1], [5, 2], [6, 3]],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif", ".avif"])
def test_exif_orientation(tmp_path: Path, orientation: int, suffix: str) -> None:
    rows = [[(40 * value, 0, 0) for value in row] for row in STORED[orientation]]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {".webp": {"lossless": True}, ".avif": {"quality": 100, "subsampling": "4:4:4"}}.get(suffix, {})
    path = saved(from_rows(rows, "RGB"), tmp_path / f"turned{suffix}", exif=exif, **options)
    assert [[round(red / 40) for red, _, _ in row] for row in pixels(path)] == [[1, 2, 3], [4, 5, 6]]
    assert read_size(path) == (3, 2)


def test_exif_orientation_of_a_jpeg_and_of_an_open_image(tmp_path: Path) -> None:
    # A quarter turn of an image of two halves; stored with the red half at the right.
    image = Image.new("RGB", (64, 32), (0, 0, 255))
    image.paste((255, 0, 0), (32, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 8
    path = saved(image, tmp_path / "turned.jpg", exif=exif, quality=95)
    for source in (path, str(path), path.read_bytes(), Image.open(path)):
        upright = np.asarray(read_image(source), int)
        assert upright.shape == (64, 32, 3)
        assert upright[:24, :, 0].min() > 240  # the right half has gone to the top
        assert upright[40:, :, 2].min() > 240
    assert read_size(path) == (32, 64)


def test_broken_exif_is_passed_over(tmp_path: Path) -> None:
    path = saved(Image.new("RGB", (4, 4), (9, 9, 9)), tmp_path / "odd.png", exif=b"Exif\0\0MM\0*\xff\xff")
    assert read_image(path).size == (4, 4)


def test_an_rgb_image_in_memory_is_not_copied() -> None:
    image = Image.new("RGB", (4, 4))
    assert read_image(image) is image


# --- arrays ---


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (np.array([[0, 200]], np.uint8), [[[0] * 3, [200] * 3]]),
        (np.array([[[0], [200]]], np.uint8), [[[0] * 3, [200] * 3]]),
        (np.array([[[1, 2, 3]]], np.uint8), [[[1, 2, 3]]]),
        (np.array([[[100, 0, 255, 102]]], np.uint8), [[[193, 153, 255]]]),
        (np.array([[[0.0, 0.5, 1.0]]]), [[[0, 128, 255]]]),
        (np.array([[True, False]]), [[[255] * 3, [0] * 3]]),
        (np.arange(6, dtype=np.uint8).reshape(1, 2, 3)[:, ::-1], [[[3, 4, 5], [0, 1, 2]]]),
    ],
)
def test_arrays(array: np.ndarray, expected: list) -> None:
    assert pixels(array) == expected


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"shape \(3, 8, 8\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "shape"),
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.full((2, 2), 255.0), "floats from 255 to 255"),
        (np.full((2, 2), np.nan), "floats"),
        (np.zeros((2, 2), np.int64), "int64"),
    ],
)
def test_arrays_that_are_not_images(array: np.ndarray, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        read_image(array)


# --- what cannot be read ---


def photograph() -> Image.Image:
    """Noise that no format compresses away, so that half a file is half an image."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_truncated_files_are_errors_not_half_grey_images(tmp_path: Path, kind: str) -> None:
    whole = io.BytesIO()
    photograph().save(whole, kind)
    path = tmp_path / "half.img"
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(ImageError, match=r"half\.img is (truncated|damaged|not an image)") as caught:
        read_image(path)
    if kind in ("JPEG", "PNG", "BMP"):
        assert "is truncated" in caught.value.message
    assert "\n" not in caught.value.message and caught.value.hint


def test_files_that_are_not_images(tmp_path: Path) -> None:
    empty, text, nothing = tmp_path / "empty.jpg", tmp_path / "text 📷.jpg", tmp_path / "nothing.jpg"
    empty.touch()
    text.write_text("this is not a photograph\n" * 50)
    link, circle = tmp_path / "link.jpg", tmp_path / "circle.jpg"
    link.symlink_to(nothing)
    circle.symlink_to(circle)
    for path, reason in [
        (empty, "is empty"),
        (text, "is not an image"),
        (nothing, "does not exist"),
        (link, f"is a broken link (to {nothing})"),
        (circle, "is a broken link (it points to itself)"),
        (tmp_path, "is a folder"),
        (tmp_path / ("n" * 300), "cannot be opened: File name too long"),
    ]:
        for read in (read_image, read_size):
            with pytest.raises(ImageError) as caught:
                read(path)
            assert caught.value.message.startswith(f"{path} {reason}"), caught.value.message
    with pytest.raises(ImageError, match="the image is empty"):
        read_image(b"")
    with pytest.raises(ImageError, match="the image is not an image"):
        read_image(b"GIF" * 30)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in folders")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="runs as root, who may read every file")
def test_no_permission(tmp_path: Path) -> None:
    path = saved(photograph(), tmp_path / "secret.png")
    path.chmod(0)
    with pytest.raises(ImageError, match=r"secret\.png: permission denied"):
        read_image(path)


def test_permission_error_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(photograph(), tmp_path / "secret.png")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ImageError, match=r"secret\.png: permission denied"):
        open_file(path, str(path))


def heic(image: Image.Image, **options: object) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, quality=-1, chroma=444, **options)
    return file.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_with_its_orientation(orientation: int) -> None:
    rows = [[(40 * value, 0, 0) for value in row] for row in STORED[orientation]]
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = from_rows(rows, "RGB").resize((len(rows[0]) * 32, len(rows) * 32), Image.Resampling.NEAREST)
    data = heic(large, exif=exif.tobytes())
    upright = np.asarray(read_image(data), int)[16::32, 16::32, 0]
    assert np.abs(upright - 40 * np.array(STORED[1])).max() <= 6
    assert read_size(data) == (96, 64)


@pytest.mark.parametrize("brand", [b"heic", b"heix", b"mif1", b"msf1", b"hevc", b"hevx", b"heim"])
def test_heic_by_any_brand_and_name(tmp_path: Path, brand: bytes) -> None:
    data = heic(Image.new("RGB", (64, 48), (200, 30, 60)))
    path = tmp_path / "IMG_1.jpg"  # as some telephones' transfers name them
    path.write_bytes(data[:8] + brand + data[12:])
    assert np.abs(np.asarray(read_image(path), int) - (200, 30, 60)).max() <= 6
    assert read_size(path) == (64, 48)
    path.write_bytes(data[: len(data) * 3 // 4])
    with pytest.raises(ImageError, match="IMG_1.jpg is (truncated|damaged)"):
        read_image(path)


def test_heic_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "IMG_1.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with pytest.raises(ImageError) as caught:
        read_image(path)
    assert caught.value.message == f"{path} is a HEIC image, and the package that reads these is not installed"
    assert caught.value.hint == "pip install 'hubel[heif]'"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"8BPS\0\1" + bytes(100), "is a file of the format Photoshop, which is not supported"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is a file of the format SVG, which is not supported"),
        (b"\xff\x0a" + bytes(100), "is a file of the format JPEG XL, which is not supported"),
        (b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(100), "is a video or sound, not an image"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "is damaged or truncated: it begins like PNG, but cannot be read"),
        (b"<html><p>404</p></html>", "is a web page, not an image"),
        (b"\n<!DOCTYPE html><html>", "is a web page, not an image"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS, not an image"),
        (b'{"error": 404}', "is JSON, not an image"),
        (bytes(5000), "is zeros, as an unfinished copy has, not an image"),
        (bytes(128) + b"DICM" + bytes(40), "is a DICOM file, not an image"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "is a file of the format Canon raw, which is not supported"),
        (b"FUJIFILMCCD-RAW 0201", "is a file of the format Fujifilm raw, which is not supported"),
        (b"PK\3\4" + bytes(40), "is an archive, not an image"),
        (b"hello", "is not an image"),
    ],
)
def test_what_is_not_read_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=f"the image {reason}"):
        read_image(data)


def run_python(program: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True)


def png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(1000))
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (body, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bmp_header(width: int, height: int) -> bytes:
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", 1054, 0, 0, 54) + info + bytes(1000)


def tiff_header(width: int, height: int) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, height)]
    tags.append((279, 1000))
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + entries + bytes(1000)


@pytest.mark.parametrize("header", [png_header, bmp_header, tiff_header])
@pytest.mark.parametrize(("width", "height"), [(60000, 60000), (2**31 - 1, 1)])
def test_enormous_images_are_refused_by_their_header(tmp_path: Path, header: object, width: int, height: int) -> None:
    path = tmp_path / "bomb.img"
    path.write_bytes(header(width, height))
    Image.init()  # so that loading the readers does not count as memory
    for read in (read_image, read_size):
        tracemalloc.start()
        with pytest.raises(ImageError) as caught:
            read(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2_000_000
        limit = "more than the limit of 179 megapixels"
        assert caught.value.message == f"{path} has {width}×{height} pixels, {limit}"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from /proc")
def test_enormous_images_take_no_memory_outside_python_either(tmp_path: Path) -> None:
    for name, header in [("a.png", png_header), ("b.bmp", bmp_header), ("c.tif", tiff_header)]:
        (tmp_path / name).write_bytes(header(60000, 60000))
    program = (
        "import sys, pathlib; from hubel.data.image_io import read_image; from hubel.errors import ImageError\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    try: read_image(path)\n"
        "    except ImageError as error: print(error.message)\n"
        "print(pathlib.Path('/proc/self/status').read_text())"
    )
    done = run_python(program, tmp_path)
    assert done.stdout.count("60000×60000") == 3
    assert int(re.search(r"VmHWM:\s+(\d+) kB", done.stdout)[1]) < 200_000
    assert done.stderr == ""


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_limit_is_a_number_of_pixels_not_of_a_side(tmp_path: Path) -> None:
    path = tmp_path / "edge.png"
    path.write_bytes(png_header(MAX_PIXELS, 1))
    assert read_size(path) == (MAX_PIXELS, 1)
    path.write_bytes(png_header(MAX_PIXELS + 1, 1))
    with pytest.raises(ImageError, match="limit"):
        read_size(path)


def test_pillow_says_nothing_on_the_terminal(tmp_path: Path) -> None:
    (tmp_path / "large.png").write_bytes(png_header(12000, 12000))  # above Pillow's warning, below its error
    palette = Image.new("P", (2, 2))
    palette.putpalette([1, 2, 3, 4, 5, 6])
    palette.save(tmp_path / "palette.png", transparency=bytes([0, 255]))
    tags = b"II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 256, 2, 5000, 999999)
    (tmp_path / "odd.tif").write_bytes(tags)
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        Image.open(tmp_path / "large.png").close()
    assert Image.DecompressionBombWarning in [warning.category for warning in heard]  # else this test is void
    program = (
        "import sys, pathlib; from hubel.data.image_io import read_image, read_size\n"
        "from hubel.errors import ImageError\n"
        "for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):\n"
        "    for read in (read_size, read_image)[: 1 if 'large' in path.name else 2]:\n"
        "        try: read(path)\n"
        "        except ImageError: pass\n"
        "print('torch' in sys.modules)"
    )
    done = run_python(program, tmp_path)
    assert done.stderr == ""
    assert done.stdout == "False\n"  # nothing here needs torch


@pytest.mark.data
def test_photographs_decode_as_by_pillow(data_folder: Path) -> None:
    for path in sorted(data_folder.glob("flowers5/val/*/*.jpg"))[::50]:
        assert np.array_equal(np.asarray(read_image(path)), np.asarray(Image.open(path).convert("RGB")))
