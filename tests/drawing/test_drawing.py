"""Images with results written on them: readable on anything, the image itself left alone."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hubel.drawing import draw_class_scores, save_image
from hubel.errors import DataError, ImageError
from hubel.results import Classification, ClassScore

SCORES = (
    ("palace", 0.87),
    ("bell cote", 0.06),
    ("monastery", 0.05),
    ("stupa", 0.001),
)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def luminance(pixels: np.ndarray) -> np.ndarray:
    """Relative luminance of sRGB pixels (..., 3), as the WCAG 2.1 defines it."""
    linear = np.asarray(pixels, dtype=np.float64) / 255
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def changed_box(before: Image.Image, after: Image.Image) -> tuple[int, int, int, int]:
    rows, columns = np.nonzero((np.asarray(before) != np.asarray(after)).any(axis=2))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("kind", ["white", "black", "noise", "yellow"])
def test_text_stands_out_on_any_ground(kind):
    image = noise(640, 480) if kind == "noise" else Image.new("RGB", (640, 480), kind)
    drawn = draw_class_scores(image, SCORES)
    # On black the panel is nearly the ground, so where it lies is taken from the white image.
    white = Image.new("RGB", (640, 480), "white")
    left, top, right, bottom = changed_box(white, draw_class_scores(white, SCORES))
    panel = np.asarray(drawn)[top + 8 : bottom - 8, left + 8 : right - 8]
    light = luminance(panel)
    text = np.median(light[light > 0.7])
    assert (light > 0.7).sum() > 300, "the letters cover a fair part of the panel"
    # 4.5 : 1 is what the WCAG (1.4.3, level AA) asks of text; the ground is what is neither a letter nor a bar.
    ground = np.quantile(light, 0.6)
    assert (text + 0.05) / (ground + 0.05) >= 4.5


def test_panel_is_translucent():
    grounds = [np.asarray(draw_class_scores(Image.new("RGB", (640, 480), c), SCORES)) for c in ("red", "blue")]
    x, y = 24, 480 - 22
    assert grounds[0][y, x, 0] > grounds[1][y, x, 0] + 20
    assert grounds[1][y, x, 2] > grounds[0][y, x, 2] + 20


def test_image_is_not_modified_and_most_of_it_is_seen():
    image = noise(800, 600)
    before = image.copy()
    drawn = draw_class_scores(image, SCORES)
    assert np.array_equal(np.asarray(image), np.asarray(before))
    assert drawn.size == image.size
    left, top, right, bottom = changed_box(image, drawn)
    assert (right - left) * (bottom - top) < 0.25 * 800 * 600
    assert left > 0
    assert bottom < 600
    assert top > 0.55 * 600
    assert np.array_equal(np.asarray(drawn)[:330], np.asarray(image)[:330])


def bar_lengths(drawn: Image.Image, colour: tuple[int, int, int]) -> int:
    """Longest row of pixels of exactly this colour."""
    return int((np.asarray(drawn) == colour).all(axis=2).sum(axis=1).max())


def test_bars_are_as_long_as_the_probabilities():
    white = Image.new("RGB", (1600, 1200), "white")
    lengths = {
        share: bar_lengths(draw_class_scores(white, [("daisy", share)]), (255, 200, 66)) for share in (0.25, 0.5, 1.0)
    }
    assert lengths[0.5] / lengths[1.0] == pytest.approx(0.5, abs=0.02)
    assert lengths[0.25] / lengths[1.0] == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1, 1), (240, 240)),
        ((28, 28), (240, 240)),
        ((100, 200), (240, 480)),
        ((1, 8000), (240, 8000)),
        ((1000, 2), (4096, 240)),
        ((240, 300), (240, 300)),
        ((8000, 500), (8000, 500)),
    ],
)
def test_small_images_are_enlarged_and_others_keep_their_size(size, expected):
    drawn = draw_class_scores(Image.new("RGB", size, (0, 128, 0)), SCORES)
    assert drawn.size == expected
    above_the_panel = np.asarray(drawn)[: int(0.52 * expected[1])]
    assert (above_the_panel == (0, 128, 0)).all(axis=2).any(), "the image is seen"


def test_panel_grows_with_the_image():
    small, large = (Image.new("RGB", size, "white") for size in ((640, 480), (2560, 1920)))
    boxes = [changed_box(image, draw_class_scores(image, SCORES)) for image in (small, large)]
    assert np.array(boxes[1]) / 4 == pytest.approx(np.array(boxes[0]), abs=4)


def test_long_names_stay_inside():
    for size in ((240, 240), (640, 480), (2000, 300)):
        image = Image.new("RGB", size, "white")
        name = "sulphur-crested cockatoo, Kakatoe galerita, Cacatua galerita " * 5
        left, top, right, bottom = changed_box(image, draw_class_scores(image, [(name, 0.5)] * 5))
        assert 0 < left < right < size[0]
        assert 0 < top < bottom < size[1]


@pytest.mark.parametrize("pair", [("Ромашка", "Яблоко"), ("زهرة", "وردة"), ("ñandú", "ñandù"), ("Ωδ", "Δω")])
def test_letters_beyond_ascii_are_drawn_and_not_boxes(pair):
    image = Image.new("RGB", (640, 480), "white")
    first, second = (np.asarray(draw_class_scores(image, [(name, 0.9)])) for name in pair)
    assert not np.array_equal(first, second)
    boxes = np.asarray(draw_class_scores(image, [("\ue123" * len(pair[0]), 0.9)]))
    assert not np.array_equal(first, boxes)


def test_control_characters_and_line_breaks_do_not_break_the_row():
    image = Image.new("RGB", (640, 480), "white")
    plain = draw_class_scores(image, [("red rose", 0.9)])
    broken = draw_class_scores(image, [(" red\n\trose\x00\x1b", 0.9)])
    assert np.array_equal(np.asarray(plain), np.asarray(broken))


def test_classes_below_one_percent_are_left_out():
    image = noise(640, 480)
    three = draw_class_scores(image, SCORES[:3])
    assert np.array_equal(np.asarray(draw_class_scores(image, SCORES)), np.asarray(three))
    assert not np.array_equal(np.asarray(draw_class_scores(image, SCORES[:2])), np.asarray(three))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_any_mode_gives_rgb(mode):
    assert draw_class_scores(Image.new(mode, (300, 300)), SCORES).mode == "RGB"


def test_without_classes_a_copy_comes_back():
    image = noise(300, 300)
    drawn = draw_class_scores(image, [])
    assert drawn is not image
    assert np.array_equal(np.asarray(drawn), np.asarray(image))


def test_results_draw_themselves():
    image = noise(400, 300)
    drawn = Classification("a.jpg", 400, 300, tuple(ClassScore(0, *each) for each in SCORES)).draw(image)
    assert np.array_equal(np.asarray(drawn), np.asarray(draw_class_scores(image, SCORES)))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".BMP", ".tiff"])
def test_saved_images_open_again(tmp_path, suffix):
    drawn = draw_class_scores(Image.new("RGB", (300, 300), "teal"), SCORES)
    save_image(tmp_path / f"a b{suffix}", drawn)
    with Image.open(tmp_path / f"a b{suffix}") as again:
        error = np.abs(np.asarray(again.convert("RGB"), dtype=int) - np.asarray(drawn, dtype=int))
    assert error.mean() < 3
    assert [path.name for path in tmp_path.iterdir()] == [f"a b{suffix}"]


@pytest.mark.parametrize("fault", ["full disk", "too wide for the format"])
def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch, fault):
    path = tmp_path / "a.jpg"
    path.write_bytes(b"old")

    def fail(self, content):
        with self.open("wb") as file:
            file.write(content[:4])
        raise OSError(errno.ENOSPC, "no space left on device")

    if fault == "full disk":
        monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(DataError, match="a.jpg cannot be written"):
        save_image(path, Image.new("RGB", (10 if fault == "full disk" else 70_000, 1)))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_unknown_suffix_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"a\.xyz"):
        save_image(tmp_path / "a.xyz", Image.new("RGB", (10, 10)))


def test_drawing_imports_neither_torch_nor_matplotlib():
    code = (
        "import sys; from PIL import Image; from hubel.drawing import draw_class_scores as d;"
        "import hubel.results; d(Image.new('RGB', (9, 9)), [('Ж', 0.9)]);"
        "sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
