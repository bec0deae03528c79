"""Class maps that follow their images: padding, crops, and how often classes occur."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from hubel.data.mask_file import MaskFile
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import IGNORE_INDEX, Sample
from hubel.data.transforms.class_map_transform import ClassMapTransform
from hubel.data.transforms.object_transform import ObjectTransform
from hubel.tasks.segmentation.task import input_shape, median_frequency

COLOURS = np.array([[250, 30, 30], [30, 250, 30], [30, 30, 250]], np.uint8)
MEAN = (100.0, 100.0, 100.0)


@pytest.mark.parametrize("size", [(300, 100), (90, 200), (64, 48), (640, 480)])
def test_fit_pads_as_pillow_does(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8))
    ready = Preprocessing(48, 64, mean=MEAN, resize="fit")
    expected = ImageOps.pad(image, (64, 48), Image.Resampling.BILINEAR, color=(100, 100, 100))
    np.testing.assert_array_equal(ready.pixels(image), np.asarray(expected))
    left, top, right, bottom = ready.crop_box(*size)
    assert (right - left) / (bottom - top) == pytest.approx(64 / 48, rel=0.03)
    assert left <= 0 and top <= 0 and right >= size[0] and bottom >= size[1]


def _painted() -> tuple[np.ndarray, np.ndarray]:
    class_map = np.kron(np.random.default_rng(1).integers(0, 3, (5, 7)), np.ones((20, 20), int)).astype(np.uint8)
    return COLOURS[class_map], class_map


def test_a_padded_image_is_ignored_beside_it() -> None:
    pixels, class_map = _painted()
    transform = ObjectTransform(Preprocessing(96, 96, mean=MEAN, resize="fit"))
    prepared = transform.prepare(Image.fromarray(pixels))
    sample = Sample(Path("a.png"), width=140, height=100)
    _, (target,) = transform([[transform.decoded(prepared, sample, class_map)]], [0])
    assert target.class_map is not None
    beside = (prepared == 100).all(2)
    np.testing.assert_array_equal(target.class_map == IGNORE_INDEX, beside)
    assert beside[0].all() and not beside[48].any()


@pytest.mark.parametrize("resize", ["fit", "stretch"])
@pytest.mark.parametrize("classes", [None, 3])
def test_crops_carry_the_classes(resize: str, classes: int | None) -> None:
    pixels, class_map = _painted()
    ready = Preprocessing(96, 128, mean=MEAN, resize=resize)  # type: ignore[arg-type]
    transform = ClassMapTransform(ready, 64, ("scale", "flip"), crops=2, classes=classes)
    sample = Sample(Path("a.png"), width=140, height=100)
    decoded = transform.decoded(transform.prepare(Image.fromarray(pixels)), sample, class_map)
    crops, targets = transform([[decoded]] * 20, list(range(20)))
    assert crops.shape == (40, 64, 64, 3) and len(targets) == 40
    for crop, target in zip(crops, targets, strict=True):
        assert target.class_map is not None
        beside = target.class_map == IGNORE_INDEX
        of_classes = np.concatenate([COLOURS, [[100, 100, 100]]])[np.where(beside, 3, target.class_map)]
        # Where colours meet they are mixed.
        assert (np.abs(crop.astype(int) - of_classes).max(2) < 60).mean() > 0.8
    assert any(
        (target.class_map == IGNORE_INDEX).any() for target in targets
    )  # some show the image smaller than a crop


def test_weights_of_classes_are_median_frequencies(tmp_path: Path) -> None:
    samples = []
    for number, row in enumerate(([0] * 90 + [1] * 10, [0] * 50 + [2] * 25 + [255] * 25)):
        Image.fromarray(np.array([row], np.uint8)).save(tmp_path / f"{number}.png")
        samples.append(Sample(Path("a.png"), class_map=MaskFile(tmp_path / f"{number}.png")))
    frequency = np.array([140 / 175, 10 / 100, 25 / 75])  # over the labelled pixels of the images that show the class
    np.testing.assert_allclose(median_frequency(samples, 4), [*(np.median(frequency) / frequency), 0], rtol=1e-6)


def test_the_input_has_the_shape_of_the_images() -> None:
    landscape = [Sample(Path("a"), width=480, height=360)] * 3
    assert input_shape(landscape, None, 480) == (480, 640, True)
    assert input_shape(landscape, 360, 480) == (352, 480, True)
    assert input_shape([Sample(Path("a"), width=1024, height=2048)], None, 480) == (960, 480, True)
    assert input_shape([*landscape, Sample(Path("b"), width=360, height=480)], None, 480) == (480, 640, False)
