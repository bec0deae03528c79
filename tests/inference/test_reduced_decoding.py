"""JPEGs decoded at a part of their size: nearly the pixels that torchvision makes of the whole, and the same boxes."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from torchvision.transforms import v2

from hubel.data.image_io import read_reduced
from hubel.data.preprocessing import Preprocessing
from hubel.inference import Predictor

_SPEC = find_spec("sklearn")
assert _SPEC is not None and _SPEC.submodule_search_locations
_PHOTOGRAPHS = sorted(Path(_SPEC.submodule_search_locations[0], "datasets", "images").glob("*.jpg"))


def _theirs(image: Image.Image, side: int, interpolation: str) -> np.ndarray:
    steps = v2.Compose(
        [v2.Resize(int(side / 0.875), interpolation=v2.InterpolationMode[interpolation.upper()]), v2.CenterCrop(side)]
    )
    return np.asarray(steps(image)).astype(int)


def _ours(source: str | bytes, preprocessing: Preprocessing) -> tuple[np.ndarray, int]:
    reduced = read_reduced(source, preprocessing.reduction)
    pixels = preprocessing.pixels(reduced.image, (reduced.width, reduced.height, reduced.scale))
    return pixels.astype(int), reduced.scale


def _check(image: Image.Image, source: str | bytes, side: int, interpolation: str, scale: int) -> None:
    ours, reduced = _ours(source, Preprocessing(side, side, interpolation=interpolation))  # type: ignore[arg-type]
    assert reduced == scale
    difference = np.abs(ours - _theirs(image, side, interpolation))
    assert difference.mean() < 2
    assert difference.max() <= 20


@pytest.mark.parametrize("path", _PHOTOGRAPHS, ids=lambda path: path.name)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("side", "scale"), [(224, 1), (94, 1), (93, 2), (64, 2), (46, 4), (32, 4), (23, 8)])
def test_pixels_stay_close(path: Path, side: int, scale: int, interpolation: str) -> None:
    """427 pixels, of which 7/8 are seen, are halved from 427 · 7/8 / 4 = 93 on downwards."""
    _check(Image.open(path), str(path), side, interpolation, scale)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(640, 424), (637, 421)])
def test_turned_images(orientation: int, size: tuple[int, int]) -> None:
    """Where the last blocks are not whole, a turned image would be out of place: it is decoded whole."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    memory = io.BytesIO()
    Image.open(_PHOTOGRAPHS[0]).crop((0, 0, *size)).save(memory, "JPEG", quality=95, exif=exif)
    upright = ImageOps.exif_transpose(Image.open(memory))
    whole_blocks = size[0] % 4 == 0 and size[1] % 4 == 0
    scale = 4 if orientation == 1 or whole_blocks else 1
    _check(upright, memory.getvalue(), 40, "bilinear", scale)
    reduced = read_reduced(memory.getvalue(), Preprocessing(40, 40).reduction)
    assert (reduced.width, reduced.height) == upright.size


def test_a_target_that_is_not_square() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, seen standing
    memory = io.BytesIO()
    Image.new("RGB", (640, 320), "red").save(memory, "JPEG", exif=exif)
    standing = Preprocessing(80, 160, resize="stretch")
    assert _ours(memory.getvalue(), standing)[1] == 1  # 320 pixels of width for 160
    lying = Preprocessing(160, 80, resize="stretch")
    assert _ours(memory.getvalue(), lying)[1] == 2


def test_what_is_no_jpeg_or_takes_single_pixels_comes_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.open(_PHOTOGRAPHS[0]).save(path)
    assert read_reduced(str(path), Preprocessing(32, 32).reduction).scale == 1
    assert read_reduced(str(_PHOTOGRAPHS[0]), Preprocessing(32, 32, interpolation="nearest").reduction).scale == 1


def test_results_name_the_size_of_the_original(tmp_path: Path) -> None:
    image = Image.open(_PHOTOGRAPHS[1]).resize((2560, 1708), Image.Resampling.BICUBIC)
    image.save(tmp_path / "large.jpg", quality=90)
    predict = Predictor("efficientnet_lite0", precision="fp32", device="cpu", top=1000)
    large, whole = predict([str(tmp_path / "large.jpg"), Image.open(tmp_path / "large.jpg")])
    assert (large.width, large.height) == (2560, 1708)
    assert large.best.name == whole.best.name == "daisy"
    assert large.best.score == pytest.approx(whole.best.score, abs=0.02)


def test_a_thin_image_keeps_a_pixel() -> None:
    memory = io.BytesIO()
    Image.new("L", (3, 64), 90).save(memory, "JPEG")
    reduced = read_reduced(memory.getvalue(), lambda width, height: 8.0)
    assert (reduced.width, reduced.height, reduced.scale) == (3, 64, 2)
    assert reduced.image.size == (2, 32)
