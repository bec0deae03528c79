"""Changes of images with objects: painted images judge where boxes and masks come to lie, torchvision the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from hubel.data.loader import BatchDataset, EpochSampler, PixelCache, make_dataloader, memory_block
from hubel.data.preprocessing import Preprocessing
from hubel.data.samples import UNLABELLED, Batch, Sample
from hubel.data.transforms.color import Distortion
from hubel.data.transforms.geometry import (
    View,
    Window,
    large_scale_jitter,
    random_iou_crop,
    random_zoom_out,
    scale_jitter,
)
from hubel.data.transforms.object_transform import (
    OBJECT_AUGMENTATIONS,
    TINY,
    ObjectTransform,
    check_object_augmentations,
    describe_object_augmentations,
)
from hubel.data.transforms.pipeline import Decoded
from hubel.drawing.boxes import colour_of
from hubel.errors import UsageError
from hubel.masks import Outline, box_to_polygon, encode
from hubel.reports.augmentation_preview import augmentation_preview

INPUT = Preprocessing(96, 128, mean=(0.0, 0.0, 0.0), resize="stretch")
GEOMETRY = ["zoom", "scale", "crop", "flip", "mosaic"]


def random_boxes(random: np.random.Generator, count: int, width: int, height: int) -> np.ndarray:
    """Boxes of whole pixels, at least a tenth of the image wide and high."""
    sides = random.integers((width // 10, height // 10), (width // 2, height // 2), (count, 2))
    corners = random.integers(0, (width, height) - sides)
    return np.concatenate((corners, corners + sides), 1).astype(np.float64)


def painted(width: int, height: int, boxes: np.ndarray, shown: int | None) -> np.ndarray:
    """A black image in which one box is white."""
    pixels = np.zeros((height, width, 3), np.uint8)
    if shown is not None:
        x1, y1, x2, y2 = boxes[shown].astype(int)
        pixels[y1:y2, x1:x2] = 255
    return pixels


def labelled(pixels: np.ndarray, boxes: np.ndarray, first: int, masks: bool = False) -> Decoded:
    height, width, _ = pixels.shape
    fractions = boxes / (width, height, width, height)
    drawn = tuple(encode(painted(width, height, boxes, k)[:, :, 0] > 0) for k in range(len(boxes))) if masks else None
    labels = np.arange(first, first + len(boxes))
    return Decoded(pixels, (width, height), fractions, labels, shapes=drawn, size=(width, height))


def bounds(bright: np.ndarray) -> list[int]:
    """The box around the bright pixels (H, W)."""
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


SCENES = [(160, 120, 4), (97, 211, 3), (128, 96, 5)]


@pytest.mark.parametrize(
    "names", [["flip"], ["zoom"], ["scale"], ["crop"], GEOMETRY[:4], ["mosaic"], GEOMETRY], ids="+".join
)
def test_boxes_and_masks_bound_what_is_painted(names: list[str]) -> None:
    change = ObjectTransform(INPUT, names)
    kept = lost = 0
    for seed in range(40):
        random = np.random.default_rng(seed)
        width, height, count = SCENES[seed % 3]
        number = 4 if change.partners(seed, 9) else 1
        sets = [random_boxes(random, count, width, height) for _ in range(number)]

        def samples_of(shown: int | None, masks: bool = False) -> list[Decoded]:
            made = []
            for index, boxes in enumerate(sets):  # noqa: B023 – called within the round
                own = shown - index * count if shown is not None and shown // count == index else None  # noqa: B023
                pixels = painted(width, height, boxes, own)  # noqa: B023
                if not change.crops:
                    pixels = INPUT.pixels(Image.fromarray(pixels))
                    boxes = boxes * np.tile((INPUT.width / width, INPUT.height / height), 2)  # noqa: B023
                made.append(labelled(pixels, boxes, index * count, masks))  # noqa: B023
            return made

        _, changed = change.augment(samples_of(None, masks=True), seed)
        assert changed.masks is not None
        assert len(changed.boxes) or number > 1
        kept += len(changed.boxes)
        lost += number * count - len(changed.boxes)
        for box, mask, label in zip(changed.boxes, changed.masks, changed.labels, strict=True):
            pixels, _ = change.augment(samples_of(int(label)), seed)
            assert pixels.shape == (96, 128, 3)
            bright = pixels[:, :, 0] > 127
            np.testing.assert_allclose(box, bounds(bright), atol=1.0)
            np.testing.assert_allclose(box, bounds(mask), atol=1.0)
            sides = (box[2:] - box[:2]).clip(1)
            assert (bright != mask).sum() <= 2 * sides.sum() + 4  # but for the rim
    assert kept >= 60
    assert bool(lost) == (names not in (["flip"], ["zoom"]))


@pytest.mark.parametrize("name", ["zoom", "scale", "crop"])
@pytest.mark.parametrize("count", [1, 3])
def test_an_object_stays(name: str, count: int) -> None:
    change = ObjectTransform(INPUT, [name])
    for seed in range(60):
        boxes = random_boxes(np.random.default_rng(seed), count, 300, 100)
        assert len(change.augment([labelled(painted(300, 100, boxes, 0), boxes, 0)], seed)[1].boxes) >= 1


def as_tensors(pixels: np.ndarray, boxes: np.ndarray) -> tuple[tv_tensors.Image, tv_tensors.BoundingBoxes]:
    height, width, _ = pixels.shape
    image = tv_tensors.Image(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    return image, tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=(height, width))


def test_windows_are_torchvisions_crops_pads_flips_and_sizes(textured: np.ndarray) -> None:
    height, width, _ = textured.shape
    random = np.random.default_rng(0)
    ground = np.array([9, 200, 30], np.uint8)
    for number in range(24):
        boxes = random_boxes(random, 6, width, height)
        # In twelves of pixels, each drawn as a whole number of them: torchvision pads by whole pixels.
        cells = random.integers((-10, -8, 4, 4), (8, 5, 20, 18))
        x, y, w, h = (12 * cells).tolist()
        drawn_size = (cells[2:] * random.integers(4, 18, 2)).tolist()
        flipped = bool(number % 2)
        pads = [max(0, -x), max(0, -y), max(0, x + w - width), max(0, y + h - height)]

        def theirs(what: torch.Tensor, fill: list[int] | None = None) -> torch.Tensor:
            padded = functional.pad(what, pads, fill=fill)  # noqa: B023 – called within the round
            cut = functional.crop(padded, y + pads[1], x + pads[0], h, w)  # noqa: B023
            sized = functional.resize(cut, drawn_size[::-1], antialias=True)  # noqa: B023
            return functional.horizontal_flip(sized) if flipped else sized  # noqa: B023

        image, tensors = as_tensors(textured, boxes)
        window = Window(x / width, y / height, (x + w) / width, (y + h) / height, flipped)
        moved, kept = window.transform_boxes(boxes / (width, height, width, height))
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2
        stays = ((centres > (x, y)) & (centres < (x + w, y + h))).all(1)
        np.testing.assert_array_equal(kept, np.flatnonzero(stays))
        np.testing.assert_allclose(moved * (drawn_size * 2), theirs(tensors).numpy()[stays], atol=1e-4)

        view = View(window, drawn_size[1], drawn_size[0])
        drawn = view.pixels(textured, (width, height), ground, Image.Resampling.BILINEAR)
        expected = theirs(image, ground.tolist()).permute(1, 2, 0).numpy().astype(int)
        # Theirs mixes the ground into the image's rim, and does not look beyond the crop's.
        rim = [side + 1 for side in np.ceil(np.maximum(1, np.array(drawn_size) / (w, h)))]
        left, top = (round(pads[at] * drawn_size[at] / (w, h)[at] + rim[at]) for at in (0, 1))
        right, bottom = (round(drawn_size[at] - pads[at + 2] * drawn_size[at] / (w, h)[at] - rim[at]) for at in (0, 1))
        if flipped:
            left, right = drawn_size[0] - right, drawn_size[0] - left
        assert np.abs(drawn - expected)[top:bottom, left:right].max(initial=0) <= 2
        beside = theirs(image.as_subclass(torch.Tensor) * 0 + 255, [0, 0, 0]).permute(1, 2, 0).numpy() == 0
        np.testing.assert_array_equal(drawn[beside], expected[beside])


def test_masks_are_torchvisions_nearest_ones() -> None:
    masks = np.random.default_rng(1).random((3, 60, 80)) < 0.5
    exact = v2.InterpolationMode.NEAREST_EXACT
    cut = functional.resized_crop(torch.from_numpy(masks)[:, None].byte(), 12, 20, 30, 40, [45, 101], exact)
    window = Window(20 / 80, 12 / 60, 60 / 80, 42 / 60, flipped=True)
    np.testing.assert_array_equal(View(window, 45, 101).masks(masks), functional.horizontal_flip(cut)[:, 0].bool())


def test_iou_crops_are_drawn_as_torchvisions() -> None:
    aspect, width, height = 1.5, 300, 200
    boxes = np.array([[0.1, 0.1, 0.3, 0.5], [0.5, 0.4, 0.95, 0.9], [0.2, 0.7, 0.3, 0.8]])
    _, tensors = as_tensors(np.zeros((height, width, 3), np.uint8), boxes * (width, height, width, height))
    crop = v2.RandomIoUCrop()
    image = tv_tensors.Image(torch.zeros(3, height, width, dtype=torch.uint8))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = []
        for _ in range(250):
            made = crop.make_params([image, tensors])
            theirs.append(
                (made["width"] / width, made["height"] / height, made["left"] / width, made["top"] / height,
                 float(made["is_within_crop_area"].sum()))
                if made else (1.0, 1.0, 0.0, 0.0, 3.0)
            )  # fmt: skip
    ours = []
    random = np.random.default_rng(0)
    for _ in range(250):
        window = random_iou_crop(boxes, aspect, random)
        ours.append(
            (window.x2 - window.x1, window.y2 - window.y1, window.x1, window.y1, len(window.transform_boxes(boxes)[1]))
        )
    a, b = np.array(theirs), np.array(ours)
    spread = np.sqrt((a.var(0) + b.var(0)) / 250)
    assert (np.abs(a.mean(0) - b.mean(0)) < 4 * spread + 1 / 200).all()  # it cuts by whole pixels
    np.testing.assert_allclose(a.std(0), b.std(0), rtol=0.15)


def test_zoom_out_is_drawn_as_torchvisions() -> None:
    zoom = v2.RandomZoomOut(p=1.0)
    image = tv_tensors.Image(torch.zeros(3, 100, 200, dtype=torch.uint8))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pads = [zoom.make_params([image])["padding"] for _ in range(2000)]
    theirs = np.array([((left + right + 200) / 200, left / 200, top / 100) for left, top, right, _ in pads])
    random = np.random.default_rng(0)
    drawn = [random_zoom_out(np.zeros((0, 4)), 2.0, random) for _ in range(4000)]
    ours = np.array([(w.x2 - w.x1, -w.x1, -w.y1) for w in drawn if w != Window()])
    assert 1880 < len(ours) < 2120  # half of them
    np.testing.assert_allclose(theirs.mean(0), ours.mean(0), atol=0.12)
    np.testing.assert_allclose(theirs.std(0), ours.std(0), rtol=0.08)


def test_scale_jitter_enlarges_as_often_as_it_reduces() -> None:
    random = np.random.default_rng(0)
    scales = np.array([1 / (w.x2 - w.x1) for w in (scale_jitter(np.zeros((0, 4)), 1.0, random) for _ in range(2000))])
    assert scales.min() >= 0.5
    assert scales.max() <= 2
    np.testing.assert_allclose(np.quantile(scales, (0.25, 0.5, 0.75)), (2**-0.5, 1, 2**0.5), rtol=0.04)


def test_large_scale_jitter_is_the_papers() -> None:
    random = np.random.default_rng(0)
    windows = [large_scale_jitter(np.zeros((0, 4)), 1.0, random) for _ in range(2000)]
    scales = np.array([1 / (w.x2 - w.x1) for w in windows])
    assert scales.min() >= 0.1 and scales.max() <= 2
    np.testing.assert_allclose(np.quantile(scales, (0.25, 0.5, 0.75)), (0.575, 1.05, 1.525), rtol=0.05)


# --- colours ---


@pytest.mark.parametrize("contrast_first", [True, False])
def test_distortion_is_torchvisions(textured: np.ndarray, contrast_first: bool) -> None:
    planes = torch.from_numpy(textured.copy()).permute(2, 0, 1) / 255
    planes[:, :4] = torch.rand(3, 4, planes.shape[2], generator=torch.Generator().manual_seed(0))
    planes[:, 4] = planes[0, 4]  # greys have no hue
    pixels = (planes * 255).round().byte()
    given = pixels.permute(1, 2, 0).contiguous().numpy()
    distortion = Distortion(1.1, 0.7, 1.4, -0.04, contrast_first)
    expected = functional.adjust_brightness(pixels / 255, 1.1)
    steps = [
        (functional.adjust_contrast, 0.7),
        (functional.adjust_saturation, 1.4),
        (functional.adjust_hue, -0.04),
    ]
    for step, amount in steps if contrast_first else [*steps[1:], steps[0]]:
        expected = step(expected, amount)
    np.testing.assert_allclose(distortion(given), expected.permute(1, 2, 0).numpy() * 255, atol=0.51)
    grey = distortion(given[:, :, :1])
    assert grey.shape == (*given.shape[:2], 1)


def test_distortions_are_drawn_as_torchvisions() -> None:
    random = np.random.default_rng(0)
    drawn = [Distortion.drawn(random) for _ in range(3000)]
    theirs = v2.RandomPhotometricDistort()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        image = tv_tensors.Image(torch.zeros(3, 2, 2, dtype=torch.uint8))
        made = [theirs.make_params([image]) for _ in range(3000)]
    for name in ("brightness", "contrast", "saturation", "hue"):
        ours = np.array([value for each in drawn if (value := getattr(each, name)) is not None])
        others = np.array([float(each[f"{name}_factor"]) for each in made if each[f"{name}_factor"] is not None])
        assert abs(len(ours) - len(others)) < 150
        np.testing.assert_allclose([ours.min(), ours.max()], [others.min(), others.max()], atol=0.01)
    assert 1400 < sum(each.contrast_first for each in drawn) < 1600


# --- names ---


def test_names_are_checked_and_described() -> None:
    assert check_object_augmentations(["flip", "zoom"]) == ("zoom", "flip")
    assert check_object_augmentations(["ssd", "mosaic"]) == ("mosaic", "zoom", "crop", "flip", "color")
    assert describe_object_augmentations(["flip"]) == [OBJECT_AUGMENTATIONS["flip"]]
    with pytest.raises(UsageError, match="unknown augmentation 'cutmix'"):
        check_object_augmentations(["cutmix"])


# --- from disk ---


def scene(folder: Path, name: str, seed: int, size: tuple[int, int] = (320, 240)) -> Sample:
    """A JPEG of a bright box on a dark ground."""
    boxes = random_boxes(np.random.default_rng(seed), 1, *size)
    pixels = painted(*size, boxes, 0) // 2 + np.random.default_rng(seed).integers(0, 40, (*size[::-1], 3), np.uint8)
    Image.fromarray(pixels).save(folder / name, quality=95)
    flags = np.zeros(1, bool)
    areas = np.ones(1, np.float32)
    shapes = (Outline((box_to_polygon(*boxes[0].tolist()),)),)
    given = boxes.astype(np.float32)
    return Sample(folder / name, UNLABELLED, *size, given, np.array([seed]), flags, flags, areas, shapes=shapes)


def scenes(folder: Path, count: int, size: tuple[int, int] = (320, 240)) -> list[Sample]:
    return [scene(folder, f"{seed}.jpg", seed, size) for seed in range(count)]


def kept_in_memory(samples: list[Sample], pixels: ObjectTransform) -> PixelCache:
    shapes = [pixels.cached_shape(sample.width, sample.height) for sample in samples]
    return PixelCache(memory_block(PixelCache.needed(shapes)), shapes)


@pytest.mark.parametrize("size", [(320, 240), (1003, 777)], ids=["whole", "reduced"])
@pytest.mark.parametrize("names", [[], ["flip"], ["zoom", "crop", "flip"]], ids="+".join)
def test_batches_from_disk_bound_what_is_in_the_images(tmp_path: Path, names: list[str], size: tuple[int, int]) -> None:
    samples = scenes(tmp_path, 6, size)
    pixels = ObjectTransform(INPUT, names)
    images = BatchDataset(samples, pixels, seed=3, cache=kept_in_memory(samples, pixels))
    for epoch in range(4):
        batch = images.__getitems__([(epoch, index) for index in range(6)])
        assert batch.pixels.shape == (6, 3, 96, 128)
        assert batch.pixels.is_contiguous(memory_format=torch.channels_last)
        for image, targets, index in zip(batch.pixels, batch.targets, batch.indices, strict=True):
            assert targets.labels.tolist() == [int(index)]
            assert (targets.boxes.dtype, targets.labels.dtype) == (np.float32, np.int64)
            np.testing.assert_allclose(targets.boxes[0], bounds(image[0].numpy() > 85), atol=1.0)


def loaded(images: BatchDataset, workers: int, epoch: int) -> list[Batch]:
    order = EpochSampler(len(images), seed=3, shuffle=True)
    order.epoch = epoch
    return list(make_dataloader(images, order, batch=3, workers=workers))


def test_what_is_loaded_depends_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    samples = scenes(tmp_path, 7)
    pixels = ObjectTransform(INPUT, tuple(OBJECT_AUGMENTATIONS))
    plain, cached = (BatchDataset(samples, pixels, 3, cache) for cache in (None, kept_in_memory(samples, pixels)))
    loaded(cached, workers=0, epoch=0)
    first = loaded(plain, workers=0, epoch=1)
    for again in (loaded(cached, workers=0, epoch=1), loaded(plain, workers=2, epoch=1)):
        for one, other in zip(first, again, strict=True):
            assert torch.equal(one.pixels, other.pixels)
            assert torch.equal(one.indices, other.indices)
            for mine, yours in zip(one.targets, other.targets, strict=True):
                assert np.array_equal(mine.boxes, yours.boxes)
                assert np.array_equal(mine.labels, yours.labels)
    others = loaded(plain, workers=0, epoch=2)
    assert any(not torch.equal(one.pixels, other.pixels) for one, other in zip(first, others, strict=True))


def test_unreadable_images_are_left_out_of_batches_and_mosaics(tmp_path: Path) -> None:
    samples = scenes(tmp_path, 5)
    samples[2].path.write_bytes(b"gone")
    images = BatchDataset(samples, ObjectTransform(INPUT, ["mosaic"]), seed=0)
    seen: set[int] = set()
    for epoch in range(12):
        batch = images.__getitems__([(epoch, index) for index in range(5)])
        assert batch.indices.tolist() == [0, 1, 3, 4]
        assert len(batch.targets) == len(batch.pixels) == 4
        seen |= {int(label) for targets in batch.targets for label in targets.labels}
    assert seen == {0, 1, 3, 4}
    assert BatchDataset(samples, ObjectTransform(INPUT), 0).__getitems__([(0, 2)]).pixels.shape == (0, 3, 96, 128)


def test_mosaics_end_after_an_epoch(tmp_path: Path) -> None:
    """From then on, images are as they are without mosaics, their other changes included."""
    samples = scenes(tmp_path, 6)
    keys = [(epoch, index) for epoch in (3, 4) for index in range(6)]
    single = BatchDataset(samples, ObjectTransform(INPUT, ["crop", "flip"]), 0).__getitems__(keys)
    always, closed = (
        BatchDataset(samples, ObjectTransform(INPUT, ["mosaic", "crop", "flip"]), 0, combined_until=last)
        for last in (None, 3)
    )
    for row, (epoch, _) in enumerate(keys):
        with_mosaics, without = always.__getitems__([keys[row]]).pixels[0], closed.__getitems__([keys[row]]).pixels[0]
        assert torch.equal(without, with_mosaics if epoch == 3 else single.pixels[row])
    assert not torch.equal(always.__getitems__(keys[6:]).pixels, single.pixels[6:])


def test_crowds_do_not_train_and_background_stays(tmp_path: Path) -> None:
    sample = scene(tmp_path, "a.png", 1)
    crowd = Sample(
        sample.path, UNLABELLED, 320, 240, sample.boxes, sample.labels, np.ones(1, bool), sample.difficult, sample.areas
    )
    batch = BatchDataset([crowd], ObjectTransform(INPUT, ["ssd", "scale"]), 0).__getitems__([(0, 0)])
    assert len(batch.pixels) == 1
    assert batch.targets[0].boxes.shape == (0, 4)


def test_tiny_objects_are_dropped_from_changed_images_alone(tmp_path: Path) -> None:
    sample = scene(tmp_path, "a.png", 1)
    boxes = np.array([[10, 10, 13, 60], [100, 100, 106, 160]], np.float32)  # 1.2 and 2.4 pixels wide at the input
    both = Sample(
        sample.path,
        UNLABELLED,
        320,
        240,
        boxes,
        np.array([0, 1]),
        np.zeros(2, bool),
        np.zeros(2, bool),
        np.ones(2, np.float32),
    )
    plain = BatchDataset([both], ObjectTransform(INPUT), 0).__getitems__([(0, 0)])
    np.testing.assert_allclose(plain.targets[0].boxes, boxes * 0.4, atol=1e-4)
    changed = BatchDataset([both], ObjectTransform(INPUT, ["flip"]), 0).__getitems__([(0, 0)])
    assert changed.targets[0].labels.tolist() == [1]
    assert TINY == 2.0


def test_grey_and_centre_crop(tmp_path: Path) -> None:
    samples = scenes(tmp_path, 4)
    centre = Preprocessing(96, 96, channels=1, mean=(0.0,), std=(1.0,), resize="crop", crop_fraction=1.0)
    batch = BatchDataset(samples, ObjectTransform(centre), 0).__getitems__([(0, index) for index in range(4)])
    assert batch.pixels.shape == (4, 1, 96, 96)
    for image, targets in zip(batch.pixels, batch.targets, strict=True):
        for box in targets.boxes:
            np.testing.assert_allclose(box, bounds(image[0].numpy() > 85), atol=1.0)
    changed = BatchDataset(samples, ObjectTransform(centre, tuple(OBJECT_AUGMENTATIONS)), 0)
    assert changed.__getitems__([(0, 0)]).pixels.shape == (1, 1, 96, 96)


@pytest.fixture(scope="module")
def textured() -> np.ndarray:
    """Soft patches of all colours, (120, 180, 3)."""
    coarse = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    return np.asarray(coarse.resize((180, 120), Image.Resampling.BICUBIC))


def test_the_sheet_shows_boxes_in_the_colours_of_their_classes(tmp_path: Path) -> None:
    samples = [replace(sample, shapes=None) for sample in scenes(tmp_path, 5)]
    samples[2].path.write_bytes(b"gone")
    large = Preprocessing(240, 320, resize="stretch")  # of which boxes are drawn without enlarging it
    plain, changed = ObjectTransform(large), ObjectTransform(large, ["flip", "color"])
    sheet = augmentation_preview(samples, plain, changed, seed=0, images=5, variants=3)
    assert len(sheet) == 4
    for sample, shown in zip((samples[k] for k in (0, 1, 3, 4)), sheet, strict=True):
        assert len(shown.augmented) == 3
        x1, y1, x2, y2 = sample.boxes[0].astype(int).tolist()
        frame = [(x1, (y1 + y2) // 2), (x2, (y1 + y2) // 2), ((x1 + x2) // 2, y1), ((x1 + x2) // 2, y2)]
        for image, mirrored in [(shown.original, (False,)), *((each, (False, True)) for each in shown.augmented)]:
            found = [
                [image[min(y, 239), min(320 - x if mirror else x, 319)].tolist() for x, y in frame]
                for mirror in mirrored
            ]
            assert any(colours == [list(colour_of(int(sample.labels[0])))] * 4 for colours in found)


def test_the_sheet_shows_masks_where_objects_have_them(tmp_path: Path) -> None:
    Image.fromarray(np.full((240, 320, 3), 90, np.uint8)).save(tmp_path / "a.png")
    triangle = Outline(((20.0, 20.0, 300.0, 20.0, 20.0, 220.0),))
    box, flags = np.array([[20, 20, 300, 220]], np.float32), np.zeros(1, bool)
    sample = Sample(
        tmp_path / "a.png", UNLABELLED, 320, 240, box, np.array([3]), flags, flags, np.ones(1), shapes=(triangle,)
    )
    plain = ObjectTransform(Preprocessing(240, 320, resize="stretch"))
    ((shown, *_),) = (each.augmented for each in augmentation_preview([sample], plain, plain, seed=0))
    mixed = 0.55 * 90 + 0.45 * np.array(colour_of(3))
    np.testing.assert_allclose(shown[60, 60], mixed, atol=2)
    assert shown[200, 280].tolist() == shown[8, 8].tolist() == [90] * 3  # in the box, and beside it


@pytest.mark.parametrize("names", [(), ("flip",), ("zoom", "flip"), ("scale", "crop"), ("mosaic", "flip")])
def test_images_that_are_fitted_keep_their_aspect(names: tuple[str, ...]) -> None:
    """A white square on black stays a square where it is not cut off; what is beside the image is grey."""
    boxes = np.array([[60.0, 40.0, 100.0, 80.0]])
    image, labels = painted(300, 120, boxes, 0), np.zeros(1, np.int64)
    transform = ObjectTransform(Preprocessing(96, 96, mean=(0.0,) * 3, resize="fit", fill=127.5), names)
    sample = Sample(Path("a.png"), width=300, height=120, boxes=boxes.astype(np.float32), labels=labels)
    decoded = transform.decoded(transform.prepare(Image.fromarray(image)), sample)
    ratios = []
    for seed in range(40):
        group = [decoded] * (4 if transform.partners(seed, 1) else 1)
        (pixels,), (target,) = transform([group], [seed])
        assert ((pixels == 128).all(2).mean() > 0.2) or "crop" in names or len(group) == 4
        for box in target.boxes:
            x1, y1, x2, y2 = box.round().astype(int)
            assert pixels[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].min(initial=255) > 200
            if (box[:2] > 0.5).all() and (box[2:] < 95.5).all() and len(group) == 1 and "crop" not in names:
                ratios.append((box[2] - box[0]) / (box[3] - box[1]))
    assert (ratios and np.allclose(ratios, 1, atol=0.05)) or "crop" in names
    if not names:
        np.testing.assert_allclose(target.boxes, [[19.2, 41.8, 32, 54.6]], atol=0.5)
