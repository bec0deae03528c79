"""PNG files against Pillow, which reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.errors import DataError
from hubel.png import write_png
from hubel.results import SegmentationMap


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "RGBA")])
@pytest.mark.parametrize("rows", [1, 7, 23])
def test_pillow_reads_the_pixels(tmp_path: Path, channels: int, mode: str, rows: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (23, 31, channels)).astype(np.uint8)
    flat = pixels.reshape(23, -1)
    write_png(tmp_path / "a.png", 31, 23, channels, (flat[start : start + rows] for start in range(0, 23, rows)))
    with Image.open(tmp_path / "a.png") as image:
        image.verify()  # checksums
    with Image.open(tmp_path / "a.png") as image:
        assert (image.format, image.mode, image.size) == ("PNG", mode, (31, 23))
        np.testing.assert_array_equal(np.asarray(image).reshape(pixels.shape), pixels)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_mask_has_the_index_of_each_class(tmp_path: Path, order: str) -> None:
    large = np.random.default_rng(1).integers(0, 256, (2100, 2300)).astype(np.uint8, order=order)  # two blocks
    SegmentationMap(None, 2300, 2100, large, ()).save_mask(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as image:
        assert image.mode == "L"
        np.testing.assert_array_equal(np.asarray(image), large)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="missing"):
        write_png(tmp_path / "missing" / "a.png", 1, 1, 1, [np.zeros((1, 1), np.uint8)])
