"""The one definition of preprocessing, against torchvision's transforms and arithmetic by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from hubel.data.preprocessing import Preprocessing


def photograph(width: int, height: int) -> Image.Image:
    """Smooth colours with some noise, as a camera gives."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    waves = np.stack([np.sin(9 * x), np.cos(7 * y), np.sin(5 * (x + y))], -1) * 100 + 128
    return Image.fromarray((waves + rng.normal(0, 5, waves.shape)).clip(0, 255).astype(np.uint8))


def test_stretching_is_torchvisions_resize() -> None:
    image = photograph(301, 200)
    ours = Preprocessing(96, 80, resize="stretch", interpolation="bilinear").pixels(image)
    theirs = v2.Resize((96, 80), interpolation=v2.InterpolationMode.BILINEAR)(image)
    assert np.array_equal(ours, np.asarray(theirs))


@pytest.mark.parametrize(("interpolation", "mode"), [("bilinear", "BILINEAR"), ("bicubic", "BICUBIC")])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 500), (301, 200), (224, 224), (150, 97)])
def test_crop_is_torchvisions_resize_and_centre_crop(interpolation: str, mode: str, width: int, height: int) -> None:
    """One pass instead of two, with the same samples: equal up to the rounding of a grey level."""
    image = photograph(width, height)
    ours = Preprocessing(224, 224, interpolation=interpolation).pixels(image).astype(int)
    steps = v2.Compose([v2.Resize(256, interpolation=v2.InterpolationMode[mode]), v2.CenterCrop(224)])
    assert np.abs(ours - np.asarray(steps(image)).astype(int)).max() <= 1


def test_crop_box_by_hand() -> None:
    # 400 × 300 is scaled to 341 × 256; the central 224 of 341 begin at 58, those of 256 at 16.
    expected = (58 * 400 / 341, 16 * 300 / 256, 282 * 400 / 341, 240 * 300 / 256)
    assert Preprocessing(224, 224).crop_box(400, 300) == pytest.approx(expected)
    # A 2:1 input: the largest centred 2:1 box of 400 × 300 is 400 × 200.
    assert Preprocessing(100, 200, crop_fraction=1.0).crop_box(400, 300) == pytest.approx((0, 50, 400, 250))


def test_whole_crops_stay_inside_images_of_every_size() -> None:
    preprocessing = Preprocessing(192, 192, crop_fraction=1.0)
    for width in range(1, 400, 7):
        for height in range(1, 400, 11):
            left, top, right, bottom = preprocessing.crop_box(width, height)
            assert 0 <= left < right <= width and 0 <= top < bottom <= height


def test_normalization_is_torchvisions() -> None:
    pixels = torch.randint(0, 256, (2, 3, 5, 4), dtype=torch.uint8)
    theirs = v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])(pixels / 255)
    assert torch.allclose(Preprocessing(5, 4).normalize(pixels), theirs, atol=1e-5)


def test_grey_input_is_pillows_luma() -> None:
    image = photograph(40, 40)
    grey = Preprocessing(40, 40, channels=1, crop_fraction=1.0).pixels(image)
    assert grey.shape == (40, 40, 1) and np.array_equal(grey[:, :, 0], np.asarray(image.convert("L")))


def test_json_round_trip() -> None:
    preprocessing = Preprocessing(10, 12, 1, (1.5,), (2.5,), "stretch", 0.9, "lanczos")
    assert Preprocessing.from_json(preprocessing.to_json()) == preprocessing
    assert "fill" not in preprocessing.to_json()  # as earlier versions read it
    letterbox = Preprocessing(10, 12, resize="fit", fill=127.5)
    assert Preprocessing.from_json(letterbox.to_json()) == letterbox
    with pytest.raises(TypeError):
        Preprocessing.from_json({**preprocessing.to_json(), "colour": 1})
